// SPDX-License-Identifier: Apache-2.0
// Runs a parsed template once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "models/jinja/ast.h"
#include "models/jinja/loop_state.h"
#include "models/jinja/objects.h"

namespace fairlead::jinja {

using Variables = absl::flat_hash_map<std::string, Value>;

// The variables of one running function.
class Frame final : public Object, public std::enable_shared_from_this<Frame> {
 public:
  Frame(int slot_count, std::shared_ptr<Frame> outer, Budget* budget);
  std::string_view type_name() const override { return "frame"; }
  void Clear() override;
  Value& At(SlotRef ref);
  Value& Own(int slot) { return slots_[static_cast<size_t>(slot)]; }

 private:
  std::vector<Value> slots_;
  std::shared_ptr<Frame> outer_;  // of the function this one is written in
  MemoryCharge charge_;
};

class Interpreter {
 public:
  Interpreter(const Variables& variables, Runtime& runtime)
      : variables_(variables), runtime_(runtime) {}

  // The whole output. Errors as contracted in models/chat_template.h.
  absl::StatusOr<Text> Run(const TemplateAst& ast);

  // Runs `function` with its free variables in `closure`. `name`: for messages.
  absl::StatusOr<Value> CallFunction(const FunctionBody& function,
                                     const std::shared_ptr<Frame>& closure, std::string_view name,
                                     const Arguments& arguments);
  // Whether the filter of a loop running in `frame` lets `item` pass. An item that the loop unpacks
  // comes out as a tuple.
  absl::StatusOr<bool> PassesFilter(const ForStatement& node, Frame& frame, Value& item,
                                    bool first);

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  absl::StatusOr<Flow> Execute(const Block& block);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement);
  absl::Status ExecuteOutput(const OutputStatement& statement);
  absl::Status ExecuteSet(const SetStatement& statement);
  absl::StatusOr<Flow> ExecuteSetBlock(const SetBlockStatement& statement);
  absl::StatusOr<Flow> ExecuteIf(const IfStatement& statement);
  absl::StatusOr<Flow> ExecuteFor(const ForStatement& statement);
  // A loop over `iterable`, in the current frame.
  absl::StatusOr<Flow> Loop(const ForStatement& statement, const Value& iterable, int depth,
                            LoopState::Recurse recurse);
  // What a recursive loop prints for `iterable`.
  absl::StatusOr<Value> CallLoop(const ForStatement& statement,
                                 const std::shared_ptr<Frame>& closure, const Value& iterable,
                                 int depth);
  // What `body` prints in a frame of its own.
  template <typename Body>
  absl::StatusOr<Value> RunInFrame(int slot_count, const std::shared_ptr<Frame>& closure,
                                   Body body);
  absl::StatusOr<bool> RunLoop(const ForStatement& statement, LoopState& loop);
  absl::Status ExecuteMacro(const MacroStatement& statement);
  absl::Status ExecuteCallBlock(const CallBlockStatement& statement);
  absl::Status ExecuteGeneration(const GenerationStatement& statement);
  absl::StatusOr<Flow> ExecuteFilterBlock(const FilterBlockStatement& statement);
  absl::StatusOr<Flow> ExecuteWith(const WithStatement& statement);
  absl::Status BindParameters(const FunctionBody& function, std::string_view name,
                              const Arguments& arguments);
  absl::Status BindExtras(const FunctionBody& function, std::string_view name,
                          std::vector<std::pair<std::string, Value>> named,
                          std::vector<Value> positional);
  // What `body` prints, in its own scope.
  absl::StatusOr<Flow> Capture(const Block& body, const Scope& scope, Value& text);
  absl::Status Assign(const Expr& target, const Value& value);
  // What was just assigned to `target`.
  Value ReadBack(const Expr& target);
  void EnterScope(const Scope& scope);
  void LeaveScope(const Scope& scope);

  absl::StatusOr<Value> Evaluate(const Expr& expression);
  absl::StatusOr<Value> EvaluateCompound(const Expr& expression);
  absl::StatusOr<Value> EvaluateName(const NameExpr& name);
  absl::StatusOr<Value> EvaluateSequence(const SequenceExpr& sequence);
  absl::StatusOr<Value> EvaluateDict(const DictExpr& dict);
  absl::StatusOr<Value> EvaluateUnary(const UnaryExpr& unary);
  absl::StatusOr<Value> EvaluateBinary(const BinaryExpr& binary);
  absl::StatusOr<Value> EvaluateLogic(const SequenceExpr& logic);
  absl::StatusOr<Value> EvaluateConcat(const SequenceExpr& concat);
  absl::StatusOr<Value> EvaluateCompare(const CompareExpr& compare);
  absl::StatusOr<Value> EvaluateConditional(const ConditionalExpr& conditional);
  absl::StatusOr<Value> EvaluateAttribute(const AttributeExpr& access);
  absl::StatusOr<Value> EvaluateSubscript(const SubscriptExpr& subscript);
  absl::StatusOr<Value> EvaluateSlice(const Value& object, const SliceExpr& slice);
  absl::StatusOr<Value> EvaluateCall(const CallExpr& call, const Value* caller);
  absl::StatusOr<Value> EvaluateFilter(const FilterExpr& filter, const Value* block_text);
  absl::StatusOr<Value> EvaluateTest(const TestExpr& test);
  absl::Status EvaluateArguments(const CallArguments& given, Arguments& arguments);
  absl::Status AddNamed(std::string name, Value value, Arguments& arguments);

  Value Resolve(const std::string& name) const;
  absl::Status Located(const absl::Status& status) const;

  const Variables& variables_;
  Runtime& runtime_;
  Frame* frame_ = nullptr;
  TextBuilder* out_ = nullptr;
  int line_ = 1;        // of the node begun last
  int call_depth_ = 0;  // running macros and recursive loops
};

}  // namespace fairlead::jinja
