// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/ast_walk.h"

#include <utility>

namespace fairlead::jinja {
namespace {

using Visit = std::function<void(const ExprPtr&)>;

void VisitIfThere(const ExprPtr& child, const Visit& visit) {
  if (child != nullptr) visit(child);
}

void VisitArguments(const CallArguments& arguments, const Visit& visit) {
  for (const ExprPtr& argument : arguments.positional) visit(argument);
  for (const auto& [name, argument] : arguments.named) visit(argument);
  VisitIfThere(arguments.star, visit);
  VisitIfThere(arguments.double_star, visit);
}

class UndeclaredFinder {
 public:
  explicit UndeclaredFinder(std::set<std::string> names) : names_(std::move(names)) {}

  void Statements(const Block& block) {
    for (const auto& statement : block) One(*statement);
  }
  std::set<std::string> Take() { return std::move(found_); }

 private:
  void Loads(const ExprPtr& expression) {
    WalkNames(expression.get(), [this](const std::string& name) {
      if (names_.contains(name)) found_.insert(name);
    });
  }

  void Target(const Expr& target) {
    if (target.kind == ExprKind::kName) {
      names_.erase(static_cast<const NameExpr&>(target).name);
    } else if (target.kind == ExprKind::kTuple) {
      for (const ExprPtr& item : static_cast<const SequenceExpr&>(target).items) Target(*item);
    }
  }

  void Function(const FunctionBody& function) {
    for (const MacroParameter& parameter : function.parameters) names_.erase(parameter.name);
    for (const MacroParameter& parameter : function.parameters) Loads(parameter.default_value);
    Statements(function.body);
  }

  void One(const Statement& statement) {
    switch (statement.kind) {
      case StatementKind::kOutput:
        for (const ExprPtr& item : As<OutputStatement>(statement).items) Loads(item);
        return;
      case StatementKind::kSet:
        Target(*As<SetStatement>(statement).target);
        return Loads(As<SetStatement>(statement).value);
      case StatementKind::kSetBlock:
        Target(*As<SetBlockStatement>(statement).target);
        Loads(As<SetBlockStatement>(statement).filter);
        return Statements(As<SetBlockStatement>(statement).body);
      case StatementKind::kIf:
        for (const auto& [condition, body] : As<IfStatement>(statement).branches) {
          Loads(condition);
          Statements(body);
        }
        return Statements(As<IfStatement>(statement).otherwise);
      case StatementKind::kFor:
        return For(As<ForStatement>(statement));
      case StatementKind::kMacro:
        return Function(As<MacroStatement>(statement).function);
      case StatementKind::kCallBlock:
        Loads(As<CallBlockStatement>(statement).call);
        return Function(As<CallBlockStatement>(statement).function);
      case StatementKind::kGeneration:
        return Function(As<GenerationStatement>(statement).function);
      case StatementKind::kFilterBlock:
        Statements(As<FilterBlockStatement>(statement).body);
        return Loads(As<FilterBlockStatement>(statement).filter);
      case StatementKind::kWith:
        for (const auto& [target, value] : As<WithStatement>(statement).assignments) {
          Target(*target);
        }
        for (const auto& [target, value] : As<WithStatement>(statement).assignments) Loads(value);
        return Statements(As<WithStatement>(statement).body);
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        return;
    }
  }

  void For(const ForStatement& node) {
    Target(*node.target);
    Loads(node.iterable);
    Statements(node.body);
    Statements(node.otherwise);
    Loads(node.filter);
  }

  std::set<std::string> names_;
  std::set<std::string> found_;
};

}  // namespace

void ForEachChild(const Expr& expression, const Visit& visit) {
  switch (expression.kind) {
    case ExprKind::kConst:
    case ExprKind::kName:
    case ExprKind::kNamespaceRef:
      return;
    case ExprKind::kTuple:
    case ExprKind::kList:
    case ExprKind::kConcat:
    case ExprKind::kAnd:
    case ExprKind::kOr:
      for (const ExprPtr& item : static_cast<const SequenceExpr&>(expression).items) visit(item);
      return;
    case ExprKind::kDict:
      for (const auto& [key, value] : static_cast<const DictExpr&>(expression).items) {
        visit(key);
        visit(value);
      }
      return;
    case ExprKind::kNot:
    case ExprKind::kNegative:
    case ExprKind::kPositive:
      return visit(static_cast<const UnaryExpr&>(expression).operand);
    case ExprKind::kBinary:
      visit(static_cast<const BinaryExpr&>(expression).left);
      return visit(static_cast<const BinaryExpr&>(expression).right);
    case ExprKind::kCompare:
      visit(static_cast<const CompareExpr&>(expression).first);
      for (const auto& [op, item] : static_cast<const CompareExpr&>(expression).rest) visit(item);
      return;
    case ExprKind::kConditional:
      visit(static_cast<const ConditionalExpr&>(expression).condition);
      visit(static_cast<const ConditionalExpr&>(expression).then);
      return VisitIfThere(static_cast<const ConditionalExpr&>(expression).otherwise, visit);
    case ExprKind::kAttribute:
      return visit(static_cast<const AttributeExpr&>(expression).object);
    case ExprKind::kSubscript:
      visit(static_cast<const SubscriptExpr&>(expression).object);
      return visit(static_cast<const SubscriptExpr&>(expression).index);
    case ExprKind::kSlice:
      VisitIfThere(static_cast<const SliceExpr&>(expression).start, visit);
      VisitIfThere(static_cast<const SliceExpr&>(expression).stop, visit);
      return VisitIfThere(static_cast<const SliceExpr&>(expression).step, visit);
    case ExprKind::kCall:
      visit(static_cast<const CallExpr&>(expression).callee);
      return VisitArguments(static_cast<const CallExpr&>(expression).arguments, visit);
    case ExprKind::kFilter:
      VisitIfThere(static_cast<const FilterExpr&>(expression).input, visit);
      return VisitArguments(static_cast<const FilterExpr&>(expression).arguments, visit);
    case ExprKind::kTest:
      visit(static_cast<const TestExpr&>(expression).input);
      return VisitArguments(static_cast<const TestExpr&>(expression).arguments, visit);
  }
}

void WalkNames(const Expr* expression, const std::function<void(const std::string&)>& visit) {
  if (expression == nullptr) return;
  if (expression->kind == ExprKind::kName) {
    return visit(static_cast<const NameExpr&>(*expression).name);
  }
  ForEachChild(*expression, [&visit](const ExprPtr& child) { WalkNames(child.get(), visit); });
}

std::set<std::string> FindUndeclared(const Block& body, std::set<std::string> names) {
  UndeclaredFinder finder(std::move(names));
  finder.Statements(body);
  return finder.Take();
}

}  // namespace fairlead::jinja
