// SPDX-License-Identifier: Apache-2.0
#include "models/json.h"

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/json_file.h"

namespace fairlead {
namespace {

constexpr size_t kLongestMessage = 200;

// The library quotes the token it stopped at, however long that is and whatever bytes it has.
std::string Shortened(std::string_view what) {
  return StrCat(ReplaceInvalidUtf8(what.substr(0, kLongestMessage)),
                what.size() > kLongestMessage ? "..." : "");
}

struct Limits {
  int depth;
  size_t values = SIZE_MAX;
  size_t text_bytes = SIZE_MAX;
};

// Builds a value from the parser's events. The library's own builder looks for each new key of a
// Json among all earlier ones, which is quadratic in what a client may send; here a hash table
// does.
template <typename Value>
class Builder : public nlohmann::json_sax<Value> {
 public:
  using Size = std::size_t;

  Builder(const Limits& limits, bool refuse_duplicates)
      : limits_(limits), refuse_duplicates_(refuse_duplicates) {}

  absl::StatusOr<Value> Take() {
    if (!status_.ok()) return status_;
    return std::move(root_);
  }

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(typename Value::number_integer_t value) override { return Add(value); }
  bool number_unsigned(typename Value::number_unsigned_t value) override { return Add(value); }
  bool number_float(typename Value::number_float_t value, const std::string&) override {
    return Add(value);
  }
  bool string(std::string& value) override {
    return CountText(value.size()) && Add(std::move(value));
  }
  bool binary(typename Value::binary_t&) override { return false; }  // not in JSON text

  bool start_object(Size) override { return Open(Value::object()); }
  bool key(std::string& key) override {
    if (!CountText(key.size())) return false;
    Frame& frame = open_.back();
    auto [place, is_new] = frame.index_of.try_emplace(key, kNew);
    if (!is_new && refuse_duplicates_) {
      return Fail(StrCat("duplicate key \"", Shortened(absl::CHexEscape(key)), "\""));
    }
    frame.member = &*place;
    return true;
  }
  bool end_object() override { return Close(); }
  bool start_array(Size) override { return Open(Value::array()); }
  bool end_array() override { return Close(); }

  bool parse_error(Size position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // Number 101 and up are syntax errors, which have a place; the others (a number out of range)
    // have none.
    const bool has_position = error.id < 200;
    return Fail(has_position
                    ? StrCat("invalid JSON at byte ", position, ": ", Shortened(error.what()))
                    : StrCat("invalid JSON: ", Shortened(error.what())));
  }

 private:
  using Members = typename Value::object_t;
  // Whether members lie in a vector, in the order in which they came.
  static constexpr bool kOrdered =
      std::is_base_of_v<std::vector<typename Members::value_type>, Members>;
  static constexpr size_t kNew = static_cast<size_t>(-1);
  struct Frame {
    Value value;
    absl::flat_hash_map<std::string, size_t> index_of;
    std::pair<const std::string, size_t>* member =
        nullptr;  // the key that was read last, and its place
  };

  bool Fail(std::string message) {
    status_.Update(absl::InvalidArgumentError(message));
    return false;
  }

  bool CountText(size_t bytes) {
    text_bytes_ += bytes;
    if (text_bytes_ <= limits_.text_bytes) return true;
    return Fail(StrCat("JSON with more than ", limits_.text_bytes, " bytes of keys and strings"));
  }

  bool Open(Value empty) {
    if (static_cast<int>(open_.size()) >= limits_.depth)
      return Fail(StrCat("JSON is nested deeper than ", limits_.depth, " levels"));
    open_.push_back({std::move(empty), {}, nullptr});
    return true;
  }

  bool Close() {
    Value value = std::move(open_.back().value);
    open_.pop_back();
    return Add(std::move(value));
  }

  bool Add(Value value) {
    if (++values_ > limits_.values)
      return Fail(StrCat("JSON of more than ", limits_.values, " values"));
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Frame& frame = open_.back();
    if (frame.value.is_array()) {
      frame.value.template get_ref<typename Value::array_t&>().push_back(std::move(value));
      return true;
    }
    Members& members = frame.value.template get_ref<Members&>();
    auto& [key, index] = *frame.member;
    if constexpr (kOrdered) {
      if (index == kNew) {
        index = members.size();
        members.emplace_back(key, std::move(value));
      } else {
        members.begin()[static_cast<std::ptrdiff_t>(index)].second = std::move(value);
      }
    } else {
      members.insert_or_assign(key, std::move(value));
    }
    return true;
  }

  const Limits limits_;
  size_t values_ = 0;
  size_t text_bytes_ = 0;  // of keys and strings
  const bool refuse_duplicates_;
  absl::Status status_;
  std::vector<Frame> open_;
  Value root_;
};

template <typename Value>
absl::StatusOr<Value> Parse(std::string_view text, const Limits& limits, bool refuse_duplicates) {
  Builder<Value> builder(limits, refuse_duplicates);
  Value::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text, int max_depth) {
  return Parse<Json>(text, {.depth = max_depth}, /*refuse_duplicates=*/false);
}

absl::Status CheckJsonTokens(std::string_view text) {
  size_t begin = 0;  // of the token
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
      begin = i;
    } else if (!in_string &&
               (c == ',' || c == ':' || c == '[' || c == ']' || c == '{' || c == '}')) {
      begin = i;
    }
    if (i - begin > kMaxFileToken) {
      return absl::InvalidArgumentError(StrCat(
          "the JSON at byte ", begin, " has a token of more than ", kMaxFileToken, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseJsonFile(std::string_view text, size_t max_values) {
  constexpr int kMaxDepth = 64;
  if (absl::Status status = CheckJsonTokens(text); !status.ok()) return status;
  return Parse<Json>(text, {kMaxDepth, max_values, kMaxFileText}, /*refuse_duplicates=*/false);
}

absl::StatusOr<JsonTable> ParseJsonTable(std::string_view text, int max_depth) {
  if (absl::Status status = CheckJsonTokens(text); !status.ok()) return status;
  return Parse<JsonTable>(text, {max_depth, kMaxFileValues, kMaxFileText},
                          /*refuse_duplicates=*/true);
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace fairlead
