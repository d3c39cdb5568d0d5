// SPDX-License-Identifier: Apache-2.0
// Expressions.
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/arguments.h"
#include "models/jinja/interpreter.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expression) {
  if (!runtime_.budget.Step()) return runtime_.budget.status();
  line_ = expression.line;
  if (expression.kind == ExprKind::kConst) return static_cast<const ConstExpr&>(expression).value;
  if (expression.kind == ExprKind::kName) {
    return EvaluateName(static_cast<const NameExpr&>(expression));
  }
  const DepthScope scope(runtime_.budget);
  if (!scope.ok()) return runtime_.budget.status();
  return EvaluateCompound(expression);
}

absl::StatusOr<Value> Interpreter::EvaluateCompound(const Expr& expression) {
  switch (expression.kind) {
    case ExprKind::kTuple:
    case ExprKind::kList:
      return EvaluateSequence(static_cast<const SequenceExpr&>(expression));
    case ExprKind::kDict:
      return EvaluateDict(static_cast<const DictExpr&>(expression));
    case ExprKind::kNot:
    case ExprKind::kNegative:
    case ExprKind::kPositive:
      return EvaluateUnary(static_cast<const UnaryExpr&>(expression));
    case ExprKind::kBinary:
      return EvaluateBinary(static_cast<const BinaryExpr&>(expression));
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvaluateLogic(static_cast<const SequenceExpr&>(expression));
    case ExprKind::kConcat:
      return EvaluateConcat(static_cast<const SequenceExpr&>(expression));
    case ExprKind::kCompare:
      return EvaluateCompare(static_cast<const CompareExpr&>(expression));
    case ExprKind::kConditional:
      return EvaluateConditional(static_cast<const ConditionalExpr&>(expression));
    case ExprKind::kAttribute:
      return EvaluateAttribute(static_cast<const AttributeExpr&>(expression));
    case ExprKind::kSubscript:
      return EvaluateSubscript(static_cast<const SubscriptExpr&>(expression));
    case ExprKind::kCall:
      return EvaluateCall(static_cast<const CallExpr&>(expression), nullptr);
    case ExprKind::kFilter:
      return EvaluateFilter(static_cast<const FilterExpr&>(expression), nullptr);
    case ExprKind::kTest:
      return EvaluateTest(static_cast<const TestExpr&>(expression));
    case ExprKind::kSlice:
    case ExprKind::kConst:
    case ExprKind::kName:
    case ExprKind::kNamespaceRef:
      break;
  }
  return TypeError("a slice may only stand alone between brackets");
}

absl::StatusOr<Value> Interpreter::EvaluateName(const NameExpr& name) {
  const Value& value = frame_->At(name.ref);
  return value.is_missing() ? Undefined::Named(name.name) : value;
}

absl::StatusOr<Value> Interpreter::EvaluateSequence(const SequenceExpr& sequence) {
  ListBuilder builder(runtime_.budget);
  for (const ExprPtr& item : sequence.items) {
    JINJA_ASSIGN_OR_RETURN(Value value, Evaluate(*item));
    builder.Push(std::move(value));
  }
  return sequence.kind == ExprKind::kTuple ? builder.FinishTuple() : builder.FinishList();
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const DictExpr& dict) {
  DictBuilder builder(runtime_.budget);
  for (const auto& [key_expression, value_expression] : dict.items) {
    JINJA_ASSIGN_OR_RETURN(Value key, Evaluate(*key_expression));
    JINJA_ASSIGN_OR_RETURN(Value value, Evaluate(*value_expression));
    JINJA_RETURN_IF_ERROR(CheckHashable(key));
    builder.Set(std::move(key), std::move(value));
  }
  return builder.Finish();
}

absl::StatusOr<Value> Interpreter::EvaluateUnary(const UnaryExpr& unary) {
  JINJA_ASSIGN_OR_RETURN(const Value operand, Evaluate(*unary.operand));
  if (unary.kind == ExprKind::kNot) return Value(!IsTrue(operand));
  return unary.kind == ExprKind::kNegative ? Negate(operand) : Positive(operand);
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const BinaryExpr& binary) {
  JINJA_ASSIGN_OR_RETURN(const Value left, Evaluate(*binary.left));
  JINJA_ASSIGN_OR_RETURN(const Value right, Evaluate(*binary.right));
  return ApplyBinary(runtime_, binary.op, left, right);
}

// The operand that decides, as in Python.
absl::StatusOr<Value> Interpreter::EvaluateLogic(const SequenceExpr& logic) {
  const bool decides = logic.kind == ExprKind::kOr;
  Value value;
  for (const ExprPtr& item : logic.items) {
    JINJA_ASSIGN_OR_RETURN(value, Evaluate(*item));
    if (IsTrue(value) == decides) break;
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const SequenceExpr& concat) {
  TextBuilder builder(runtime_.budget);
  for (const ExprPtr& item : concat.items) {
    JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*item));
    AppendStr(value, builder);
  }
  return NewString(std::move(builder));
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const CompareExpr& compare) {
  JINJA_ASSIGN_OR_RETURN(Value left, Evaluate(*compare.first));
  for (const auto& [op, expression] : compare.rest) {
    JINJA_ASSIGN_OR_RETURN(Value right, Evaluate(*expression));
    JINJA_ASSIGN_OR_RETURN(const bool holds, ApplyCompare(runtime_, op, left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const ConditionalExpr& conditional) {
  JINJA_ASSIGN_OR_RETURN(const Value condition, Evaluate(*conditional.condition));
  if (IsTrue(condition)) return Evaluate(*conditional.then);
  if (conditional.otherwise != nullptr) return Evaluate(*conditional.otherwise);
  return Undefined::WithHint(StrCat("the inline if-expression on line ", conditional.line,
                                    " evaluated to false and no else section was defined."));
}

absl::StatusOr<Value> Interpreter::EvaluateAttribute(const AttributeExpr& access) {
  JINJA_ASSIGN_OR_RETURN(const Value object, Evaluate(*access.object));
  return GetAttribute(runtime_, object, access.name, access.name_value);
}

absl::StatusOr<Value> Interpreter::EvaluateSubscript(const SubscriptExpr& subscript) {
  JINJA_ASSIGN_OR_RETURN(const Value object, Evaluate(*subscript.object));
  if (subscript.index->kind == ExprKind::kSlice) {
    return EvaluateSlice(object, static_cast<const SliceExpr&>(*subscript.index));
  }
  JINJA_ASSIGN_OR_RETURN(const Value index, Evaluate(*subscript.index));
  return GetItem(runtime_, object, index);
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Value& object, const SliceExpr& slice) {
  Value bounds[3];
  const Expr* const parts[3] = {slice.start.get(), slice.stop.get(), slice.step.get()};
  for (int i = 0; i < 3; ++i) {
    if (parts[i] == nullptr) continue;
    JINJA_ASSIGN_OR_RETURN(bounds[i], Evaluate(*parts[i]));
  }
  return GetSlice(runtime_, object, bounds[0], bounds[1], bounds[2]);
}

absl::Status Interpreter::AddNamed(std::string name, Value value, Arguments& arguments) {
  for (const auto& [other, unused] : arguments.named) {
    if (other == name) {
      return TypeError(StrCat("got multiple values for keyword argument '", name, "'"));
    }
  }
  arguments.named.emplace_back(std::move(name), std::move(value));
  return absl::OkStatus();
}

absl::Status Interpreter::EvaluateArguments(const CallArguments& given, Arguments& arguments) {
  for (const ExprPtr& expression : given.positional) {
    JINJA_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, expression] : given.named) {
    JINJA_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    arguments.named.emplace_back(name, std::move(value));
  }
  if (given.star != nullptr) {
    JINJA_ASSIGN_OR_RETURN(const Value star, Evaluate(*given.star));
    JINJA_ASSIGN_OR_RETURN(std::vector<Value> values, Collect(star, runtime_));
    for (Value& value : values) arguments.positional.push_back(std::move(value));
  }
  if (given.double_star == nullptr) return absl::OkStatus();
  JINJA_ASSIGN_OR_RETURN(const Value mapping, Evaluate(*given.double_star));
  if (!mapping.is_dict()) {
    return TypeError(StrCat("argument after ** must be a mapping, not ", TypeName(mapping)));
  }
  for (const auto& [key, value] : mapping.dict().entries()) {
    if (!key.is_string()) return TypeError("keywords must be strings");
    // Each name is looked for among the others.
    runtime_.budget.Step(static_cast<int64_t>(arguments.named.size()));
    if (!runtime_.budget.ok()) return runtime_.budget.status();
    JINJA_RETURN_IF_ERROR(AddNamed(key.text().bytes(), value, arguments));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const CallExpr& call, const Value* caller) {
  JINJA_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.callee));
  Arguments arguments;
  JINJA_RETURN_IF_ERROR(EvaluateArguments(call.arguments, arguments));
  if (caller != nullptr) JINJA_RETURN_IF_ERROR(AddNamed("caller", *caller, arguments));
  line_ = call.line;
  if (auto* callable = callee.As<Callable>()) return callable->Call(runtime_, arguments);
  if (const auto* undefined = callee.As<Undefined>()) return undefined->Error();
  return TypeError(StrCat("'", TypeName(callee), "' object is not callable"));
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const FilterExpr& filter,
                                                  const Value* block_text) {
  Value input;
  if (filter.input == nullptr) {
    input = *block_text;
  } else if (block_text != nullptr && filter.input->kind == ExprKind::kFilter) {
    // The innermost filter of a block reads its text.
    JINJA_ASSIGN_OR_RETURN(
        input, EvaluateFilter(static_cast<const FilterExpr&>(*filter.input), block_text));
  } else {
    JINJA_ASSIGN_OR_RETURN(input, Evaluate(*filter.input));
  }
  if (filter.function == nullptr) {
    return TypeError(StrCat("No filter named '", filter.name, "' found."));
  }
  Arguments arguments;
  JINJA_RETURN_IF_ERROR(EvaluateArguments(filter.arguments, arguments));
  line_ = filter.line;
  return filter.function(runtime_, input, arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const TestExpr& test) {
  JINJA_ASSIGN_OR_RETURN(const Value input, Evaluate(*test.input));
  if (test.function == nullptr) {
    return TypeError(StrCat("No test named '", test.name, "' found."));
  }
  Arguments arguments;
  JINJA_RETURN_IF_ERROR(EvaluateArguments(test.arguments, arguments));
  line_ = test.line;
  JINJA_ASSIGN_OR_RETURN(const bool holds, test.function(runtime_, input, arguments));
  return Value(holds);
}

}  // namespace fairlead::jinja
