// SPDX-License-Identifier: Apache-2.0
// What ctest said. Pure; any thread.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead::bench {

// {"tests": how many ran, "failed": [names]} of ctest's output. kInvalidArgument when its summary
// is not there.
absl::StatusOr<Json> ParseCtest(std::string_view output);

}  // namespace fairlead::bench
