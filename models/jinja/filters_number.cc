// SPDX-License-Identifier: Apache-2.0
// Numeric filters, and those that take any value.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "kernels/strings.h"
#include "models/jinja/filters_internal.h"
#include "models/jinja/operators.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result Absolute(Runtime&, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("abs"));
  if (input.is_integral()) return NewInt(input.as_int() < 0 ? -input.as_int() : input.as_int());
  if (input.is_float()) return Value(std::abs(input.as_double()));
  return TypeError(StrCat("bad operand type for abs(): '", TypeName(input), "'"));
}

// Spaces around, underscores between digits: what int() and float() of a str accept. Nothing if the
// underscores are misplaced.
std::optional<std::string> NumberText(const Text& text) {
  const ByteRange range = StripRange(text.bytes(), std::nullopt, true, true);
  const std::string_view body =
      std::string_view(text.bytes()).substr(range.begin, range.end - range.begin);
  std::string digits;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '_') {
      digits.push_back(body[i]);
      continue;
    }
    const auto alnum_at = [&](size_t at) {
      return at < body.size() && absl::ascii_isalnum(static_cast<unsigned char>(body[at]));
    };
    if (i == 0 || !alnum_at(i - 1) || !alnum_at(i + 1)) return std::nullopt;
  }
  return digits;
}

std::optional<double> ParseFloat(const Text& text) {
  const std::optional<std::string> digits = NumberText(text);
  if (!digits || digits->empty()) return std::nullopt;
  const std::string lower = absl::AsciiStrToLower(*digits);
  // Hexadecimal floats are C's, not Python's.
  if (absl::StrContains(lower, "x") || absl::StrContains(lower, "(")) return std::nullopt;
  double value = 0;
  if (!absl::SimpleAtod(*digits, &value)) return std::nullopt;
  return value;
}

int DigitValue(char c) {
  if (absl::ascii_isdigit(static_cast<unsigned char>(c))) return c - '0';
  if (absl::ascii_isalpha(static_cast<unsigned char>(c))) {
    return absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10;
  }
  return std::numeric_limits<int>::max();
}

// int(text, base); nothing where Python raises ValueError, an error where the number does not fit.
absl::StatusOr<std::optional<Value>> ParseInt(const Text& text, Int base) {
  const std::optional<std::string> body = NumberText(text);
  if (!body) return std::nullopt;
  std::string_view digits = *body;
  bool negative = false;
  if (!digits.empty() && (digits[0] == '+' || digits[0] == '-')) {
    negative = digits[0] == '-';
    digits.remove_prefix(1);
  }
  if (digits.size() > 1 && digits[0] == '0') {
    const char prefix = absl::ascii_tolower(static_cast<unsigned char>(digits[1]));
    const Int prefixed = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (prefixed != 0 && (base == prefixed || base == 0)) {
      base = prefixed;
      digits.remove_prefix(2);
    }
  }
  if (base == 0) {
    base = 10;
    if (digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string_view::npos) {
      return std::nullopt;
    }
  }
  if (base < 2 || base > 36 || digits.empty()) return std::nullopt;
  Int value = 0;
  for (const char c : digits) {
    if (DigitValue(c) >= base) return std::nullopt;
    if (value <= kMaxInt) value = value * base + DigitValue(c);
  }
  JINJA_ASSIGN_OR_RETURN(const Value result, NewInt(negative ? -value : value));
  return result;
}

Result IntFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value otherwise(Int{0});
  Value base(Int{10});
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("int", {Optional("default", otherwise), Optional("base", base)}));
  if (const auto* undefined = input.As<Undefined>()) return undefined->Error();
  if (input.is_integral()) return Value(input.as_int());
  if (input.is_float()) {
    return std::isnan(input.as_double()) ? otherwise : Truncate(input.as_double());
  }
  if (!input.is_string()) return otherwise;
  runtime.budget.Work(input.text().size());
  JINJA_ASSIGN_OR_RETURN(const Int radix, IntArgument("int", base));
  JINJA_ASSIGN_OR_RETURN(const std::optional<Value> value, ParseInt(input.text(), radix));
  if (value) return *value;
  const std::optional<double> real = ParseFloat(input.text());
  if (!real || !std::isfinite(*real)) return otherwise;
  return Truncate(*real);
}

Result FloatFilter(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value otherwise(0.0);
  JINJA_RETURN_IF_ERROR(arguments.Bind("float", {Optional("default", otherwise)}));
  if (const auto* undefined = input.As<Undefined>()) return undefined->Error();
  if (input.is_number()) return Value(input.as_double());
  if (!input.is_string()) return otherwise;
  runtime.budget.Work(input.text().size());
  const std::optional<double> value = ParseFloat(input.text());
  return value ? Value(*value) : otherwise;
}

// round(value, digits): correct decimal rounding, halves of the exact binary value to even.
double RoundFloat(double value, Int digits) {
  if (!std::isfinite(value) || digits > 330) return value;
  if (digits < -330) return std::copysign(0.0, value);
  if (digits >= 0) {
    char buffer[700];
    const int size = std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), value);
    return size < static_cast<int>(sizeof(buffer)) ? std::strtod(buffer, nullptr) : value;
  }
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

Int RoundInt(Int value, Int digits) {
  if (digits >= 0) return value;
  if (digits < -20) return 0;
  Int scale = 1;
  for (Int i = digits; i < 0; ++i) scale *= 10;
  Int quotient = value / scale;
  const Int rest = value - quotient * scale;
  const Int twice = 2 * (rest < 0 ? -rest : rest);
  if (twice > scale || (twice == scale && quotient % 2 != 0)) quotient += value < 0 ? -1 : 1;
  return quotient * scale;
}

Result Round(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value precision(Int{0});
  Value method = NewTrusted("common", runtime.budget);
  JINJA_RETURN_IF_ERROR(
      arguments.Bind("round", {Optional("precision", precision), Optional("method", method)}));
  const std::string how = method.is_string() ? method.text().bytes() : "";
  if (how != "common" && how != "ceil" && how != "floor") {
    return absl::InvalidArgumentError("method must be common, ceil or floor");
  }
  if (!input.is_number()) {
    if (const auto* undefined = input.As<Undefined>(); undefined != nullptr && how != "common") {
      return undefined->Error();
    }
    return TypeError(StrCat("type ", TypeName(input), " doesn't define __round__ method"));
  }
  if (how == "common" && precision.is_none()) {
    return input.is_float() ? Truncate(RoundFloat(input.as_double(), 0)) : Value(input.as_int());
  }
  JINJA_ASSIGN_OR_RETURN(const Int digits, IntArgument("round", precision));
  if (how == "common") {
    if (input.is_integral()) return NewInt(RoundInt(input.as_int(), digits));
    return Value(RoundFloat(input.as_double(), digits));
  }
  JINJA_ASSIGN_OR_RETURN(const Value scale, ApplyBinary(runtime, BinaryOperator::kPower,
                                                        Value(Int{10}), Value(digits)));
  JINJA_ASSIGN_OR_RETURN(const Value scaled,
                         ApplyBinary(runtime, BinaryOperator::kMultiply, input, scale));
  Value whole = scaled;
  if (scaled.is_float()) {
    const double real = scaled.as_double();
    if (!std::isfinite(real)) return Truncate(real);
    whole = Value((how == "ceil" ? std::ceil(real) : std::floor(real)) + 0.0);  // never -0.0
  }
  return ApplyBinary(runtime, BinaryOperator::kDivide, whole, scale);
}

Result Default(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value otherwise = NewTrusted("", runtime.budget);
  Value boolean(false);
  JINJA_RETURN_IF_ERROR(arguments.Bind(
      "default", {Optional("default_value", otherwise), Optional("boolean", boolean)}));
  return input.is_undefined() || (IsTrue(boolean) && !IsTrue(input)) ? otherwise : input;
}

Result Attr(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value name;
  JINJA_RETURN_IF_ERROR(arguments.Bind("attr", {Required("name", name)}));
  JINJA_ASSIGN_OR_RETURN(const Text* text, TextArgument("attr", name));
  JINJA_ASSIGN_OR_RETURN(const Value found, GetAttribute(runtime, input, text->bytes(), name));
  // Unlike the dot, `attr` does not fall back to the key of a dict.
  if (input.is_dict() && found.As<Callable>() == nullptr && !found.is_undefined()) {
    return Undefined::Of(input, name, runtime.budget);
  }
  return found;
}

constexpr FilterEntry kFilters[] = {
    {"abs", Absolute},      {"attr", Attr},     {"d", Default},   {"default", Default},
    {"float", FloatFilter}, {"int", IntFilter}, {"round", Round},
};

}  // namespace

absl::Span<const FilterEntry> NumberFilters() { return kFilters; }

}  // namespace fairlead::jinja
