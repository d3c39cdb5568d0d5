// SPDX-License-Identifier: Apache-2.0
#include "models/json.h"

#include "absl/strings/str_cat.h"

namespace fairlead {

absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth) {
  bool too_deep = false;
  const auto depth_guard = [&](int depth, Json::parse_event_t event, Json&) {
    const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    if (opens && depth >= max_depth) too_deep = true;
    return !too_deep;
  };
  try {
    Json value = Json::parse(text.begin(), text.end(), depth_guard);
    if (too_deep) return absl::InvalidArgumentError(absl::StrCat("JSON is nested deeper than ", max_depth, " levels"));
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("invalid JSON at byte ", error.byte, ": ", error.what()));
  } catch (const nlohmann::json::exception& error) {  // a number out of range
    return absl::InvalidArgumentError(absl::StrCat("invalid JSON: ", error.what()));
  }
}

std::string DumpJson(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace fairlead
