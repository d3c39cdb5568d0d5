// SPDX-License-Identifier: Apache-2.0
// JSON files of a model: what they may take in memory is bounded, whatever they hold. Any thread.
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead {

// Values in one file. One takes 16 bytes of memory, as a member with its key some 100, where the
// text may spend two: without a limit, a file would take many times its size. ParseJsonTable has
// it, too.
inline constexpr size_t kMaxFileValues = size_t{1} << 20;

// As ParseJson, 64 levels deep; more than `max_values` in all are kInvalidArgument.
absl::StatusOr<Json> ParseJsonFile(std::string_view text, size_t max_values = kMaxFileValues);

}  // namespace fairlead
