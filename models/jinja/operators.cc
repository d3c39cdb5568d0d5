// SPDX-License-Identifier: Apache-2.0
// Arithmetic and comparison.
#include "models/jinja/operators.h"

#include <cmath>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/format.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_ops.h"

namespace fairlead::jinja {

absl::StatusOr<Value> NewInt(Int value) {
  if (value < kMinInt || value > kMaxInt) {
    return absl::InvalidArgumentError("integer overflow: integers are from -2^63 to 2^64 - 1");
  }
  return Value(value);
}

absl::StatusOr<Value> Truncate(double value) {
  if (std::isnan(value)) return TypeError("cannot convert float NaN to integer");
  if (std::isinf(value)) return TypeError("cannot convert float infinity to integer");
  if (std::abs(value) > 0x1p64) return NewInt(kMaxInt + 1);
  return NewInt(static_cast<Int>(value));
}

namespace {

std::string_view SymbolOf(BinaryOperator op) {
  switch (op) {
    case BinaryOperator::kAdd:
      return "+";
    case BinaryOperator::kSubtract:
      return "-";
    case BinaryOperator::kMultiply:
      return "*";
    case BinaryOperator::kDivide:
      return "/";
    case BinaryOperator::kFloorDivide:
      return "//";
    case BinaryOperator::kModulo:
      return "%";
    case BinaryOperator::kPower:
      return "**";
  }
  return "";
}

absl::Status Unsupported(BinaryOperator op, const Value& left, const Value& right) {
  if (const auto* undefined = left.As<Undefined>()) return undefined->Error();
  if (const auto* undefined = right.As<Undefined>()) return undefined->Error();
  return TypeError(StrCat("unsupported operand type(s) for ", SymbolOf(op), ": '", TypeName(left),
                          "' and '", TypeName(right), "'"));
}

absl::StatusOr<Value> IntPower(Int base, Int exponent) {
  if (exponent < 0) {
    if (base == 0) return absl::InvalidArgumentError("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value(exponent == 0 ? Int{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? Int{1} : Int{-1});
  Int result = 1;
  for (; exponent > 0; --exponent) {
    result *= base;
    if (result > kMaxInt || result < kMinInt) return NewInt(kMaxInt + 1);
  }
  return NewInt(result);
}

Int FloorDivide(Int left, Int right) {
  const Int quotient = left / right;
  return quotient * right != left && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

absl::StatusOr<Value> IntArithmetic(BinaryOperator op, Int left, Int right) {
  switch (op) {
    case BinaryOperator::kAdd:
      return NewInt(left + right);
    case BinaryOperator::kSubtract:
      return NewInt(left - right);
    case BinaryOperator::kMultiply: {
      // Both factors are below 2^64: only the product's sign bit could be lost.
      const long double estimate = static_cast<long double>(left) * static_cast<long double>(right);
      if (std::abs(estimate) > 0x1p65L) return NewInt(kMaxInt + 1);
      return NewInt(left * right);
    }
    case BinaryOperator::kPower:
      return IntPower(left, right);
    default:
      break;
  }
  if (right == 0) {
    return absl::InvalidArgumentError(
        op == BinaryOperator::kDivide ? "division by zero" : "integer division or modulo by zero");
  }
  if (op == BinaryOperator::kDivide) {
    constexpr Int kExact = Int{1} << 53;
    const auto exact = [](Int value) { return -kExact <= value && value <= kExact; };
    if (exact(left) && exact(right)) {
      return Value(static_cast<double>(left) / static_cast<double>(right));
    }
    return Value(
        static_cast<double>(static_cast<long double>(left) / static_cast<long double>(right)));
  }
  const Int quotient = FloorDivide(left, right);
  return NewInt(op == BinaryOperator::kFloorDivide ? quotient : left - quotient * right);
}

// Python's float modulo has the sign of the divisor.
double FloatModulo(double left, double right) {
  double result = std::fmod(left, right);
  if (result != 0) {
    if ((right < 0) != (result < 0)) result += right;
  } else {
    result = std::copysign(0.0, right);
  }
  return result;
}

double FloatFloorDivide(double left, double right) {
  const double quotient = (left - FloatModulo(left, right)) / right;
  if (quotient == 0) return std::copysign(0.0, left / right);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

absl::StatusOr<Value> FloatPower(double left, double right) {
  if (left == 0 && right < 0) {
    return absl::InvalidArgumentError("0.0 cannot be raised to a negative power");
  }
  if (left < 0 && std::isfinite(left) && std::isfinite(right) && std::floor(right) != right) {
    return absl::InvalidArgumentError("complex numbers are not supported");
  }
  const double result = std::pow(left, right);
  if (std::isinf(result) && std::isfinite(left) && std::isfinite(right)) {
    return absl::InvalidArgumentError("Numerical result out of range");
  }
  return Value(result);
}

absl::StatusOr<Value> FloatArithmetic(BinaryOperator op, double left, double right) {
  switch (op) {
    case BinaryOperator::kAdd:
      return Value(left + right);
    case BinaryOperator::kSubtract:
      return Value(left - right);
    case BinaryOperator::kMultiply:
      return Value(left * right);
    case BinaryOperator::kPower:
      return FloatPower(left, right);
    default:
      break;
  }
  if (right == 0) return absl::InvalidArgumentError("float division by zero");
  if (op == BinaryOperator::kDivide) return Value(left / right);
  if (op == BinaryOperator::kModulo) return Value(FloatModulo(left, right));
  return Value(FloatFloorDivide(left, right));
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& sequence, Int count) {
  if (sequence.is_string()) {
    TextBuilder builder(runtime.budget);
    AppendRepeated(sequence.text(), count, builder);
    return NewString(std::move(builder), sequence.string().markup);
  }
  ListBuilder builder(runtime.budget);
  const Int rounds = sequence.items().empty() ? 0 : count;
  for (Int i = 0; i < rounds && runtime.budget.ok(); ++i) {
    for (const Value& item : sequence.items()) builder.Push(item);
  }
  return sequence.is_tuple() ? builder.FinishTuple() : builder.FinishList();
}

// Markup escapes what is added to it.
Value AddStrings(Budget& budget, const Value& left, const Value& right) {
  const bool markup = left.string().markup || right.string().markup;
  TextBuilder builder(budget);
  for (const Value* part : {&left, &right}) {
    if (markup && !part->string().markup) {
      AppendEscaped(part->text(), builder);
    } else {
      builder.Append(part->text());
    }
  }
  return NewString(std::move(builder), markup);
}

}  // namespace

absl::StatusOr<Value> Add(Runtime& runtime, const Value& left, const Value& right) {
  return ApplyBinary(runtime, BinaryOperator::kAdd, left, right);
}

absl::StatusOr<Value> ApplyBinary(Runtime& runtime, BinaryOperator op, const Value& left,
                                  const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return IntArithmetic(op, left.as_int(), right.as_int());
  }
  if (left.is_number() && right.is_number()) {
    return FloatArithmetic(op, left.as_double(), right.as_double());
  }
  if (op == BinaryOperator::kAdd) {
    if (left.is_string() && right.is_string()) return AddStrings(runtime.budget, left, right);
    if (left.is_sequence() && left.kind() == right.kind()) {
      ListBuilder builder(runtime.budget);
      for (const Value& item : left.items()) builder.Push(item);
      for (const Value& item : right.items()) builder.Push(item);
      return left.is_tuple() ? builder.FinishTuple() : builder.FinishList();
    }
  }
  if (op == BinaryOperator::kMultiply) {
    const auto repeatable = [](const Value& v) { return v.is_string() || v.is_sequence(); };
    if (repeatable(left) && right.is_integral()) return Repeat(runtime, left, right.as_int());
    if (repeatable(right) && left.is_integral()) return Repeat(runtime, right, left.as_int());
  }
  if (op == BinaryOperator::kModulo && left.is_string()) {
    return FormatPercent(runtime, left, right);
  }
  return Unsupported(op, left, right);
}

absl::StatusOr<Value> Negate(const Value& operand) {
  if (operand.is_integral()) return NewInt(-operand.as_int());
  if (operand.is_float()) return Value(-operand.as_double());
  if (const auto* undefined = operand.As<Undefined>()) return undefined->Error();
  return TypeError(StrCat("bad operand type for unary -: '", TypeName(operand), "'"));
}

absl::StatusOr<Value> Positive(const Value& operand) {
  if (operand.is_integral()) return Value(operand.as_int());
  if (operand.is_float()) return operand;
  if (const auto* undefined = operand.As<Undefined>()) return undefined->Error();
  return TypeError(StrCat("bad operand type for unary +: '", TypeName(operand), "'"));
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& item, const Value& container) {
  Budget& budget = runtime.budget;
  if (container.is_string()) {
    if (const auto* undefined = item.As<Undefined>()) return undefined->Error();
    if (!item.is_string()) {
      return TypeError(
          StrCat("'in <string>' requires string as left operand, not ", TypeName(item)));
    }
    budget.Work(container.text().size());
    return FindFirst(container.text().bytes(), item.text().bytes()) != std::string_view::npos;
  }
  const auto* view = container.As<DictView>();
  if (container.is_dict() || (view != nullptr && view->kind() == ViewKind::kKeys)) {
    JINJA_RETURN_IF_ERROR(CheckHashable(item));
    const Dict& dict = view != nullptr ? view->dict() : container.dict();
    return dict.Find(item, budget) != nullptr;
  }
  if (const auto* range = container.As<Range>(); range != nullptr && item.is_integral()) {
    return range->Contains(item.as_int());
  }
  if (!IsIterable(container)) {
    return TypeError(StrCat("argument of type '", TypeName(container), "' is not iterable"));
  }
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(container, runtime));
  Value element;
  while (true) {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(element));
    if (!more) return false;
    if (!budget.Step()) return budget.status();
    if (Equals(element, item, budget)) return true;
  }
}

absl::StatusOr<bool> ApplyCompare(Runtime& runtime, CompareOperator op, const Value& left,
                                  const Value& right) {
  Budget& budget = runtime.budget;
  switch (op) {
    case CompareOperator::kEq:
      return Equals(left, right, budget);
    case CompareOperator::kNe:
      return !Equals(left, right, budget);
    case CompareOperator::kIn:
      return Contains(runtime, left, right);
    case CompareOperator::kNotIn: {
      JINJA_ASSIGN_OR_RETURN(const bool found, Contains(runtime, left, right));
      return !found;
    }
    case CompareOperator::kLt: {
      JINJA_ASSIGN_OR_RETURN(const auto ordering, Order(left, right, "<", budget));
      return ordering < 0;
    }
    case CompareOperator::kLe: {
      JINJA_ASSIGN_OR_RETURN(const auto ordering, Order(left, right, "<=", budget));
      return ordering <= 0;
    }
    case CompareOperator::kGt: {
      JINJA_ASSIGN_OR_RETURN(const auto ordering, Order(left, right, ">", budget));
      return ordering > 0;
    }
    case CompareOperator::kGe: {
      JINJA_ASSIGN_OR_RETURN(const auto ordering, Order(left, right, ">=", budget));
      return ordering >= 0;
    }
  }
  return false;
}

}  // namespace fairlead::jinja
