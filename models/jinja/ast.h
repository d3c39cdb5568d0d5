// SPDX-License-Identifier: Apache-2.0
// The parsed template. Built by the parser, completed by the resolver (slots and scopes), then
// immutable and shared by all renderings.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/jinja/builtins.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

// Where a variable lives: `hops` functions out from the running one, at `slot` of its frame.
struct SlotRef {
  int hops = 0;
  int slot = -1;
};

// What a scope does with a variable when it is entered.
struct ScopeLoad {
  enum class Action {
    kUnset,    // assigned here before any use
    kAlias,    // starts as the enclosing scope's variable `from`
    kResolve,  // the caller's variable or a global function of this name
    kNone,     // a parameter: whoever enters the scope sets it
  };
  Action action = Action::kNone;
  int slot = -1;
  std::string name;
  SlotRef from;
};
using Scope = std::vector<ScopeLoad>;

enum class ExprKind {
  kConst,
  kName,
  kNamespaceRef,
  kTuple,
  kList,
  kDict,
  kNot,
  kNegative,
  kPositive,
  kBinary,
  kAnd,
  kOr,
  kConcat,
  kCompare,
  kConditional,
  kAttribute,
  kSubscript,
  kSlice,
  kCall,
  kFilter,
  kTest,
};

struct Expr {
  Expr(ExprKind expr_kind, int source_line) : kind(expr_kind), line(source_line) {}
  virtual ~Expr() = default;
  const ExprKind kind;
  const int line;
  int height = 1;  // levels of expressions, this one included
};
using ExprPtr = std::unique_ptr<Expr>;

struct ConstExpr final : Expr {
  ConstExpr(Value v, int l) : Expr(ExprKind::kConst, l), value(std::move(v)) {}
  Value value;
};

struct NameExpr final : Expr {
  NameExpr(std::string n, int l) : Expr(ExprKind::kName, l), name(std::move(n)) {}
  std::string name;
  SlotRef ref;
};

// `name.attribute` as the target of an assignment.
struct NamespaceRefExpr final : Expr {
  NamespaceRefExpr(std::string n, std::string a, int l)
      : Expr(ExprKind::kNamespaceRef, l), name(std::move(n)), attribute(std::move(a)) {}
  std::string name;
  std::string attribute;
  SlotRef ref;
};

// kTuple, kList, kConcat; kAnd and kOr, of two.
struct SequenceExpr final : Expr {
  using Expr::Expr;
  std::vector<ExprPtr> items;
};

struct DictExpr final : Expr {
  explicit DictExpr(int l) : Expr(ExprKind::kDict, l) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> items;
};

// kNot, kNegative, kPositive.
struct UnaryExpr final : Expr {
  using Expr::Expr;
  ExprPtr operand;
};

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };

struct BinaryExpr final : Expr {
  BinaryExpr(BinaryOperator o, int l) : Expr(ExprKind::kBinary, l), op(o) {}
  BinaryOperator op;
  ExprPtr left, right;
};

enum class CompareOperator { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct CompareExpr final : Expr {
  explicit CompareExpr(int l) : Expr(ExprKind::kCompare, l) {}
  ExprPtr first;
  std::vector<std::pair<CompareOperator, ExprPtr>> rest;
};

struct ConditionalExpr final : Expr {
  explicit ConditionalExpr(int l) : Expr(ExprKind::kConditional, l) {}
  ExprPtr condition, then, otherwise;  // otherwise: may be null
};

struct AttributeExpr final : Expr {
  AttributeExpr(std::string n, int l) : Expr(ExprKind::kAttribute, l), name(std::move(n)) {}
  ExprPtr object;
  std::string name;
  Value name_value;
};

struct SubscriptExpr final : Expr {
  explicit SubscriptExpr(int l) : Expr(ExprKind::kSubscript, l) {}
  ExprPtr object, index;  // index may be a SliceExpr
};

struct SliceExpr final : Expr {
  explicit SliceExpr(int l) : Expr(ExprKind::kSlice, l) {}
  ExprPtr start, stop, step;  // each may be null
};

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;  // may be null
};

struct CallExpr final : Expr {
  explicit CallExpr(int l) : Expr(ExprKind::kCall, l) {}
  ExprPtr callee;
  CallArguments arguments;
};

struct FilterExpr final : Expr {
  explicit FilterExpr(int l) : Expr(ExprKind::kFilter, l) {}
  ExprPtr input;  // null: the text of the surrounding filter or set block
  std::string name;
  FilterFunction function = nullptr;  // null: unknown, an error when it is reached
  CallArguments arguments;
};

struct TestExpr final : Expr {
  explicit TestExpr(int l) : Expr(ExprKind::kTest, l) {}
  ExprPtr input;
  std::string name;
  TestFunction function = nullptr;
  CallArguments arguments;
};

enum class StatementKind {
  kOutput,
  kSet,
  kSetBlock,
  kIf,
  kFor,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kGeneration,
  kBreak,
  kContinue,
};

struct Statement {
  Statement(StatementKind statement_kind, int source_line)
      : kind(statement_kind), line(source_line) {}
  virtual ~Statement() = default;
  const StatementKind kind;
  const int line;
};
using Block = std::vector<std::unique_ptr<Statement>>;

struct OutputStatement final : Statement {
  explicit OutputStatement(int l) : Statement(StatementKind::kOutput, l) {}
  std::vector<ExprPtr> items;
};

struct SetStatement final : Statement {
  explicit SetStatement(int l) : Statement(StatementKind::kSet, l) {}
  ExprPtr target;  // name, namespace reference, or a tuple of targets
  ExprPtr value;
};

struct SetBlockStatement final : Statement {
  explicit SetBlockStatement(int l) : Statement(StatementKind::kSetBlock, l) {}
  ExprPtr target;
  ExprPtr filter;  // may be null
  Block body;
  Scope scope;
};

struct IfStatement final : Statement {
  explicit IfStatement(int l) : Statement(StatementKind::kIf, l) {}
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block otherwise;
};

struct ForStatement final : Statement {
  explicit ForStatement(int l) : Statement(StatementKind::kFor, l) {}
  ExprPtr target, iterable;
  ExprPtr filter_target;  // the target again, in the filter's own scope; null without a filter
  ExprPtr filter;
  Block body, otherwise;
  // `recursive`: body, filter and `else` are a function that `loop(items)` calls, with a frame of
  // its own.
  bool recursive = false;
  int slot_count = 0;  // of that frame
  int loop_slot = -1;
  Scope body_scope, filter_scope, otherwise_scope;
};

struct MacroParameter {
  std::string name;
  ExprPtr default_value;  // may be null
  int slot = -1;
};

// The body of a macro, a call block or a generation block: a function with a frame of its own.
struct FunctionBody {
  std::vector<MacroParameter> parameters;
  Block body;
  Scope scope;
  int slot_count = 0;
  // Slots of what the body uses besides its parameters; -1: not used.
  int caller_slot = -1;
  int kwargs_slot = -1;
  int varargs_slot = -1;
};

struct MacroStatement final : Statement {
  explicit MacroStatement(int l) : Statement(StatementKind::kMacro, l) {}
  std::string name;
  SlotRef ref;
  FunctionBody function;
};

struct CallBlockStatement final : Statement {
  explicit CallBlockStatement(int l) : Statement(StatementKind::kCallBlock, l) {}
  ExprPtr call;  // a CallExpr
  FunctionBody function;
};

struct GenerationStatement final : Statement {
  explicit GenerationStatement(int l) : Statement(StatementKind::kGeneration, l) {}
  FunctionBody function;
};

struct FilterBlockStatement final : Statement {
  explicit FilterBlockStatement(int l) : Statement(StatementKind::kFilterBlock, l) {}
  ExprPtr filter;
  Block body;
  Scope scope;
};

struct WithStatement final : Statement {
  explicit WithStatement(int l) : Statement(StatementKind::kWith, l) {}
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;  // target, value
  Block body;
  Scope scope;
};

struct LoopControlStatement final : Statement {
  using Statement::Statement;
};

struct TemplateAst {
  FunctionBody root;
};

}  // namespace fairlead::jinja
