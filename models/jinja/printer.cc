// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/printer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/strings.h"
#include "models/jinja/objects.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {

std::string IntToString(Int value) {
  if (value >= 0) return StrCat(static_cast<uint64_t>(value));
  return StrCat("-", static_cast<uint64_t>(-value));
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Shortest digits in the form d.ddde[+-]xx, laid out by Python's rule: plain for 1e-4 <= |x| <
  // 1e16.
  std::array<char, 40> buffer;
  const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                     std::chars_format::scientific);
  std::string_view text(buffer.data(), static_cast<size_t>(written.ptr - buffer.data()));
  const size_t e = text.find('e');
  int exponent = 0;
  const char* exponent_begin = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(exponent_begin, text.data() + text.size(), exponent);
  std::string_view sign;
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c == '-') sign = "-";
    if (c >= '0' && c <= '9') digits.push_back(c);
  }
  if (exponent < -4 || exponent >= 16) {
    const std::string fraction = digits.size() > 1 ? StrCat(".", digits.substr(1)) : "";
    return StrCat(sign, digits.substr(0, 1), fraction,
                  absl::StrFormat("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent)));
  }
  if (exponent < 0) {
    return StrCat(sign, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  }
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  const std::string fraction = digits.size() > whole ? digits.substr(whole) : "0";
  return StrCat(sign, digits.substr(0, whole), ".", fraction);
}

namespace {

void AppendEscapedCharacter(char32_t c, char quote, std::string& out) {
  if (c == static_cast<char32_t>(quote) || c == '\\') {
    out.push_back('\\');
    out.push_back(static_cast<char>(c));
  } else if (c == '\n') {
    out.append("\\n");
  } else if (c == '\r') {
    out.append("\\r");
  } else if (c == '\t') {
    out.append("\\t");
  } else if (IsPrintable(c)) {
    AppendUtf8(c, out);
  } else if (c < 0x100) {
    absl::StrAppendFormat(&out, "\\x%02x", static_cast<uint32_t>(c));
  } else if (c < 0x10000) {
    absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c));
  } else {
    absl::StrAppendFormat(&out, "\\U%08x", static_cast<uint32_t>(c));
  }
}

void AppendStringRepr(const Text& text, TextBuilder& out) {
  const std::string& bytes = text.bytes();
  const bool double_quotes =
      bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  out.Append(std::string_view(&quote, 1), true);
  text.ForEachRun([&](std::string_view run, bool trusted) {
    if (!out.budget().Work(run.size())) return;
    std::string escaped;
    for (size_t at = 0; at < run.size();) {
      const DecodedCodePoint c = DecodeAt(run, at);
      AppendEscapedCharacter(c.value, quote, escaped);
      at += c.size;
    }
    out.Append(escaped, trusted);
  });
  out.Append(std::string_view(&quote, 1), true);
}

void AppendItems(const std::vector<Value>& items, TextBuilder& out) {
  for (size_t i = 0; i < items.size() && out.budget().ok(); ++i) {
    if (i > 0) out.Append(", ", true);
    AppendRepr(items[i], out);
  }
}

void AppendDictRepr(const Dict& dict, TextBuilder& out) {
  out.Append("{", true);
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!out.budget().ok()) return;
    if (!first) out.Append(", ", true);
    first = false;
    AppendRepr(key, out);
    out.Append(": ", true);
    AppendRepr(value, out);
  }
  out.Append("}", true);
}

void AppendNamespaceRepr(const Namespace& space, TextBuilder& out) {
  out.Append("<Namespace {", true);
  bool first = true;
  for (const auto& [name, value] : space.attributes()) {
    out.Append(first ? "'" : ", '", true);
    first = false;
    out.Append(name, true);
    out.Append("': ", true);
    AppendRepr(value, out);
  }
  out.Append("}>", true);
}

void AppendViewRepr(const DictView& view, TextBuilder& out) {
  out.Append(view.type_name(), true);
  out.Append("([", true);
  for (size_t i = 0; i < view.size() && out.budget().ok(); ++i) {
    if (i > 0) out.Append(", ", true);
    AppendRepr(view.At(i, out.budget()), out);
  }
  out.Append("])", true);
}

void AppendObjectRepr(const Value& value, TextBuilder& out) {
  if (value.is_undefined()) return out.Append("Undefined", true);
  if (const auto* space = value.As<Namespace>()) return AppendNamespaceRepr(*space, out);
  if (const auto* view = value.As<DictView>()) return AppendViewRepr(*view, out);
  if (const auto* callable = value.As<Callable>()) return out.Append(callable->Describe(), true);
  if (const auto* range = value.As<Range>()) {
    const std::string step = range->step() == 1 ? "" : StrCat(", ", IntToString(range->step()));
    return out.Append(
        StrCat("range(", IntToString(range->start()), ", ", IntToString(range->stop()), step, ")"),
        true);
  }
  out.Append(StrCat("<", value.object().type_name(), " object>"), true);
}

}  // namespace

void AppendRepr(const Value& value, TextBuilder& out) {
  const DepthScope scope(out.budget());
  if (!scope.ok() || !out.budget().Step()) return;
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
      return out.Append("None", true);
    case Kind::kBool:
      return out.Append(value.as_bool() ? "True" : "False", true);
    case Kind::kInt:
      return out.Append(IntToString(value.as_int()), true);
    case Kind::kFloat:
      return out.Append(FloatRepr(value.as_double()), true);
    case Kind::kString:
      if (!value.string().markup) return AppendStringRepr(value.text(), out);
      out.Append("Markup(", true);
      AppendStringRepr(value.text(), out);
      return out.Append(")", true);
    case Kind::kList:
      out.Append("[", true);
      AppendItems(value.items(), out);
      return out.Append("]", true);
    case Kind::kTuple:
      out.Append("(", true);
      AppendItems(value.items(), out);
      return out.Append(value.items().size() == 1 ? ",)" : ")", true);
    case Kind::kDict:
      return AppendDictRepr(value.dict(), out);
    case Kind::kObject:
      return AppendObjectRepr(value, out);
  }
}

void AppendStr(const Value& value, TextBuilder& out) {
  if (value.is_string()) return out.Append(value.text());
  if (!value.is_undefined()) AppendRepr(value, out);
}

Value ToString(const Value& value, Budget& budget) {
  if (value.is_string()) return value;
  TextBuilder builder(budget);
  AppendStr(value, builder);
  return NewString(std::move(builder));
}

void AppendEscaped(const Text& text, TextBuilder& out) {
  text.ForEachRun([&](std::string_view run, bool trusted) {
    size_t done = 0;
    for (size_t at = 0; at < run.size() && out.budget().ok(); ++at) {
      std::string_view entity;
      switch (run[at]) {
        case '&':
          entity = "&amp;";
          break;
        case '<':
          entity = "&lt;";
          break;
        case '>':
          entity = "&gt;";
          break;
        case '\'':
          entity = "&#39;";
          break;
        case '"':
          entity = "&#34;";
          break;
        default:
          continue;
      }
      out.Append(run.substr(done, at - done), trusted);
      out.Append(entity, trusted);
      done = at + 1;
    }
    out.Append(run.substr(done), trusted);
  });
}

}  // namespace fairlead::jinja
