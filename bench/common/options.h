// SPDX-License-Identifier: Apache-2.0
// Command line values and result files that the programs of bench/ share. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead::bench {

// "128,512": whole numbers from `low` to `high`. kInvalidArgument names the option, the item and
// the range.
absl::StatusOr<std::vector<int>> ParseIntList(std::string_view option, std::string_view text,
                                              int low, int high);
// "precise,fast": items among `allowed`; kInvalidArgument lists them.
absl::StatusOr<std::vector<std::string>> ParseNameList(std::string_view option,
                                                       std::string_view text,
                                                       const std::vector<std::string>& allowed);

// Writes `value` and a newline to `path`, "-" is stdout.
absl::Status WriteJson(const std::string& path, const Json& value);

}  // namespace fairlead::bench
