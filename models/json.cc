// SPDX-License-Identifier: Apache-2.0
#include "models/json.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr size_t kLongestMessage = 200;

// Watches the parser's events; false from Keep stops it from building what nobody will see.
class DepthGuard {
 public:
  explicit DepthGuard(int max_depth) : max_depth_(max_depth) {}
  bool Keep(int depth, nlohmann::json::parse_event_t event) {
    using Event = nlohmann::json::parse_event_t;
    const bool opens = event == Event::object_start || event == Event::array_start;
    if (opens && depth >= max_depth_ && status_.ok()) {
      status_ =
          absl::InvalidArgumentError(StrCat("JSON is nested deeper than ", max_depth_, " levels"));
    }
    return status_.ok();
  }
  void Fail(absl::Status status) { status_.Update(std::move(status)); }
  const absl::Status& status() const { return status_; }

 private:
  const int max_depth_;
  absl::Status status_;
};

// The library quotes the token it stopped at, however long that is.
std::string Shortened(std::string_view what) {
  return StrCat(what.substr(0, kLongestMessage), what.size() > kLongestMessage ? "..." : "");
}

template <typename Value, typename Callback>
absl::StatusOr<Value> Parse(std::string_view text, const DepthGuard& guard, Callback callback) {
  try {
    Value value = Value::parse(text.begin(), text.end(), callback);
    if (!guard.status().ok()) return guard.status();
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        StrCat("invalid JSON at byte ", error.byte, ": ", Shortened(error.what())));
  } catch (const nlohmann::json::exception& error) {  // a number out of range
    return absl::InvalidArgumentError(StrCat("invalid JSON: ", Shortened(error.what())));
  }
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth) {
  DepthGuard guard(max_depth);
  return Parse<Json>(text, guard, [&](int depth, nlohmann::json::parse_event_t event, Json&) {
    return guard.Keep(depth, event);
  });
}

absl::StatusOr<JsonTable> ParseJsonTable(std::string_view text, int max_depth) {
  using Event = JsonTable::parse_event_t;
  DepthGuard guard(max_depth);
  std::vector<absl::flat_hash_set<std::string>>
      open_objects;  // the keys seen so far, outermost first
  return Parse<JsonTable>(text, guard, [&](int depth, Event event, JsonTable& value) {
    if (!guard.Keep(depth, event)) return false;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event != Event::key) return true;
    const std::string& key = value.get_ref<const std::string&>();
    if (open_objects.back().insert(key).second) return true;
    guard.Fail(absl::InvalidArgumentError(
        StrCat("duplicate key \"", Shortened(absl::CHexEscape(key)), "\"")));
    return false;
  });
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace fairlead
