// SPDX-License-Identifier: Apache-2.0
// json.dumps: separators, indentation and escapes as CPython's encoder writes them.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/strings.h"
#include "models/jinja/objects.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

void AppendJsonCharacter(char32_t c, bool ensure_ascii, std::string& out) {
  switch (c) {
    case '"':
      return static_cast<void>(out.append("\\\""));
    case '\\':
      return static_cast<void>(out.append("\\\\"));
    case '\n':
      return static_cast<void>(out.append("\\n"));
    case '\r':
      return static_cast<void>(out.append("\\r"));
    case '\t':
      return static_cast<void>(out.append("\\t"));
    case '\f':
      return static_cast<void>(out.append("\\f"));
    case '\b':
      return static_cast<void>(out.append("\\b"));
    default:
      break;
  }
  if (c < 0x20 || (ensure_ascii && c > 0x7e && c < 0x10000)) {
    absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c));
  } else if (ensure_ascii && c >= 0x10000) {
    const uint32_t offset = static_cast<uint32_t>(c) - 0x10000;
    absl::StrAppendFormat(&out, "\\u%04x\\u%04x", 0xd800 + (offset >> 10),
                          0xdc00 + (offset & 0x3ff));
  } else {
    AppendUtf8(c, out);
  }
}

std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return FloatRepr(value);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, TextBuilder& out) : style_(style), out_(out) {}

  absl::Status Write(const Value& value) {
    const DepthScope scope(out_.budget());
    if (!scope.ok() || !out_.budget().Step()) return out_.budget().status();
    switch (value.kind()) {
      case Kind::kString:
        WriteString(value.text());
        return absl::OkStatus();
      case Kind::kList:
      case Kind::kTuple:
        return WriteArray(value.items());
      case Kind::kDict:
        return WriteObject(value.dict());
      default:
        break;
    }
    const std::optional<std::string> scalar = Scalar(value);
    if (!scalar) {
      return TypeError(StrCat("Object of type ", TypeName(value), " is not JSON serializable"));
    }
    out_.Append(*scalar, true);
    return absl::OkStatus();
  }

 private:
  static std::optional<std::string> Scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.as_bool() ? "true" : "false";
    if (value.is_int()) return IntToString(value.as_int());
    if (value.is_float()) return JsonFloat(value.as_double());
    return std::nullopt;
  }

  void WriteString(const Text& text) {
    out_.Append("\"", true);
    text.ForEachRun([&](std::string_view run, bool trusted) {
      if (!out_.budget().Work(run.size())) return;
      std::string escaped;
      for (size_t at = 0; at < run.size();) {
        const DecodedCodePoint c = DecodeAt(run, at);
        AppendJsonCharacter(c.value, style_.ensure_ascii, escaped);
        at += c.size;
      }
      out_.Append(escaped, trusted);
    });
    out_.Append("\"", true);
  }

  void NewLine() {
    if (!style_.multiline) return;
    out_.Append("\n", true);
    for (int i = 0; i < level_; ++i) out_.Append(style_.indent);
  }

  absl::Status WriteArray(const std::vector<Value>& items) {
    if (items.empty()) {
      out_.Append("[]", true);
      return absl::OkStatus();
    }
    out_.Append("[", true);
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      NewLine();
      JINJA_RETURN_IF_ERROR(Write(items[i]));
    }
    --level_;
    NewLine();
    out_.Append("]", true);
    return absl::OkStatus();
  }

  absl::Status WriteKey(const Value& key) {
    if (key.is_string()) {
      WriteString(key.text());
      return absl::OkStatus();
    }
    const std::optional<std::string> scalar = Scalar(key);
    if (!scalar) {
      return TypeError(StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
    }
    out_.Append(StrCat("\"", *scalar, "\""), true);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<size_t>> KeyOrder(const Dict& dict) {
    std::vector<size_t> order(dict.entries().size());
    std::iota(order.begin(), order.end(), size_t{0});
    if (!style_.sort_keys) return order;
    absl::Status failure;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      if (!failure.ok()) return false;
      const auto ordering =
          Order(dict.entries()[a].first, dict.entries()[b].first, "<", out_.budget());
      if (!ordering.ok()) failure = ordering.status();
      return ordering.ok() && *ordering < 0;
    });
    if (!failure.ok()) return failure;
    return order;
  }

  absl::Status WriteObject(const Dict& dict) {
    if (dict.entries().empty()) {
      out_.Append("{}", true);
      return absl::OkStatus();
    }
    JINJA_ASSIGN_OR_RETURN(const std::vector<size_t> order, KeyOrder(dict));
    out_.Append("{", true);
    ++level_;
    bool first = true;
    for (const size_t i : order) {
      if (!first) out_.Append(style_.item_separator);
      first = false;
      NewLine();
      JINJA_RETURN_IF_ERROR(WriteKey(dict.entries()[i].first));
      out_.Append(style_.key_separator);
      JINJA_RETURN_IF_ERROR(Write(dict.entries()[i].second));
    }
    --level_;
    NewLine();
    out_.Append("}", true);
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  TextBuilder& out_;
  int level_ = 0;
};

}  // namespace

absl::Status AppendJson(const Value& value, const JsonStyle& style, TextBuilder& out) {
  return JsonWriter(style, out).Write(value);
}

}  // namespace fairlead::jinja
