// SPDX-License-Identifier: Apache-2.0
// Expressions, loosest binding first: conditional, or, and, not, comparison, + -, ~, * / // %, **,
// unary, postfix, filters and tests.
#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "kernels/strings.h"
#include "models/jinja/parser_state.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {

bool TokenStream::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Take();
  return true;
}

bool TokenStream::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Take();
  return true;
}

absl::Status TokenStream::Unexpected(std::string_view expected) const {
  if (current().kind == TokenKind::kEnd) {
    return SyntaxError(current().line,
                       StrCat("unexpected end of template, expected '", expected, "'"));
  }
  return SyntaxError(current().line,
                     StrCat("expected token '", expected, "', got '", Describe(current()), "'"));
}

absl::Status TokenStream::ExpectOperator(std::string_view text) {
  return SkipOperator(text) ? absl::OkStatus() : Unexpected(text);
}

absl::Status TokenStream::ExpectName(std::string_view text) {
  return SkipName(text) ? absl::OkStatus() : Unexpected(text);
}

absl::Status TokenStream::Expect(TokenKind kind) {
  if (current().kind != kind) {
    Token wanted;
    wanted.kind = kind;
    return Unexpected(Describe(wanted));
  }
  Take();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TokenStream::TakeName() {
  if (current().kind != TokenKind::kName) return Unexpected("name");
  return Take().text;
}

absl::StatusOr<ExprPtr> ExpressionParser::FinishAll(ExprPtr node, int tallest_child) {
  node->height = tallest_child + 1;
  if (node->height > max_height_) {
    return SyntaxError(node->line, StrCat("an expression of more than ", max_height_, " levels"));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Finish(ExprPtr node,
                                                 std::initializer_list<const Expr*> children) {
  int tallest = 0;
  for (const Expr* child : children) {
    if (child != nullptr) tallest = std::max(tallest, child->height);
  }
  return FinishAll(std::move(node), tallest);
}

absl::Status ExpressionParser::Enter() {
  if (++depth_ <= max_depth_) return absl::OkStatus();
  return SyntaxError(stream_.current().line,
                     StrCat("expressions nest deeper than ", max_depth_, " levels"));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseExpression(bool with_conditional) {
  const absl::Cleanup leave = [this] { --depth_; };
  JINJA_RETURN_IF_ERROR(Enter());
  return with_conditional ? ParseConditional() : ParseOr();
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConditional() {
  const int line = stream_.current().line;
  JINJA_ASSIGN_OR_RETURN(ExprPtr then, ParseOr());
  while (stream_.SkipName("if")) {
    auto node = std::make_unique<ConditionalExpr>(line);
    node->then = std::move(then);
    JINJA_ASSIGN_OR_RETURN(node->condition, ParseOr());
    if (stream_.SkipName("else")) {
      // A chain of conditionals nests to the right: each is a level.
      JINJA_ASSIGN_OR_RETURN(node->otherwise, ParseExpression());
    }
    const std::initializer_list<const Expr*> children = {node->then.get(), node->condition.get(),
                                                         node->otherwise.get()};
    JINJA_ASSIGN_OR_RETURN(then, Finish(std::move(node), children));
  }
  return then;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr first, ParseAnd());
  if (!stream_.IsName("or")) return first;
  auto node = std::make_unique<SequenceExpr>(ExprKind::kOr, first->line);
  int tallest = first->height;
  node->items.push_back(std::move(first));
  while (stream_.SkipName("or")) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr next, ParseAnd());
    tallest = std::max(tallest, next->height);
    node->items.push_back(std::move(next));
  }
  return FinishAll(std::move(node), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr first, ParseNot());
  if (!stream_.IsName("and")) return first;
  auto node = std::make_unique<SequenceExpr>(ExprKind::kAnd, first->line);
  int tallest = first->height;
  node->items.push_back(std::move(first));
  while (stream_.SkipName("and")) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr next, ParseNot());
    tallest = std::max(tallest, next->height);
    node->items.push_back(std::move(next));
  }
  return FinishAll(std::move(node), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  // Of n `not`s one or two remain: the first makes a bool, the others flip it.
  int count = 0;
  const int line = stream_.current().line;
  while (stream_.SkipName("not")) ++count;
  JINJA_ASSIGN_OR_RETURN(ExprPtr operand, ParseCompare());
  for (int i = count == 0 ? 0 : 2 - count % 2; i > 0; --i) {
    auto node = std::make_unique<UnaryExpr>(ExprKind::kNot, line);
    node->operand = std::move(operand);
    const std::initializer_list<const Expr*> children = {node->operand.get()};
    JINJA_ASSIGN_OR_RETURN(operand, Finish(std::move(node), children));
  }
  return operand;
}

absl::StatusOr<CompareOperator> ExpressionParser::TakeCompareOperator(bool& found) {
  static constexpr std::pair<std::string_view, CompareOperator> kNames[] = {
      {"==", CompareOperator::kEq}, {"!=", CompareOperator::kNe}, {"<", CompareOperator::kLt},
      {"<=", CompareOperator::kLe}, {">", CompareOperator::kGt},  {">=", CompareOperator::kGe}};
  found = true;
  for (const auto& [text, op] : kNames) {
    if (stream_.SkipOperator(text)) return op;
  }
  if (stream_.SkipName("in")) return CompareOperator::kIn;
  if (stream_.IsName("not") && TokenStream::Is(stream_.next(), TokenKind::kName, "in")) {
    stream_.Take();
    stream_.Take();
    return CompareOperator::kNotIn;
  }
  found = false;
  return CompareOperator::kEq;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCompare() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr first, ParseSum());
  std::unique_ptr<CompareExpr> node;
  int tallest = first->height;
  while (true) {
    bool found = false;
    JINJA_ASSIGN_OR_RETURN(const CompareOperator op, TakeCompareOperator(found));
    if (!found) break;
    if (node == nullptr) {
      node = std::make_unique<CompareExpr>(first->line);
      node->first = std::move(first);
    }
    JINJA_ASSIGN_OR_RETURN(ExprPtr next, ParseSum());
    tallest = std::max(tallest, next->height);
    node->rest.emplace_back(op, std::move(next));
  }
  if (node == nullptr) return first;
  return FinishAll(std::move(node), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr left, ParseConcat());
  while (stream_.IsOperator("+") || stream_.IsOperator("-")) {
    const BinaryOperator op =
        stream_.Take().text == "+" ? BinaryOperator::kAdd : BinaryOperator::kSubtract;
    auto node = std::make_unique<BinaryExpr>(op, left->line);
    node->left = std::move(left);
    JINJA_ASSIGN_OR_RETURN(node->right, ParseConcat());
    const std::initializer_list<const Expr*> children = {node->left.get(), node->right.get()};
    JINJA_ASSIGN_OR_RETURN(left, Finish(std::move(node), children));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConcat() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr first, ParseProduct());
  if (!stream_.IsOperator("~")) return first;
  auto node = std::make_unique<SequenceExpr>(ExprKind::kConcat, first->line);
  int tallest = first->height;
  node->items.push_back(std::move(first));
  while (stream_.SkipOperator("~")) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr next, ParseProduct());
    tallest = std::max(tallest, next->height);
    node->items.push_back(std::move(next));
  }
  return FinishAll(std::move(node), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  static constexpr std::pair<std::string_view, BinaryOperator> kNames[] = {
      {"*", BinaryOperator::kMultiply},
      {"/", BinaryOperator::kDivide},
      {"//", BinaryOperator::kFloorDivide},
      {"%", BinaryOperator::kModulo}};
  JINJA_ASSIGN_OR_RETURN(ExprPtr left, ParsePower());
  while (true) {
    const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                     [this](const auto& n) { return stream_.IsOperator(n.first); });
    if (found == std::end(kNames)) return left;
    stream_.Take();
    auto node = std::make_unique<BinaryExpr>(found->second, left->line);
    node->left = std::move(left);
    JINJA_ASSIGN_OR_RETURN(node->right, ParsePower());
    const std::initializer_list<const Expr*> children = {node->left.get(), node->right.get()};
    JINJA_ASSIGN_OR_RETURN(left, Finish(std::move(node), children));
  }
}

// Jinja's ** binds to the left, and its operands are unary expressions.
absl::StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  JINJA_ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(/*with_filters=*/true));
  while (stream_.SkipOperator("**")) {
    auto node = std::make_unique<BinaryExpr>(BinaryOperator::kPower, left->line);
    node->left = std::move(left);
    JINJA_ASSIGN_OR_RETURN(node->right, ParseUnary(/*with_filters=*/true));
    const std::initializer_list<const Expr*> children = {node->left.get(), node->right.get()};
    JINJA_ASSIGN_OR_RETURN(left, Finish(std::move(node), children));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExprPtr node;
  if (stream_.IsOperator("-") || stream_.IsOperator("+")) {
    const Token& sign = stream_.Take();
    auto unary = std::make_unique<UnaryExpr>(
        sign.text == "-" ? ExprKind::kNegative : ExprKind::kPositive, sign.line);
    const absl::Cleanup leave = [this] { --depth_; };
    JINJA_RETURN_IF_ERROR(Enter());
    JINJA_ASSIGN_OR_RETURN(unary->operand, ParseUnary(/*with_filters=*/false));
    const std::initializer_list<const Expr*> children = {unary->operand.get()};
    JINJA_ASSIGN_OR_RETURN(node, Finish(std::move(unary), children));
  } else {
    JINJA_ASSIGN_OR_RETURN(node, ParsePrimary(/*with_namespace=*/false));
  }
  JINJA_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (with_filters) return ParseFiltersAndTests(std::move(node));
  return node;
}

}  // namespace fairlead::jinja
