// SPDX-License-Identifier: Apache-2.0
// What the parser's two halves (expressions, statements) share.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/jinja/ast.h"
#include "models/jinja/lexer.h"

namespace fairlead::jinja {

// A cursor over the tokens.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& Take() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  size_t position() const { return at_; }
  void Rewind(size_t position) { at_ = position; }
  bool IsOperator(std::string_view text) const { return Is(current(), TokenKind::kOperator, text); }
  bool IsName(std::string_view text) const { return Is(current(), TokenKind::kName, text); }
  static bool Is(const Token& token, TokenKind kind, std::string_view text) {
    return token.kind == kind && token.text == text;
  }
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  absl::Status ExpectOperator(std::string_view text);
  absl::Status ExpectName(std::string_view text);
  absl::Status Expect(TokenKind kind);
  // The text of a name token.
  absl::StatusOr<std::string> TakeName();
  absl::Status Unexpected(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// Of a macro, or keyword arguments of a call; doubles are looked for among them one by one.
inline constexpr size_t kMostParameters = 1000;

class ExpressionParser {
 public:
  ExpressionParser(TokenStream& stream, int max_depth)
      : stream_(stream), max_depth_(max_depth), max_height_(4 * max_depth) {}

  absl::StatusOr<ExprPtr> ParseExpression(bool with_conditional = true);

  struct TupleOptions {
    bool with_conditional = true;
    bool parenthesised = false;
  };
  absl::StatusOr<ExprPtr> ParseTuple(const TupleOptions& options);
  // The target of an assignment.
  absl::StatusOr<ExprPtr> ParseTarget(bool with_namespace);
  // One or more filters, the first without its `|` when `inside_tag`.
  absl::StatusOr<ExprPtr> ParseFilters(ExprPtr input, bool inside_tag);

 private:
  absl::StatusOr<ExprPtr> ParseConditional();
  absl::StatusOr<ExprPtr> ParseOr();
  absl::StatusOr<ExprPtr> ParseAnd();
  absl::StatusOr<ExprPtr> ParseNot();
  absl::StatusOr<ExprPtr> ParseCompare();
  absl::StatusOr<ExprPtr> ParseSum();
  absl::StatusOr<ExprPtr> ParseConcat();
  absl::StatusOr<ExprPtr> ParseProduct();
  absl::StatusOr<ExprPtr> ParsePower();
  absl::StatusOr<ExprPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExprPtr> ParsePrimary(bool with_namespace);
  absl::StatusOr<ExprPtr> ParseNamePrimary(bool with_namespace);
  absl::StatusOr<ExprPtr> ParseStrings();
  absl::StatusOr<ExprPtr> ParseList();
  absl::StatusOr<ExprPtr> ParseDict();
  absl::StatusOr<ExprPtr> ParsePostfix(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseFiltersAndTests(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseSubscript(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseSubscribed();
  absl::StatusOr<ExprPtr> ParseCall(ExprPtr node);
  absl::Status ParseArguments(CallArguments& arguments);
  absl::Status ParseArgument(CallArguments& arguments);
  absl::StatusOr<ExprPtr> ParseTest(ExprPtr node);
  absl::Status ParseTestArguments(CallArguments& arguments);
  absl::StatusOr<std::string> ParseDottedName();
  absl::StatusOr<CompareOperator> TakeCompareOperator(bool& found);
  bool AtTupleEnd() const;

  // One level of nesting more; whoever calls it goes back one level on every path.
  absl::Status Enter();
  // Sets the height of a finished node from its children's.
  absl::StatusOr<ExprPtr> Finish(ExprPtr node, std::initializer_list<const Expr*> children);
  absl::StatusOr<ExprPtr> FinishAll(ExprPtr node, int tallest_child);

  TokenStream& stream_;
  int max_depth_;
  int max_height_;
  int depth_ = 0;
};

}  // namespace fairlead::jinja
