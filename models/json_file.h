// SPDX-License-Identifier: Apache-2.0
// JSON files of a model: what they may take in memory is bounded, whatever they hold. Any thread.
#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead {

// A config.json, in bytes.
inline constexpr size_t kMaxConfigBytes = size_t{16} << 20;
// Values in one file. One takes 16 bytes of memory, as a member with its key some 100, where the
// text may spend two: without a limit, a file would take many times its size. ParseJsonTable has
// it, too.
inline constexpr size_t kMaxFileValues = size_t{1} << 20;
// Bytes of all keys and strings together, of which readers make copies.
inline constexpr size_t kMaxFileText = size_t{32} << 20;
// Bytes of one string, number or gap, which the parser keeps.
inline constexpr size_t kMaxFileToken = size_t{8} << 20;

// kInvalidArgument for a token of more than kMaxFileToken bytes. What is no JSON may pass.
absl::Status CheckJsonTokens(std::string_view text);

// As ParseJson, 64 levels deep; what is beyond these limits, or has more than `max_values` in all,
// is kInvalidArgument.
absl::StatusOr<Json> ParseJsonFile(std::string_view text, size_t max_values = kMaxFileValues);

}  // namespace fairlead
