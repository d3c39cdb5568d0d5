// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/resolver.h"

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/jinja/ast_walk.h"
#include "models/jinja/lexer.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

using Action = ScopeLoad::Action;

// A function of the template: the root, a macro, a call block.
struct FunctionContext {
  int depth = 0;
  int slot_count = 0;
};

// The names of one scope. A branch of an `if` works on an overlay of its scope, merged afterwards.
class Symbols {
 public:
  Symbols(Symbols* outer, FunctionContext* function) : outer_(outer), function_(function) {}
  static Symbols Overlay(Symbols& base) {
    Symbols overlay(base.outer_, base.function_);
    overlay.base_ = &base;
    return overlay;
  }

  void Load(const std::string& name) {
    if (!Find(name)) Define(name, Action::kResolve, {});
  }

  void Store(const std::string& name) {
    stores_.insert(name);
    if (FindOwn(name)) return;
    const std::optional<SlotRef> outer = FindOuter(name);
    Define(name, outer ? Action::kAlias : Action::kUnset, outer.value_or(SlotRef{}));
  }

  int Declare(const std::string& name) {
    stores_.insert(name);
    return Define(name, Action::kNone, {});
  }

  // Takes over what the branches (overlays of this) defined. What only some of them assign is
  // looked up outside before, for the case that none of them runs.
  void MergeBranches(const std::vector<Symbols>& branches) {
    std::set<std::string> assigned;
    for (const Symbols& branch : branches) {
      for (const std::string& name : branch.stores_) {
        if (!HasStore(name)) assigned.insert(name);
      }
    }
    for (const Symbols& branch : branches) {
      for (const auto& [name, slot] : branch.refs_) refs_[name] = slot;
      for (const auto& [slot, load] : branch.loads_) loads_[slot] = load;
      stores_.insert(branch.stores_.begin(), branch.stores_.end());
    }
    for (const std::string& name : assigned) {
      const std::optional<SlotRef> outer = FindOuter(name);
      Define(name, outer ? Action::kAlias : Action::kResolve, outer.value_or(SlotRef{}));
    }
  }

  bool Knows(const std::string& name) const { return Find(name).has_value(); }

  // Requires that the name was loaded, stored or declared here or further out.
  SlotRef Ref(const std::string& name) const { return *Find(name); }

  Scope TakeScope() {
    Scope scope;
    for (auto& [slot, load] : loads_) scope.push_back(std::move(load));
    return scope;
  }

  FunctionContext& function() const { return *function_; }

 private:
  std::optional<int> FindOwn(const std::string& name) const {
    for (const Symbols* symbols = this; symbols != nullptr; symbols = symbols->base_) {
      const auto found = symbols->refs_.find(name);
      if (found != symbols->refs_.end()) return found->second;
    }
    return std::nullopt;
  }

  std::optional<SlotRef> FindOuter(const std::string& name) const {
    if (outer_ == nullptr) return std::nullopt;
    const std::optional<SlotRef> ref = outer_->Find(name);
    if (!ref) return std::nullopt;
    return SlotRef{ref->hops + function_->depth - outer_->function_->depth, ref->slot};
  }

  std::optional<SlotRef> Find(const std::string& name) const {
    if (const std::optional<int> own = FindOwn(name)) return SlotRef{0, *own};
    return FindOuter(name);
  }

  bool HasStore(const std::string& name) const {
    for (const Symbols* symbols = this; symbols != nullptr; symbols = symbols->base_) {
      if (symbols->stores_.contains(name)) return true;
    }
    return false;
  }

  int Define(const std::string& name, Action action, SlotRef from) {
    Symbols* scope = this;
    while (scope->base_ != nullptr) scope = scope->base_;
    const auto [entry, inserted] = scope->slots_.try_emplace(name, function_->slot_count);
    if (inserted) ++function_->slot_count;
    const int slot = entry->second;
    refs_[name] = slot;
    loads_[slot] = ScopeLoad{action, slot, name, from};
    return slot;
  }

  Symbols* outer_;           // the enclosing scope
  Symbols* base_ = nullptr;  // what this is an overlay of
  FunctionContext* function_;
  std::map<std::string, int> refs_;
  std::map<int, ScopeLoad> loads_;
  std::set<std::string> stores_;
  std::map<std::string, int> slots_;  // of the scope and all its overlays
};

// First pass over a scope: which names its statements load and store, in jinja2's order. It does
// not look into scopes within.
class Analyzer {
 public:
  explicit Analyzer(Symbols& symbols) : symbols_(&symbols) {}

  void Loads(const Expr* expression) {
    WalkNames(expression, [this](const std::string& name) { symbols_->Load(name); });
  }

  void Target(const Expr& target) {
    switch (target.kind) {
      case ExprKind::kName:
        return symbols_->Store(static_cast<const NameExpr&>(target).name);
      case ExprKind::kNamespaceRef:
        return symbols_->Load(static_cast<const NamespaceRefExpr&>(target).name);
      default:
        for (const ExprPtr& item : static_cast<const SequenceExpr&>(target).items) Target(*item);
    }
  }

  void DeclareTarget(const Expr& target) {
    if (target.kind == ExprKind::kName) {
      symbols_->Declare(static_cast<const NameExpr&>(target).name);
      return;
    }
    for (const ExprPtr& item : static_cast<const SequenceExpr&>(target).items) {
      DeclareTarget(*item);
    }
  }

  void Statements(const Block& block) {
    for (const auto& statement : block) One(*statement);
  }

 private:
  void One(const Statement& statement) {
    switch (statement.kind) {
      case StatementKind::kOutput:
        for (const ExprPtr& item : As<OutputStatement>(statement).items) Loads(item.get());
        return;
      case StatementKind::kSet:
        Loads(As<SetStatement>(statement).value.get());
        return Target(*As<SetStatement>(statement).target);
      case StatementKind::kSetBlock:
        // jinja2 does not look into the filter: names of its arguments have to stand elsewhere too.
        return Target(*As<SetBlockStatement>(statement).target);
      case StatementKind::kIf:
        return If(As<IfStatement>(statement));
      case StatementKind::kFor:
        return Loads(As<ForStatement>(statement).iterable.get());
      case StatementKind::kMacro:
        return symbols_->Store(As<MacroStatement>(statement).name);
      case StatementKind::kCallBlock:
        return Loads(As<CallBlockStatement>(statement).call.get());
      case StatementKind::kFilterBlock:
        return Loads(As<FilterBlockStatement>(statement).filter.get());
      case StatementKind::kWith:
        for (const auto& [target, value] : As<WithStatement>(statement).assignments) {
          Loads(value.get());
        }
        return;
      case StatementKind::kGeneration:
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        return;
    }
  }

  // jinja2 analyses every `elif` as an `if` of its own, all on one copy of the scope.
  void If(const IfStatement& node) {
    Symbols* const whole = symbols_;
    Loads(node.branches.front().first.get());
    std::vector<Symbols> overlays;
    overlays.reserve(3);
    const auto in_overlay = [&](auto visit) {
      overlays.push_back(Symbols::Overlay(*whole));
      symbols_ = &overlays.back();
      visit();
      symbols_ = whole;
    };
    in_overlay([&] { Statements(node.branches.front().second); });
    in_overlay([&] {
      for (size_t i = 1; i < node.branches.size(); ++i) ElseIf(node.branches[i]);
    });
    in_overlay([&] { Statements(node.otherwise); });
    whole->MergeBranches(overlays);
  }

  void ElseIf(const std::pair<ExprPtr, Block>& branch) {
    Symbols* const whole = symbols_;
    Loads(branch.first.get());
    std::vector<Symbols> overlays;
    overlays.push_back(Symbols::Overlay(*whole));
    symbols_ = &overlays.back();
    Statements(branch.second);
    symbols_ = whole;
    whole->MergeBranches(overlays);
  }

  Symbols* symbols_;
};

// Second pass: gives every name of a scope its slot, and opens the scopes within.
class Binder {
 public:
  absl::Status Root(FunctionBody& root) {
    FunctionContext function;
    Symbols symbols(nullptr, &function);
    Analyzer(symbols).Statements(root.body);
    JINJA_RETURN_IF_ERROR(Statements(root.body, symbols, /*lenient=*/false));
    root.scope = symbols.TakeScope();
    root.slot_count = function.slot_count;
    return absl::OkStatus();
  }

 private:
  // `lenient`: inside an if or a conditional, unknown filters and tests are errors only when
  // reached.
  absl::Status Expression(Expr* expression, const Symbols& symbols, bool lenient) {
    if (expression == nullptr) return absl::OkStatus();
    switch (expression->kind) {
      case ExprKind::kName: {
        auto& name = static_cast<NameExpr&>(*expression);
        name.ref = symbols.Ref(name.name);
        return absl::OkStatus();
      }
      case ExprKind::kFilter: {
        const auto& filter = static_cast<FilterExpr&>(*expression);
        if (filter.function == nullptr && !lenient) {
          return SyntaxError(filter.line, StrCat("No filter named '", filter.name, "'."));
        }
        break;
      }
      case ExprKind::kTest: {
        const auto& test = static_cast<TestExpr&>(*expression);
        if (test.function == nullptr && !lenient) {
          return SyntaxError(test.line, StrCat("No test named '", test.name, "'."));
        }
        break;
      }
      case ExprKind::kConditional:
        lenient = true;
        break;
      default:
        break;
    }
    absl::Status status;
    ForEachChild(*expression, [&](const ExprPtr& child) {
      if (status.ok()) status = Expression(child.get(), symbols, lenient);
    });
    return status;
  }

  absl::Status Target(Expr& target, const Symbols& symbols) {
    switch (target.kind) {
      case ExprKind::kName: {
        auto& name = static_cast<NameExpr&>(target);
        if (name.name == "loop" && loops_ > 0) {
          return SyntaxError(name.line, "Can't assign to special loop variable in for-loop target");
        }
        name.ref = symbols.Ref(name.name);
        return absl::OkStatus();
      }
      case ExprKind::kNamespaceRef: {
        auto& reference = static_cast<NamespaceRefExpr&>(target);
        reference.ref = symbols.Ref(reference.name);
        return absl::OkStatus();
      }
      default:
        for (const ExprPtr& item : static_cast<SequenceExpr&>(target).items) {
          JINJA_RETURN_IF_ERROR(Target(*item, symbols));
        }
        return absl::OkStatus();
    }
  }

  absl::Status Statements(Block& block, Symbols& symbols, bool lenient) {
    for (const auto& statement : block) {
      JINJA_RETURN_IF_ERROR(One(*statement, symbols, lenient));
    }
    return absl::OkStatus();
  }

  absl::Status One(Statement& statement, Symbols& symbols, bool lenient) {
    switch (statement.kind) {
      case StatementKind::kOutput:
        for (const ExprPtr& item : As<OutputStatement>(statement).items) {
          JINJA_RETURN_IF_ERROR(Expression(item.get(), symbols, lenient));
        }
        return absl::OkStatus();
      case StatementKind::kSet: {
        auto& set = As<SetStatement>(statement);
        JINJA_RETURN_IF_ERROR(Expression(set.value.get(), symbols, lenient));
        return Target(*set.target, symbols);
      }
      case StatementKind::kSetBlock:
        return SetBlock(As<SetBlockStatement>(statement), symbols);
      case StatementKind::kIf:
        return If(As<IfStatement>(statement), symbols);
      case StatementKind::kFor:
        return For(As<ForStatement>(statement), symbols, lenient);
      case StatementKind::kMacro: {
        auto& macro = As<MacroStatement>(statement);
        macro.ref = symbols.Ref(macro.name);
        return Function(macro.function, macro.line, symbols);
      }
      case StatementKind::kCallBlock: {
        auto& call = As<CallBlockStatement>(statement);
        JINJA_RETURN_IF_ERROR(Function(call.function, call.line, symbols));
        return Expression(call.call.get(), symbols, lenient);
      }
      case StatementKind::kGeneration:
        return Function(As<GenerationStatement>(statement).function, statement.line, symbols);
      case StatementKind::kFilterBlock:
        return FilterBlock(As<FilterBlockStatement>(statement), symbols);
      case StatementKind::kWith:
        return With(As<WithStatement>(statement), symbols, lenient);
      case StatementKind::kBreak:
      case StatementKind::kContinue:
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  absl::Status SetBlock(SetBlockStatement& set, Symbols& symbols) {
    Symbols inner(&symbols, &symbols.function());
    Analyzer(inner).Statements(set.body);
    JINJA_RETURN_IF_ERROR(Statements(set.body, inner, false));
    absl::Status known;
    WalkNames(set.filter.get(), [&](const std::string& name) {
      if (!inner.Knows(name)) {
        known =
            SyntaxError(set.line, StrCat("Tried to resolve a name to a reference that was unknown "
                                         "to the frame ('",
                                         name, "')"));
      }
    });
    JINJA_RETURN_IF_ERROR(known);
    JINJA_RETURN_IF_ERROR(Expression(set.filter.get(), inner, false));
    set.scope = inner.TakeScope();
    return Target(*set.target, symbols);
  }

  absl::Status If(IfStatement& node, Symbols& symbols) {
    for (auto& [condition, body] : node.branches) {
      JINJA_RETURN_IF_ERROR(Expression(condition.get(), symbols, true));
      JINJA_RETURN_IF_ERROR(Statements(body, symbols, true));
    }
    return Statements(node.otherwise, symbols, true);
  }

  absl::Status For(ForStatement& node, Symbols& symbols, bool lenient) {
    JINJA_RETURN_IF_ERROR(Expression(node.iterable.get(), symbols, lenient));
    ++loops_;
    FunctionContext own{symbols.function().depth + 1, 0};
    FunctionContext* const function = node.recursive ? &own : &symbols.function();
    Symbols body(&symbols, function);
    node.loop_slot = body.Declare("loop");
    Analyzer body_analyzer(body);
    body_analyzer.DeclareTarget(*node.target);
    body_analyzer.Statements(node.body);
    JINJA_RETURN_IF_ERROR(Target(*node.target, body));
    JINJA_RETURN_IF_ERROR(Statements(node.body, body, false));
    node.body_scope = body.TakeScope();
    if (node.filter != nullptr) {
      Symbols filter(&symbols, function);
      Analyzer filter_analyzer(filter);
      filter_analyzer.DeclareTarget(*node.filter_target);
      filter_analyzer.Loads(node.filter.get());
      JINJA_RETURN_IF_ERROR(Target(*node.filter_target, filter));
      JINJA_RETURN_IF_ERROR(Expression(node.filter.get(), filter, false));
      node.filter_scope = filter.TakeScope();
    }
    Symbols otherwise(&symbols, function);
    Analyzer(otherwise).Statements(node.otherwise);
    JINJA_RETURN_IF_ERROR(Statements(node.otherwise, otherwise, false));
    node.otherwise_scope = otherwise.TakeScope();
    node.slot_count = own.slot_count;
    --loops_;
    return absl::OkStatus();
  }

  absl::Status FilterBlock(FilterBlockStatement& block, Symbols& symbols) {
    Symbols inner(&symbols, &symbols.function());
    Analyzer analyzer(inner);
    analyzer.Statements(block.body);
    analyzer.Loads(block.filter.get());
    JINJA_RETURN_IF_ERROR(Statements(block.body, inner, false));
    JINJA_RETURN_IF_ERROR(Expression(block.filter.get(), inner, false));
    block.scope = inner.TakeScope();
    return absl::OkStatus();
  }

  absl::Status With(WithStatement& with, Symbols& symbols, bool lenient) {
    Symbols inner(&symbols, &symbols.function());
    Analyzer analyzer(inner);
    for (const auto& [target, value] : with.assignments) analyzer.DeclareTarget(*target);
    analyzer.Statements(with.body);
    for (const auto& [target, value] : with.assignments) {
      JINJA_RETURN_IF_ERROR(Target(*target, inner));
      JINJA_RETURN_IF_ERROR(Expression(value.get(), symbols, lenient));
    }
    JINJA_RETURN_IF_ERROR(Statements(with.body, inner, false));
    with.scope = inner.TakeScope();
    return absl::OkStatus();
  }

  absl::Status Function(FunctionBody& function, int line, Symbols& symbols) {
    FunctionContext context{symbols.function().depth + 1, 0};
    Symbols inner(&symbols, &context);
    std::set<std::string> special = {"caller", "kwargs", "varargs"};
    for (MacroParameter& parameter : function.parameters) {
      parameter.slot = inner.Declare(parameter.name);
    }
    const std::set<std::string> used = FindUndeclared(function.body, special);
    for (const MacroParameter& parameter : function.parameters) {
      if (parameter.name == "caller" && parameter.default_value == nullptr &&
          used.contains("caller")) {
        return SyntaxError(line, "the special \"caller\" argument needs a default");
      }
      special.erase(parameter.name);
    }
    const auto slot_of = [&](const std::string& name) {
      return special.contains(name) && used.contains(name) ? inner.Declare(name) : -1;
    };
    function.caller_slot = slot_of("caller");
    function.kwargs_slot = slot_of("kwargs");
    function.varargs_slot = slot_of("varargs");
    Analyzer analyzer(inner);
    for (const MacroParameter& parameter : function.parameters) {
      analyzer.Loads(parameter.default_value.get());
    }
    analyzer.Statements(function.body);
    for (const MacroParameter& parameter : function.parameters) {
      JINJA_RETURN_IF_ERROR(Expression(parameter.default_value.get(), inner, false));
    }
    JINJA_RETURN_IF_ERROR(Statements(function.body, inner, false));
    function.scope = inner.TakeScope();
    function.slot_count = context.slot_count;
    return absl::OkStatus();
  }

  int loops_ = 0;  // loops around, those outside the current function included
};

}  // namespace

absl::Status ResolveNames(TemplateAst& ast) { return Binder().Root(ast.root); }

}  // namespace fairlead::jinja
