// SPDX-License-Identifier: Apache-2.0
// The one way hostile JSON enters the program: model files, requests. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace fairlead {

// Keeps the order of keys: chat templates print objects in the order in which they came.
using Json = nlohmann::ordered_json;

// Parses one JSON value with nothing after it. Errors (kInvalidArgument) name the byte offset and
// the reason: syntax, invalid UTF-8, deeper than `max_depth`. Duplicate keys: the last one wins.
absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth = 64);

// For objects with very many members, as weight tables and vocabularies are: inserting and finding
// cost O(log n), where Json scans its members each time. Members come sorted by key.
using JsonTable = nlohmann::json;

// As ParseJson; a key that comes twice in one object is an error that names it.
absl::StatusOr<JsonTable> ParseJsonTable(std::string_view text, int max_depth = 64);

// Serialises; bytes that are not UTF-8 become U+FFFD, so it never throws.
std::string DumpJson(const Json& value);

}  // namespace fairlead
