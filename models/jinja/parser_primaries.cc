// SPDX-License-Identifier: Apache-2.0
// Literals, names, brackets, and what follows them: attributes, subscripts, calls, filters, tests.
#include <algorithm>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/parser_state.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

int TallestOf(const CallArguments& arguments) {
  int tallest = 0;
  const auto see = [&tallest](const ExprPtr& node) {
    if (node != nullptr) tallest = std::max(tallest, node->height);
  };
  for (const ExprPtr& argument : arguments.positional) see(argument);
  for (const auto& [name, argument] : arguments.named) see(argument);
  see(arguments.star);
  see(arguments.double_star);
  return tallest;
}

Value TrustedConstant(std::string text) { return NewString(Text(std::move(text), true)); }

bool IsAssignable(const Expr& target) {
  if (target.kind != ExprKind::kTuple) {
    return target.kind == ExprKind::kName || target.kind == ExprKind::kNamespaceRef;
  }
  const auto& items = static_cast<const SequenceExpr&>(target).items;
  return std::all_of(items.begin(), items.end(),
                     [](const ExprPtr& item) { return IsAssignable(*item); });
}

}  // namespace

bool ExpressionParser::AtTupleEnd() const {
  const TokenKind kind = stream_.current().kind;
  return kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || stream_.IsOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTuple(const TupleOptions& options) {
  const int line = stream_.current().line;
  auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, line);
  bool is_tuple = false;
  int tallest = 0;
  while (true) {
    if (!tuple->items.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    if (AtTupleEnd()) break;
    JINJA_ASSIGN_OR_RETURN(ExprPtr item, ParseExpression(options.with_conditional));
    tallest = std::max(tallest, item->height);
    tuple->items.push_back(std::move(item));
    if (!stream_.IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->items.empty()) return std::move(tuple->items.front());
    if (!options.parenthesised) {
      return SyntaxError(line,
                         StrCat("Expected an expression, got '", Describe(stream_.current()), "'"));
    }
  }
  return FinishAll(std::move(tuple), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTarget(bool with_namespace) {
  const int line = stream_.current().line;
  auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->items.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    if (AtTupleEnd()) break;
    JINJA_ASSIGN_OR_RETURN(ExprPtr item, ParsePrimary(with_namespace));
    if (!IsAssignable(*item)) return SyntaxError(line, "can't assign to that");
    tuple->items.push_back(std::move(item));
    if (!stream_.IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple->items.empty()) return std::move(tuple->items.front());
  if (tuple->items.empty()) return stream_.Unexpected("name");
  return tuple;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNamePrimary(bool with_namespace) {
  const Token& token = stream_.Take();
  const int line = token.line;
  const std::string& name = token.text;
  if (name == "true" || name == "True") return std::make_unique<ConstExpr>(Value(true), line);
  if (name == "false" || name == "False") return std::make_unique<ConstExpr>(Value(false), line);
  if (name == "none" || name == "None") return std::make_unique<ConstExpr>(Value(), line);
  if (with_namespace && stream_.SkipOperator(".")) {
    JINJA_ASSIGN_OR_RETURN(std::string attribute, stream_.TakeName());
    return std::make_unique<NamespaceRefExpr>(name, std::move(attribute), line);
  }
  return std::make_unique<NameExpr>(name, line);
}

// Adjacent string literals are one.
absl::StatusOr<ExprPtr> ExpressionParser::ParseStrings() {
  const int line = stream_.current().line;
  std::string text;
  while (stream_.current().kind == TokenKind::kString) text += stream_.Take().text;
  return std::make_unique<ConstExpr>(TrustedConstant(std::move(text)), line);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePrimary(bool with_namespace) {
  const Token& token = stream_.current();
  switch (token.kind) {
    case TokenKind::kName:
      return ParseNamePrimary(with_namespace);
    case TokenKind::kString:
      return ParseStrings();
    case TokenKind::kInteger:
      stream_.Take();
      return std::make_unique<ConstExpr>(Value(token.integer), token.line);
    case TokenKind::kFloat:
      stream_.Take();
      return std::make_unique<ConstExpr>(Value(token.real), token.line);
    default:
      break;
  }
  if (stream_.SkipOperator("(")) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr inner, ParseTuple({true, true}));
    JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(")"));
    return inner;
  }
  if (stream_.IsOperator("[")) return ParseList();
  if (stream_.IsOperator("{")) return ParseDict();
  return SyntaxError(token.line, StrCat("unexpected '", Describe(token), "'"));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseList() {
  auto list = std::make_unique<SequenceExpr>(ExprKind::kList, stream_.Take().line);
  int tallest = 0;
  while (!stream_.IsOperator("]")) {
    if (!list->items.empty()) {
      JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.IsOperator("]")) break;
    }
    JINJA_ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    tallest = std::max(tallest, item->height);
    list->items.push_back(std::move(item));
  }
  stream_.Take();
  return FinishAll(std::move(list), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseDict() {
  auto dict = std::make_unique<DictExpr>(stream_.Take().line);
  int tallest = 0;
  while (!stream_.IsOperator("}")) {
    if (!dict->items.empty()) {
      JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.IsOperator("}")) break;
    }
    JINJA_ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(":"));
    JINJA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    tallest = std::max({tallest, key->height, value->height});
    dict->items.emplace_back(std::move(key), std::move(value));
  }
  stream_.Take();
  return FinishAll(std::move(dict), tallest);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (stream_.IsOperator(".") || stream_.IsOperator("[")) {
      JINJA_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (stream_.IsOperator("(")) {
      JINJA_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFiltersAndTests(ExprPtr node) {
  while (true) {
    if (stream_.IsOperator("|")) {
      JINJA_ASSIGN_OR_RETURN(node, ParseFilters(std::move(node), /*inside_tag=*/false));
    } else if (stream_.IsName("is")) {
      JINJA_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (stream_.IsOperator("(")) {
      JINJA_ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr node) {
  const Token& opening = stream_.Take();
  const int height = node->height;
  if (opening.text == ".") {
    const Token& attribute = stream_.Take();
    if (attribute.kind == TokenKind::kName) {
      auto access = std::make_unique<AttributeExpr>(attribute.text, opening.line);
      access->object = std::move(node);
      access->name_value = TrustedConstant(attribute.text);
      return FinishAll(std::move(access), height);
    }
    if (attribute.kind != TokenKind::kInteger) {
      return SyntaxError(attribute.line, "expected name or number");
    }
    auto access = std::make_unique<SubscriptExpr>(opening.line);
    access->object = std::move(node);
    access->index = std::make_unique<ConstExpr>(Value(attribute.integer), attribute.line);
    return FinishAll(std::move(access), height);
  }
  auto access = std::make_unique<SubscriptExpr>(opening.line);
  access->object = std::move(node);
  auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, opening.line);
  int tallest = 0;
  while (!stream_.IsOperator("]")) {
    if (!tuple->items.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
    JINJA_ASSIGN_OR_RETURN(ExprPtr index, ParseSubscribed());
    tallest = std::max(tallest, index->height);
    tuple->items.push_back(std::move(index));
  }
  stream_.Take();
  if (tuple->items.size() == 1) {
    access->index = std::move(tuple->items.front());
  } else {
    JINJA_ASSIGN_OR_RETURN(access->index, FinishAll(std::move(tuple), tallest));
    tallest = access->index->height;
  }
  return FinishAll(std::move(access), std::max(height, tallest));
}

// An index or a slice.
absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscribed() {
  auto slice = std::make_unique<SliceExpr>(stream_.current().line);
  if (!stream_.SkipOperator(":")) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr start, ParseExpression());
    if (!stream_.SkipOperator(":")) return start;
    slice->start = std::move(start);
  }
  const auto at_end = [this] {
    return stream_.IsOperator(":") || stream_.IsOperator("]") || stream_.IsOperator(",");
  };
  if (!at_end()) {
    JINJA_ASSIGN_OR_RETURN(slice->stop, ParseExpression());
  }
  if (stream_.SkipOperator(":") && !at_end()) {
    JINJA_ASSIGN_OR_RETURN(slice->step, ParseExpression());
  }
  const std::initializer_list<const Expr*> children = {slice->start.get(), slice->stop.get(),
                                                       slice->step.get()};
  return Finish(std::move(slice), children);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCall(ExprPtr node) {
  auto call = std::make_unique<CallExpr>(stream_.current().line);
  JINJA_RETURN_IF_ERROR(ParseArguments(call->arguments));
  const int tallest = std::max(node->height, TallestOf(call->arguments));
  call->callee = std::move(node);
  return FinishAll(std::move(call), tallest);
}

absl::Status ExpressionParser::ParseArguments(CallArguments& arguments) {
  JINJA_RETURN_IF_ERROR(stream_.ExpectOperator("("));
  bool first = true;
  while (!stream_.IsOperator(")")) {
    if (!first) {
      JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      if (stream_.IsOperator(")")) break;
    }
    first = false;
    JINJA_RETURN_IF_ERROR(ParseArgument(arguments));
  }
  stream_.Take();
  return absl::OkStatus();
}

absl::Status ExpressionParser::ParseArgument(CallArguments& arguments) {
  const int line = stream_.current().line;
  const auto invalid = [line] {
    return SyntaxError(line, "invalid syntax for function call expression");
  };
  if (stream_.SkipOperator("*")) {
    if (arguments.star != nullptr || arguments.double_star != nullptr) return invalid();
    JINJA_ASSIGN_OR_RETURN(arguments.star, ParseExpression());
    return absl::OkStatus();
  }
  if (stream_.SkipOperator("**")) {
    if (arguments.double_star != nullptr) return invalid();
    JINJA_ASSIGN_OR_RETURN(arguments.double_star, ParseExpression());
    return absl::OkStatus();
  }
  if (stream_.current().kind == TokenKind::kName &&
      TokenStream::Is(stream_.next(), TokenKind::kOperator, "=")) {
    if (arguments.double_star != nullptr) return invalid();
    std::string name = stream_.Take().text;
    stream_.Take();
    if (arguments.named.size() >= kMostParameters) {
      return SyntaxError(line, "too many keyword arguments");
    }
    for (const auto& [other, value] : arguments.named) {
      if (other == name) {
        return SyntaxError(line, StrCat("keyword argument repeated: ", name));
      }
    }
    JINJA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    arguments.named.emplace_back(std::move(name), std::move(value));
    return absl::OkStatus();
  }
  if (arguments.star != nullptr || arguments.double_star != nullptr || !arguments.named.empty()) {
    return invalid();
  }
  JINJA_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
  arguments.positional.push_back(std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpressionParser::ParseDottedName() {
  JINJA_ASSIGN_OR_RETURN(std::string name, stream_.TakeName());
  while (stream_.SkipOperator(".")) {
    JINJA_ASSIGN_OR_RETURN(const std::string part, stream_.TakeName());
    StrAppend(&name, ".", part);
  }
  return name;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilters(ExprPtr input, bool inside_tag) {
  while (inside_tag || stream_.IsOperator("|")) {
    if (!inside_tag) stream_.Take();
    inside_tag = false;
    auto filter = std::make_unique<FilterExpr>(stream_.current().line);
    JINJA_ASSIGN_OR_RETURN(filter->name, ParseDottedName());
    filter->function = FindFilter(filter->name);
    if (stream_.IsOperator("(")) JINJA_RETURN_IF_ERROR(ParseArguments(filter->arguments));
    const int tallest =
        std::max(input == nullptr ? 0 : input->height, TallestOf(filter->arguments));
    filter->input = std::move(input);
    JINJA_ASSIGN_OR_RETURN(input, FinishAll(std::move(filter), tallest));
  }
  return input;
}

absl::Status ExpressionParser::ParseTestArguments(CallArguments& arguments) {
  if (stream_.IsOperator("(")) return ParseArguments(arguments);
  const Token& token = stream_.current();
  const bool starts_operand = token.kind == TokenKind::kName || token.kind == TokenKind::kString ||
                              token.kind == TokenKind::kInteger ||
                              token.kind == TokenKind::kFloat || stream_.IsOperator("[") ||
                              stream_.IsOperator("{");
  if (!starts_operand || stream_.IsName("else") || stream_.IsName("or") || stream_.IsName("and")) {
    return absl::OkStatus();
  }
  if (stream_.IsName("is")) {
    return SyntaxError(token.line, "You cannot chain multiple tests with is");
  }
  JINJA_ASSIGN_OR_RETURN(ExprPtr argument, ParsePrimary(/*with_namespace=*/false));
  JINJA_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
  arguments.positional.push_back(std::move(argument));
  return absl::OkStatus();
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr node) {
  auto test = std::make_unique<TestExpr>(stream_.Take().line);
  const int line = test->line;
  const bool negated = stream_.SkipName("not");
  JINJA_ASSIGN_OR_RETURN(test->name, ParseDottedName());
  test->function = FindTest(test->name);
  JINJA_RETURN_IF_ERROR(ParseTestArguments(test->arguments));
  const int tallest = std::max(node->height, TallestOf(test->arguments));
  test->input = std::move(node);
  JINJA_ASSIGN_OR_RETURN(ExprPtr result, FinishAll(std::move(test), tallest));
  if (!negated) return result;
  auto inverse = std::make_unique<UnaryExpr>(ExprKind::kNot, line);
  const int height = result->height;
  inverse->operand = std::move(result);
  return FinishAll(std::move(inverse), height);
}

}  // namespace fairlead::jinja
