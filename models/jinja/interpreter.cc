// SPDX-License-Identifier: Apache-2.0
// Statements, scopes and macros.
#include "models/jinja/interpreter.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "kernels/strings.h"
#include "models/jinja/arguments.h"
#include "models/jinja/ast_walk.h"
#include "models/jinja/builtins.h"
#include "models/jinja/operators.h"
#include "models/jinja/printer.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

// A macro, or the `caller` of a call block.
class Macro final : public Callable {
 public:
  Macro(Interpreter& interpreter, const FunctionBody& function, std::string name,
        std::shared_ptr<Frame> closure)
      : interpreter_(interpreter),
        function_(function),
        name_(std::move(name)),
        closure_(std::move(closure)) {}
  std::string_view type_name() const override { return "jinja2.runtime.Macro"; }
  std::string Describe() const override {
    return name_.empty() ? "<Macro anonymous>" : StrCat("<Macro '", name_, "'>");
  }
  absl::StatusOr<Value> Call(Runtime& runtime, Arguments& arguments) override {
    return interpreter_.CallFunction(function_, closure_, name_, arguments);
  }

 private:
  Interpreter& interpreter_;
  const FunctionBody& function_;
  std::string name_;
  std::shared_ptr<Frame> closure_;
};

// The elements of a loop that its `if` lets pass; asked one by one, as Python's generators are.
class LoopFilter final : public Iterator {
 public:
  LoopFilter(std::shared_ptr<Iterator> source, const ForStatement& node, Interpreter& interpreter,
             std::shared_ptr<Frame> frame)
      : source_(std::move(source)),
        node_(node),
        interpreter_(interpreter),
        frame_(std::move(frame)) {}
  std::string_view type_name() const override { return "generator"; }

  absl::StatusOr<bool> Next(Value& out) override {
    while (true) {
      JINJA_ASSIGN_OR_RETURN(const bool more, source_->Next(out));
      if (!more) return false;
      JINJA_ASSIGN_OR_RETURN(const bool passes,
                             interpreter_.PassesFilter(node_, *frame_, out, first_));
      first_ = false;
      if (passes) return true;
    }
  }

 private:
  std::shared_ptr<Iterator> source_;
  const ForStatement& node_;
  Interpreter& interpreter_;
  std::shared_ptr<Frame> frame_;
  bool first_ = true;
};

// Keeps `object` until the rendering ends if anything else still refers to it.
template <typename T>
void ReleaseOrRetain(std::shared_ptr<T> object, Runtime& runtime) {
  if (object.use_count() > 1) runtime.Retain(std::move(object));
}

}  // namespace

Frame::Frame(int slot_count, std::shared_ptr<Frame> outer, Budget* budget)
    : outer_(std::move(outer)), charge_(budget) {
  charge_.Grow(sizeof(Frame) + static_cast<size_t>(slot_count) * sizeof(Value));
  slots_.assign(static_cast<size_t>(slot_count), Value(Value::Missing{}));
}

void Frame::Clear() {
  // The frame itself stays usable: other objects that are being cleared may still refer to it.
  for (Value& slot : slots_) slot = Value(Value::Missing{});
}

Value& Frame::At(SlotRef ref) {
  Frame* frame = this;
  for (int i = 0; i < ref.hops; ++i) frame = frame->outer_.get();
  return frame->Own(ref.slot);
}

absl::Status Interpreter::Located(const absl::Status& status) const {
  if (status.code() == kRaisedByTemplate) return absl::InvalidArgumentError(status.message());
  return absl::InvalidArgumentError(StrCat("chat template line ", line_, ": ", status.message()));
}

absl::StatusOr<Text> Interpreter::Run(const TemplateAst& ast) {
  auto frame = std::make_shared<Frame>(ast.root.slot_count, nullptr, &runtime_.budget);
  TextBuilder out(runtime_.budget);
  frame_ = frame.get();
  out_ = &out;
  EnterScope(ast.root.scope);
  absl::Status status = Execute(ast.root.body).status();
  if (status.ok()) status = runtime_.budget.status();
  runtime_.Retain(std::move(frame));
  if (!status.ok()) return Located(status);
  return out.TakeText();
}

Value Interpreter::Resolve(const std::string& name) const {
  const auto variable = variables_.find(name);
  return variable != variables_.end() ? variable->second : FindGlobal(name);
}

void Interpreter::EnterScope(const Scope& scope) {
  // Names cost a little even where the body does not come to them.
  constexpr size_t kWorkPerName = 32;
  runtime_.budget.Work(kWorkPerName * scope.size());
  for (const ScopeLoad& load : scope) {
    switch (load.action) {
      case ScopeLoad::Action::kUnset:
        frame_->Own(load.slot) = Value(Value::Missing{});
        break;
      case ScopeLoad::Action::kAlias:
        frame_->Own(load.slot) = frame_->At(load.from);
        break;
      case ScopeLoad::Action::kResolve:
        frame_->Own(load.slot) = Resolve(load.name);
        break;
      case ScopeLoad::Action::kNone:
        break;
    }
  }
}

void Interpreter::LeaveScope(const Scope& scope) {
  for (const ScopeLoad& load : scope) frame_->Own(load.slot) = Value(Value::Missing{});
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Block& block) {
  for (const auto& statement : block) {
    JINJA_ASSIGN_OR_RETURN(const Flow flow, ExecuteOne(*statement));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement) {
  const DepthScope scope(runtime_.budget);
  if (!scope.ok() || !runtime_.budget.Step()) return runtime_.budget.status();
  line_ = statement.line;
  absl::Status status;
  switch (statement.kind) {
    case StatementKind::kOutput:
      status = ExecuteOutput(As<OutputStatement>(statement));
      break;
    case StatementKind::kSet:
      status = ExecuteSet(As<SetStatement>(statement));
      break;
    case StatementKind::kSetBlock:
      return ExecuteSetBlock(As<SetBlockStatement>(statement));
    case StatementKind::kIf:
      return ExecuteIf(As<IfStatement>(statement));
    case StatementKind::kFor:
      return ExecuteFor(As<ForStatement>(statement));
    case StatementKind::kMacro:
      status = ExecuteMacro(As<MacroStatement>(statement));
      break;
    case StatementKind::kCallBlock:
      status = ExecuteCallBlock(As<CallBlockStatement>(statement));
      break;
    case StatementKind::kGeneration:
      status = ExecuteGeneration(As<GenerationStatement>(statement));
      break;
    case StatementKind::kFilterBlock:
      return ExecuteFilterBlock(As<FilterBlockStatement>(statement));
    case StatementKind::kWith:
      return ExecuteWith(As<WithStatement>(statement));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  if (!status.ok()) return status;
  return Flow::kNormal;
}

absl::Status Interpreter::ExecuteOutput(const OutputStatement& statement) {
  for (const ExprPtr& item : statement.items) {
    JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*item));
    AppendStr(value, *out_);
    if (!runtime_.budget.ok()) return runtime_.budget.status();
  }
  return absl::OkStatus();
}

absl::Status Interpreter::Assign(const Expr& target, const Value& value) {
  if (target.kind == ExprKind::kName) {
    frame_->At(static_cast<const NameExpr&>(target).ref) = value;
    return absl::OkStatus();
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    const auto& reference = static_cast<const NamespaceRefExpr&>(target);
    auto* space = frame_->At(reference.ref).As<Namespace>();
    if (space == nullptr) return TypeError("cannot assign attribute on non-namespace object");
    if (reference.attribute.front() == '_') {
      return TypeError(StrCat("a namespace cannot store the attribute '", reference.attribute,
                              "': it begins with an underscore"));
    }
    constexpr size_t kWorkPerAttribute = 16;
    runtime_.budget.Work(kWorkPerAttribute * space->attributes().size());
    space->Set(reference.attribute, value, runtime_.budget);
    return absl::OkStatus();
  }
  const auto& targets = static_cast<const SequenceExpr&>(target).items;
  JINJA_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(value, runtime_));
  std::vector<Value> values;
  Value item;
  while (values.size() <= targets.size()) {
    JINJA_ASSIGN_OR_RETURN(const bool more, iterator->Next(item));
    if (!more) break;
    values.push_back(std::move(item));
  }
  if (values.size() != targets.size()) {
    return absl::InvalidArgumentError(
        StrCat(values.size() > targets.size() ? "too many" : "not enough",
               " values to unpack (expected ", targets.size(), ")"));
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    JINJA_RETURN_IF_ERROR(Assign(*targets[i], values[i]));
  }
  return absl::OkStatus();
}

Value Interpreter::ReadBack(const Expr& target) {
  if (target.kind == ExprKind::kName) return frame_->At(static_cast<const NameExpr&>(target).ref);
  ListBuilder tuple(runtime_.budget);
  for (const ExprPtr& item : static_cast<const SequenceExpr&>(target).items) {
    tuple.Push(ReadBack(*item));
  }
  return tuple.FinishTuple();
}

absl::Status Interpreter::ExecuteSet(const SetStatement& statement) {
  JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value));
  return Assign(*statement.target, value);
}

absl::StatusOr<Interpreter::Flow> Interpreter::Capture(const Block& body, const Scope& scope,
                                                       Value& text) {
  TextBuilder builder(runtime_.budget);
  TextBuilder* const outer = std::exchange(out_, &builder);
  const absl::Cleanup restore = [this, outer] { out_ = outer; };
  EnterScope(scope);
  JINJA_ASSIGN_OR_RETURN(const Flow flow, Execute(body));
  text = NewString(std::move(builder));
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteSetBlock(const SetBlockStatement& statement) {
  Value text;
  JINJA_ASSIGN_OR_RETURN(const Flow flow, Capture(statement.body, statement.scope, text));
  if (flow != Flow::kNormal) return flow;
  if (statement.filter != nullptr) {
    JINJA_ASSIGN_OR_RETURN(
        text, EvaluateFilter(static_cast<const FilterExpr&>(*statement.filter), &text));
  }
  JINJA_RETURN_IF_ERROR(Assign(*statement.target, text));
  LeaveScope(statement.scope);
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFilterBlock(
    const FilterBlockStatement& statement) {
  Value text;
  JINJA_ASSIGN_OR_RETURN(const Flow flow, Capture(statement.body, statement.scope, text));
  if (flow != Flow::kNormal) return flow;
  JINJA_ASSIGN_OR_RETURN(text,
                         EvaluateFilter(static_cast<const FilterExpr&>(*statement.filter), &text));
  AppendStr(text, *out_);
  LeaveScope(statement.scope);
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const IfStatement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*condition));
    if (IsTrue(value)) return Execute(body);
  }
  return Execute(statement.otherwise);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const WithStatement& statement) {
  EnterScope(statement.scope);
  for (const auto& [target, expression] : statement.assignments) {
    JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression));
    JINJA_RETURN_IF_ERROR(Assign(*target, value));
  }
  JINJA_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
  LeaveScope(statement.scope);
  return flow;
}

absl::StatusOr<bool> Interpreter::PassesFilter(const ForStatement& node, Frame& frame, Value& item,
                                               bool first) {
  Frame* const outer = std::exchange(frame_, &frame);
  const absl::Cleanup restore = [this, outer] { frame_ = outer; };
  if (first) EnterScope(node.filter_scope);
  JINJA_RETURN_IF_ERROR(Assign(*node.filter_target, item));
  item = ReadBack(*node.filter_target);
  JINJA_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.filter));
  return IsTrue(value);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(const ForStatement& statement) {
  JINJA_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.iterable));
  if (!statement.recursive) return Loop(statement, iterable, 0, nullptr);
  JINJA_ASSIGN_OR_RETURN(const Value text,
                         CallLoop(statement, frame_->shared_from_this(), iterable, 0));
  AppendStr(text, *out_);
  return Flow::kNormal;
}

absl::StatusOr<Value> Interpreter::CallLoop(const ForStatement& statement,
                                            const std::shared_ptr<Frame>& closure,
                                            const Value& iterable, int depth) {
  return RunInFrame(statement.slot_count, closure, [&]() -> absl::Status {
    auto recurse = [this, &statement, closure](const Value& items, int inner_depth) {
      return CallLoop(statement, closure, items, inner_depth);
    };
    return Loop(statement, iterable, depth, std::move(recurse)).status();
  });
}

absl::StatusOr<Interpreter::Flow> Interpreter::Loop(const ForStatement& statement,
                                                    const Value& iterable, int depth,
                                                    LoopState::Recurse recurse) {
  JINJA_ASSIGN_OR_RETURN(std::shared_ptr<Iterator> iterator, Iterate(iterable, runtime_));
  if (statement.filter != nullptr) {
    iterator = std::make_shared<LoopFilter>(std::move(iterator), statement, *this,
                                            frame_->shared_from_this());
  }
  auto loop =
      std::make_shared<LoopState>(std::move(iterator), depth, std::move(recurse), &runtime_.budget);
  frame_->Own(statement.loop_slot) = Value(std::static_pointer_cast<Object>(loop));
  const absl::StatusOr<bool> completed = RunLoop(statement, *loop);
  LeaveScope(statement.body_scope);
  LeaveScope(statement.filter_scope);
  ReleaseOrRetain(std::move(loop), runtime_);
  if (!completed.ok()) return completed.status();
  // As compiled by jinja2, `else` runs unless some iteration reached the end of the body.
  if (*completed || statement.otherwise.empty()) return Flow::kNormal;
  EnterScope(statement.otherwise_scope);
  JINJA_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.otherwise));
  LeaveScope(statement.otherwise_scope);
  return flow;
}

// Whether some iteration reached the end of the body.
absl::StatusOr<bool> Interpreter::RunLoop(const ForStatement& statement, LoopState& loop) {
  bool completed = false;
  Value item;
  while (true) {
    line_ = statement.line;
    JINJA_ASSIGN_OR_RETURN(const bool more, loop.Advance(item));
    if (!more) return completed;
    if (!runtime_.budget.Step()) return runtime_.budget.status();
    JINJA_RETURN_IF_ERROR(Assign(*statement.target, item));
    EnterScope(statement.body_scope);
    JINJA_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
    if (flow == Flow::kBreak) return completed;
    completed |= flow == Flow::kNormal;
  }
}

absl::Status Interpreter::ExecuteMacro(const MacroStatement& statement) {
  auto macro = std::make_shared<Macro>(*this, statement.function, statement.name,
                                       frame_->shared_from_this());
  frame_->At(statement.ref) = Value(std::static_pointer_cast<Object>(std::move(macro)));
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteCallBlock(const CallBlockStatement& statement) {
  const Value caller(std::static_pointer_cast<Object>(
      std::make_shared<Macro>(*this, statement.function, "", frame_->shared_from_this())));
  JINJA_ASSIGN_OR_RETURN(const Value text,
                         EvaluateCall(static_cast<const CallExpr&>(*statement.call), &caller));
  AppendStr(text, *out_);
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteGeneration(const GenerationStatement& statement) {
  JINJA_ASSIGN_OR_RETURN(
      const Value text, CallFunction(statement.function, frame_->shared_from_this(), "caller", {}));
  AppendStr(text, *out_);
  return absl::OkStatus();
}

absl::Status Interpreter::BindExtras(const FunctionBody& function, std::string_view name,
                                     std::vector<std::pair<std::string, Value>> named,
                                     std::vector<Value> positional) {
  if (function.caller_slot >= 0) {
    Value caller = Undefined::WithHint("No caller defined");
    for (auto entry = named.begin(); entry != named.end(); ++entry) {
      if (entry->first != "caller") continue;
      if (!entry->second.is_none()) caller = entry->second;
      named.erase(entry);
      break;
    }
    frame_->Own(function.caller_slot) = std::move(caller);
  }
  if (function.kwargs_slot >= 0) {
    DictBuilder kwargs(runtime_.budget);
    for (auto& [key, value] : named) {
      kwargs.Set(NewTrusted(key, runtime_.budget), std::move(value));
    }
    frame_->Own(function.kwargs_slot) = kwargs.Finish();
  } else if (!named.empty()) {
    return TypeError(
        StrCat("macro '", name, "' takes no keyword argument '", named.front().first, "'"));
  }
  if (function.varargs_slot >= 0) {
    ListBuilder varargs(runtime_.budget);
    for (Value& value : positional) varargs.Push(std::move(value));
    frame_->Own(function.varargs_slot) = varargs.FinishTuple();
  } else if (!positional.empty()) {
    return TypeError(StrCat("macro '", name, "' takes not more than ", function.parameters.size(),
                            " argument(s)"));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::BindParameters(const FunctionBody& function, std::string_view name,
                                         const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> named = arguments.named;
  std::vector<bool> given(function.parameters.size(), false);
  runtime_.budget.Work(function.parameters.size() * (named.size() + 1));
  if (!runtime_.budget.ok()) return runtime_.budget.status();
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    const MacroParameter& parameter = function.parameters[i];
    if (i < arguments.positional.size()) {
      frame_->Own(parameter.slot) = arguments.positional[i];
      given[i] = true;
      continue;
    }
    for (auto entry = named.begin(); entry != named.end(); ++entry) {
      if (entry->first != parameter.name) continue;
      frame_->Own(parameter.slot) = entry->second;
      given[i] = true;
      named.erase(entry);
      break;
    }
  }
  std::vector<Value> rest;
  for (size_t i = function.parameters.size(); i < arguments.positional.size(); ++i) {
    rest.push_back(arguments.positional[i]);
  }
  JINJA_RETURN_IF_ERROR(BindExtras(function, name, std::move(named), std::move(rest)));
  EnterScope(function.scope);
  for (size_t i = 0; i < function.parameters.size(); ++i) {
    if (given[i]) continue;
    const MacroParameter& parameter = function.parameters[i];
    if (parameter.default_value == nullptr) {
      frame_->Own(parameter.slot) =
          Undefined::WithHint(StrCat("parameter '", parameter.name, "' was not provided"));
    } else {
      JINJA_ASSIGN_OR_RETURN(frame_->Own(parameter.slot), Evaluate(*parameter.default_value));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallFunction(const FunctionBody& function,
                                                const std::shared_ptr<Frame>& closure,
                                                std::string_view name, const Arguments& arguments) {
  return RunInFrame(function.slot_count, closure, [&]() -> absl::Status {
    JINJA_RETURN_IF_ERROR(BindParameters(function, name, arguments));
    return Execute(function.body).status();
  });
}

template <typename Body>
absl::StatusOr<Value> Interpreter::RunInFrame(int slot_count, const std::shared_ptr<Frame>& closure,
                                              Body body) {
  const DepthScope depth(runtime_.budget);
  if (!depth.ok()) return runtime_.budget.status();
  if (call_depth_ >= runtime_.budget.max_depth()) {
    runtime_.budget.Fail(StrCat("macros and loops call each other deeper than ",
                                runtime_.budget.max_depth(), " levels"));
    return runtime_.budget.status();
  }
  ++call_depth_;
  auto frame = std::make_shared<Frame>(slot_count, closure, &runtime_.budget);
  TextBuilder builder(runtime_.budget);
  Frame* const outer_frame = std::exchange(frame_, frame.get());
  TextBuilder* const outer_out = std::exchange(out_, &builder);
  const int outer_line = line_;
  const absl::Status status = body();
  frame_ = outer_frame;
  out_ = outer_out;
  --call_depth_;
  ReleaseOrRetain(std::move(frame), runtime_);
  if (!status.ok()) return status;
  line_ = outer_line;
  return NewString(std::move(builder));
}

}  // namespace fairlead::jinja
