// SPDX-License-Identifier: Apache-2.0
// The tests of `is`.
#include <algorithm>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/builtins.h"
#include "models/jinja/methods.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

using Result = absl::StatusOr<bool>;

template <bool (*kHolds)(const Value&)>
Result Plain(Runtime&, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("test"));
  return kHolds(input);
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsFalse(const Value& value) { return value.is_bool() && !value.as_bool(); }
bool IsTrueConstant(const Value& value) { return value.is_bool() && value.as_bool(); }
bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
bool IsCallable(const Value& value) {
  // Undefined has a __call__ that raises.
  return value.is_undefined() || (value.is_object() && value.object().callable());
}
bool IsEscaped(const Value& value) { return value.is_string() && value.string().markup; }
bool IsIterableValue(const Value& value) { return IsIterable(value); }
bool IsSequence(const Value& value) {
  return Length(value).has_value() && value.As<DictView>() == nullptr;
}

absl::StatusOr<Value> ModuloOf(Runtime& runtime, const Value& input, const Value& divisor) {
  return ApplyBinary(runtime, BinaryOperator::kModulo, input, divisor);
}

template <int kRest>
Result Parity(Runtime& runtime, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("parity"));
  JINJA_ASSIGN_OR_RETURN(const Value rest, ModuloOf(runtime, input, Value(Int{2})));
  return Equals(rest, Value(Int{kRest}), runtime.budget);
}

Result DivisibleBy(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value divisor;
  JINJA_RETURN_IF_ERROR(arguments.Bind("divisibleby", {Required("num", divisor)}));
  JINJA_ASSIGN_OR_RETURN(const Value rest, ModuloOf(runtime, input, divisor));
  return Equals(rest, Value(Int{0}), runtime.budget);
}

template <CompareOperator kOperator>
Result Compared(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value other;
  JINJA_RETURN_IF_ERROR(arguments.Bind("comparison", {RequiredPositional(other)}));
  return ApplyCompare(runtime, kOperator, input, other);
}

Result In(Runtime& runtime, const Value& input, Arguments& arguments) {
  Value container;
  JINJA_RETURN_IF_ERROR(arguments.Bind("in", {Required("seq", container)}));
  return Contains(runtime, input, container);
}

Result SameAs(Runtime&, const Value& input, Arguments& arguments) {
  Value other;
  JINJA_RETURN_IF_ERROR(arguments.Bind("sameas", {Required("other", other)}));
  return input.SameAs(other);
}

template <bool kUpper>
Result HasCase(Runtime& runtime, const Value& input, Arguments& arguments) {
  const Value text = ToString(input, runtime.budget);
  const Method* method = FindStringMethod(kUpper ? "isupper" : "islower");
  JINJA_ASSIGN_OR_RETURN(const Value holds, method->function(runtime, text, arguments));
  return IsTrue(holds);
}

template <typename Function, Function (*kFind)(std::string_view)>
Result Exists(Runtime&, const Value& input, Arguments& arguments) {
  JINJA_RETURN_IF_ERROR(arguments.BindNone("test"));
  JINJA_RETURN_IF_ERROR(CheckHashable(input));
  return input.is_string() && kFind(input.text().bytes()) != nullptr;
}

constexpr struct {
  std::string_view name;
  TestFunction function;
} kTests[] = {
    {"!=", Compared<CompareOperator::kNe>},
    {"<", Compared<CompareOperator::kLt>},
    {"<=", Compared<CompareOperator::kLe>},
    {"==", Compared<CompareOperator::kEq>},
    {">", Compared<CompareOperator::kGt>},
    {">=", Compared<CompareOperator::kGe>},
    {"boolean", Plain<IsBoolean>},
    {"callable", Plain<IsCallable>},
    {"defined", Plain<IsDefined>},
    {"divisibleby", DivisibleBy},
    {"eq", Compared<CompareOperator::kEq>},
    {"equalto", Compared<CompareOperator::kEq>},
    {"escaped", Plain<IsEscaped>},
    {"even", Parity<0>},
    {"false", Plain<IsFalse>},
    {"filter", Exists<FilterFunction, FindFilter>},
    {"float", Plain<IsFloat>},
    {"ge", Compared<CompareOperator::kGe>},
    {"greaterthan", Compared<CompareOperator::kGt>},
    {"gt", Compared<CompareOperator::kGt>},
    {"in", In},
    {"integer", Plain<IsInteger>},
    {"iterable", Plain<IsIterableValue>},
    {"le", Compared<CompareOperator::kLe>},
    {"lessthan", Compared<CompareOperator::kLt>},
    {"lower", HasCase<false>},
    {"lt", Compared<CompareOperator::kLt>},
    {"mapping", Plain<IsMapping>},
    {"ne", Compared<CompareOperator::kNe>},
    {"none", Plain<IsNone>},
    {"number", Plain<IsNumber>},
    {"odd", Parity<1>},
    {"sameas", SameAs},
    {"sequence", Plain<IsSequence>},
    {"string", Plain<IsString>},
    {"test", Exists<TestFunction, FindTest>},
    {"true", Plain<IsTrueConstant>},
    {"undefined", Plain<IsUndefined>},
    {"upper", HasCase<true>},
};

}  // namespace

TestFunction FindTest(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [name](const auto& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found->function;
}

}  // namespace fairlead::jinja
