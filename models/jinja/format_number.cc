// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/format_number.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "kernels/strings.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {
namespace {

// Keeps one number's text small; Python's own limit is that of memory.
constexpr int kMaxFormatNumber = 100'000;

bool IsAlign(std::string_view c) { return c == "<" || c == ">" || c == "^" || c == "="; }

// Separators between groups of `size` digits in the leading digits of `text`.
void GroupDigits(std::string& text, char separator, size_t size) {
  size_t digits = 0;
  while (digits < text.size() && absl::ascii_isxdigit(static_cast<unsigned char>(text[digits]))) {
    ++digits;
  }
  for (size_t at = digits; at > size;) {
    at -= size;
    text.insert(at, 1, separator);
  }
}

size_t GroupSize(const NumberFormat& format) {
  return format.type == 'x' || format.type == 'X' || format.type == 'o' || format.type == 'b' ? 4
                                                                                              : 3;
}

// Sign, prefix and digits padded to the width.
std::string Assemble(std::string_view sign, std::string_view prefix, std::string digits,
                     const NumberFormat& format) {
  const bool after_sign = format.align == '=' || (format.zero && format.align == '\0');
  const std::string& fill = format.fill;
  if (format.grouping != '\0') {
    if (after_sign && fill == "0") {  // the zeros are grouped, too
      const size_t wanted = static_cast<size_t>(format.width);
      std::string grouped = digits;
      GroupDigits(grouped, format.grouping, GroupSize(format));
      while (sign.size() + prefix.size() + grouped.size() < wanted) {
        digits.insert(0, 1, '0');
        grouped = digits;
        GroupDigits(grouped, format.grouping, GroupSize(format));
      }
      digits = grouped;
    } else {
      GroupDigits(digits, format.grouping, GroupSize(format));
    }
  }
  const std::string head = StrCat(sign, prefix);
  const size_t length = head.size() + digits.size();
  const size_t padding =
      static_cast<size_t>(format.width) > length ? static_cast<size_t>(format.width) - length : 0;
  size_t left = padding;
  if (format.align == '<') left = 0;
  if (format.align == '^') left = padding / 2;
  std::string before, after;
  for (size_t i = 0; i < left; ++i) before += fill;
  for (size_t i = left; i < padding; ++i) after += fill;
  if (after_sign) return StrCat(head, before, digits);
  return StrCat(before, head, digits, after);
}

std::string_view SignOf(bool negative, const NumberFormat& format) {
  if (negative) return "-";
  if (format.sign == '+') return "+";
  return format.sign == ' ' ? " " : "";
}

std::string InBase(uint64_t value, unsigned base, bool upper) {
  const char* digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string text;
  do {
    text.push_back(digits[value % base]);
    value /= base;
  } while (value > 0);
  std::reverse(text.begin(), text.end());
  return text;
}

std::string Printed(const char* pattern, int precision, double value) {
  const int size = std::snprintf(nullptr, 0, pattern, precision, value);
  std::string text(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), pattern, precision, value);
  text.pop_back();
  return text;
}

std::string FloatDigits(double value, const NumberFormat& format) {
  switch (format.type) {
    case 'e':
      return Printed(format.alternate ? "%#.*e" : "%.*e", format.precision, value);
    case 'E':
      return Printed(format.alternate ? "%#.*E" : "%.*E", format.precision, value);
    case 'g':
      return Printed(format.alternate ? "%#.*g" : "%.*g", format.precision, value);
    case 'G':
      return Printed(format.alternate ? "%#.*G" : "%.*G", format.precision, value);
    case '%':
      return Printed("%.*f", format.precision, value * 100) + "%";
    case 'F':
      return Printed(format.alternate ? "%#.*F" : "%.*F", format.precision, value);
    default:
      return Printed(format.alternate ? "%#.*f" : "%.*f", format.precision, value);
  }
}

}  // namespace

absl::StatusOr<int> CheckedFormatNumber(Int number) {
  if (number > kMaxFormatNumber || number < -kMaxFormatNumber) {
    return absl::InvalidArgumentError(StrCat("a width or precision above ", kMaxFormatNumber));
  }
  return static_cast<int>(number);
}

absl::StatusOr<NumberFormat> ParseFormat(std::string_view specification) {
  NumberFormat format;
  std::string_view rest = specification;
  const auto take_if = [&rest](std::string_view set) {
    if (rest.empty() || set.find(rest.front()) == std::string_view::npos) return '\0';
    const char c = rest.front();
    rest.remove_prefix(1);
    return c;
  };
  const auto take_number = [&](int otherwise) -> absl::StatusOr<int> {
    if (rest.empty() || !absl::ascii_isdigit(static_cast<unsigned char>(rest.front()))) {
      return otherwise;
    }
    Int number = 0;
    while (const char c = take_if("0123456789")) {
      number = std::min<Int>(number * 10 + (c - '0'), kMaxInt);
    }
    return CheckedFormatNumber(number);
  };
  if (!rest.empty()) {
    const size_t first = DecodeAt(rest, 0).size;
    if (rest.size() > first && IsAlign(rest.substr(first, 1))) {
      format.fill = std::string(rest.substr(0, first));
      format.fill_given = true;
      rest.remove_prefix(first);
    }
  }
  format.align = take_if("<>^=");
  format.sign = take_if("+- ");
  format.alternate = take_if("#") != '\0';
  format.zero = take_if("0") != '\0';
  if (format.zero && !format.fill_given) format.fill.assign(1, '0');
  JINJA_ASSIGN_OR_RETURN(format.width, take_number(0));
  format.grouping = take_if(",_");
  if (take_if(".") != '\0') {
    JINJA_ASSIGN_OR_RETURN(format.precision, take_number(-1));
    if (format.precision < 0)
      return absl::InvalidArgumentError("Format specifier missing precision");
  }
  if (rest.size() > 1) return absl::InvalidArgumentError("Invalid format specifier");
  if (!rest.empty()) format.type = rest.front();
  return format;
}

std::string FormatInt(Int value, const NumberFormat& format) {
  const bool negative = value < 0;
  const uint64_t magnitude = static_cast<uint64_t>(negative ? -value : value);
  unsigned base = 10;
  std::string prefix;
  if (format.type == 'x' || format.type == 'X') base = 16;
  if (format.type == 'o') base = 8;
  if (format.type == 'b') base = 2;
  if (base != 10 && format.alternate) prefix = StrCat("0", std::string(1, format.type));
  std::string digits = InBase(magnitude, base, format.type == 'X');
  if (format.precision > static_cast<int>(digits.size())) {
    digits.insert(0, static_cast<size_t>(format.precision) - digits.size(), '0');
  }
  return Assemble(SignOf(negative, format), prefix, std::move(digits), format);
}

std::string FormatFloat(double value, const NumberFormat& format) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  std::string digits;
  if (std::isfinite(value)) {
    digits = FloatDigits(std::abs(value), format);
  } else {
    digits = std::isnan(value) ? "nan" : "inf";
    if (absl::ascii_isupper(static_cast<unsigned char>(format.type))) {
      digits = absl::AsciiStrToUpper(digits);
    }
    if (format.type == '%') digits += "%";
  }
  return Assemble(SignOf(negative, format), "", std::move(digits), format);
}

absl::StatusOr<std::string> FormatNumber(const Value& value, NumberFormat format) {
  const std::string_view kIntTypes = "bdoxXn";
  const std::string_view kFloatTypes = "eEfFgG%";
  const auto is_in = [&](std::string_view types) {
    return format.type != '\0' && types.find(format.type) != std::string_view::npos;
  };
  if (value.is_integral() && format.type == 'c') {
    JINJA_ASSIGN_OR_RETURN(const std::string character, CharacterOf(value.as_int()));
    if (format.align == '\0') format.align = '<';
    return Assemble("", "", character, format);
  }
  if (value.is_integral() && (format.type == '\0' || is_in(kIntTypes))) {
    if (format.precision >= 0) {
      return absl::InvalidArgumentError("Precision not allowed in integer format specifier");
    }
    if (format.type == 'n') format.type = 'd';
    return FormatInt(value.as_int(), format);
  }
  if (format.type == '\0' && format.precision < 0) {
    const double number = value.as_double();
    const bool negative = std::signbit(number) && !std::isnan(number);
    return Assemble(SignOf(negative, format), "", FloatRepr(std::abs(number)), format);
  }
  if (format.type != '\0' && format.type != 'n' && !is_in(kFloatTypes)) {
    return absl::InvalidArgumentError(StrCat("Unknown format code '", std::string(1, format.type),
                                             "' for object of type '", TypeName(value), "'"));
  }
  const bool general = format.type == '\0' || format.type == 'n';
  if (format.precision < 0) format.precision = 6;
  if (!general) return FormatFloat(value.as_double(), format);
  // Like g, but with a digit after the point.
  const bool needs_point = format.type == '\0';
  format.type = 'g';
  NumberFormat bare = format;
  bare.width = 0;
  std::string text = FormatFloat(value.as_double(), bare);
  if (needs_point && text.find_first_of(".en") == std::string::npos) text += ".0";
  const std::string sign = text.find_first_of("+- ") == 0 ? text.substr(0, 1) : "";
  return Assemble(sign, "", text.substr(sign.size()), format);
}

absl::StatusOr<std::string> CharacterOf(Int code) {
  if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    return absl::InvalidArgumentError("%c arg not in range(0x110000)");
  }
  std::string character;
  AppendUtf8(static_cast<char32_t>(code), character);
  return character;
}

}  // namespace fairlead::jinja
