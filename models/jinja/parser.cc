// SPDX-License-Identifier: Apache-2.0
// Statements.
#include "models/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "kernels/strings.h"
#include "models/jinja/lexer.h"
#include "models/jinja/parser_state.h"
#include "models/jinja/resolver.h"
#include "models/jinja/status_macros.h"

namespace fairlead::jinja {
namespace {

class StatementParser {
 public:
  StatementParser(TokenStream& stream, int max_depth)
      : stream_(stream), expressions_(stream, max_depth), max_depth_(max_depth) {}

  absl::StatusOr<std::unique_ptr<TemplateAst>> ParseAll() {
    auto ast = std::make_unique<TemplateAst>();
    JINJA_ASSIGN_OR_RETURN(ast->root.body, ParseBody({}));
    return ast;
  }

 private:
  using EndTags = std::initializer_list<std::string_view>;
  using StatementPtr = std::unique_ptr<Statement>;

  bool AtAny(EndTags tags) const {
    return std::any_of(tags.begin(), tags.end(),
                       [this](std::string_view tag) { return stream_.IsName(tag); });
  }

  // Statements up to one of `ends` (left in the stream, after its `{%`), or to the end of the
  // template when there are none.
  absl::StatusOr<Block> ParseBody(EndTags ends) {
    const absl::Cleanup leave = [this] { --depth_; };
    if (++depth_ > max_depth_) {
      return SyntaxError(stream_.current().line,
                         StrCat("tags nest deeper than ", max_depth_, " levels"));
    }
    Block body;
    while (true) {
      const Token& token = stream_.current();
      switch (token.kind) {
        case TokenKind::kEnd:
          if (ends.size() == 0) return body;
          return SyntaxError(token.line, StrCat("Unexpected end of template. Jinja was "
                                                "looking for '",
                                                *ends.begin(), "'."));
        case TokenKind::kData:
        case TokenKind::kVariableBegin: {
          JINJA_ASSIGN_OR_RETURN(StatementPtr output, ParseOutput());
          body.push_back(std::move(output));
          break;
        }
        default: {
          JINJA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kBlockBegin));
          if (AtAny(ends)) return body;
          JINJA_ASSIGN_OR_RETURN(StatementPtr statement, ParseStatement());
          body.push_back(std::move(statement));
          JINJA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kBlockEnd));
        }
      }
    }
  }

  // The body of a tag: the rest of the tag, then statements up to one of `ends`, whose name is
  // taken.
  absl::StatusOr<Block> ParseTagBody(EndTags ends, std::string* end = nullptr) {
    stream_.SkipOperator(":");
    JINJA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kBlockEnd));
    JINJA_ASSIGN_OR_RETURN(Block body, ParseBody(ends));
    const Token& token = stream_.Take();
    if (end != nullptr) *end = token.text;
    return body;
  }

  absl::StatusOr<StatementPtr> ParseOutput() {
    auto output = std::make_unique<OutputStatement>(stream_.current().line);
    while (true) {
      const Token& token = stream_.current();
      if (token.kind == TokenKind::kData) {
        output->items.push_back(
            std::make_unique<ConstExpr>(NewString(Text(stream_.Take().text, true)), token.line));
      } else if (token.kind == TokenKind::kVariableBegin) {
        stream_.Take();
        JINJA_ASSIGN_OR_RETURN(ExprPtr item, expressions_.ParseTuple({}));
        output->items.push_back(std::move(item));
        JINJA_RETURN_IF_ERROR(stream_.Expect(TokenKind::kVariableEnd));
      } else {
        return output;
      }
    }
  }

  absl::StatusOr<StatementPtr> ParseStatement() {
    if (stream_.current().kind != TokenKind::kName) {
      return SyntaxError(stream_.current().line, "tag name expected");
    }
    static constexpr std::pair<std::string_view,
                               absl::StatusOr<StatementPtr> (StatementParser::*)(int)>
        kTags[] = {{"set", &StatementParser::ParseSet},
                   {"if", &StatementParser::ParseIf},
                   {"for", &StatementParser::ParseFor},
                   {"macro", &StatementParser::ParseMacro},
                   {"call", &StatementParser::ParseCallBlock},
                   {"filter", &StatementParser::ParseFilterBlock},
                   {"with", &StatementParser::ParseWith},
                   {"print", &StatementParser::ParsePrint},
                   {"generation", &StatementParser::ParseGeneration},
                   {"break", &StatementParser::ParseBreak},
                   {"continue", &StatementParser::ParseContinue}};
    const Token& tag = stream_.Take();
    for (const auto& [name, parse] : kTags) {
      if (tag.text == name) return (this->*parse)(tag.line);
    }
    for (const std::string_view name :
         {"block", "extends", "include", "import", "from", "autoescape"}) {
      if (tag.text == name) {
        return SyntaxError(tag.line, StrCat("the tag '", name, "' is not supported"));
      }
    }
    return SyntaxError(tag.line, StrCat("Encountered unknown tag '", tag.text, "'."));
  }

  absl::StatusOr<StatementPtr> ParseSet(int line) {
    JINJA_ASSIGN_OR_RETURN(ExprPtr target, expressions_.ParseTarget(/*with_namespace=*/true));
    if (stream_.SkipOperator("=")) {
      auto set = std::make_unique<SetStatement>(line);
      set->target = std::move(target);
      JINJA_ASSIGN_OR_RETURN(set->value, expressions_.ParseTuple({}));
      return set;
    }
    auto set = std::make_unique<SetBlockStatement>(line);
    set->target = std::move(target);
    JINJA_ASSIGN_OR_RETURN(set->filter, expressions_.ParseFilters(nullptr, /*inside_tag=*/false));
    JINJA_ASSIGN_OR_RETURN(set->body, ParseTagBody({"endset"}));
    return set;
  }

  absl::StatusOr<StatementPtr> ParseIf(int line) {
    auto node = std::make_unique<IfStatement>(line);
    std::string end;
    do {
      JINJA_ASSIGN_OR_RETURN(ExprPtr condition, expressions_.ParseTuple({false, false}));
      JINJA_ASSIGN_OR_RETURN(Block body, ParseTagBody({"elif", "else", "endif"}, &end));
      node->branches.emplace_back(std::move(condition), std::move(body));
    } while (end == "elif");
    if (end == "else") {
      JINJA_ASSIGN_OR_RETURN(node->otherwise, ParseTagBody({"endif"}));
    }
    return node;
  }

  absl::StatusOr<StatementPtr> ParseFor(int line) {
    auto node = std::make_unique<ForStatement>(line);
    const size_t target_begin = stream_.position();
    JINJA_ASSIGN_OR_RETURN(node->target, expressions_.ParseTarget(/*with_namespace=*/false));
    JINJA_RETURN_IF_ERROR(stream_.ExpectName("in"));
    JINJA_ASSIGN_OR_RETURN(node->iterable, expressions_.ParseTuple({false, false}));
    if (stream_.SkipName("if")) {
      JINJA_ASSIGN_OR_RETURN(node->filter, expressions_.ParseExpression());
      // The filter has its own variables: the target is read a second time for them.
      const size_t after_filter = stream_.position();
      stream_.Rewind(target_begin);
      JINJA_ASSIGN_OR_RETURN(node->filter_target,
                             expressions_.ParseTarget(/*with_namespace=*/false));
      stream_.Rewind(after_filter);
    }
    node->recursive = stream_.SkipName("recursive");
    std::string end;
    ++loops_;
    absl::StatusOr<Block> body = ParseTagBody({"endfor", "else"}, &end);
    --loops_;
    if (!body.ok()) return std::move(body).status();
    node->body = *std::move(body);
    if (end == "else") {
      JINJA_ASSIGN_OR_RETURN(node->otherwise, ParseTagBody({"endfor"}));
    }
    return node;
  }

  absl::Status ParseSignature(FunctionBody& function) {
    JINJA_RETURN_IF_ERROR(stream_.ExpectOperator("("));
    while (!stream_.IsOperator(")")) {
      if (!function.parameters.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      const int line = stream_.current().line;
      MacroParameter parameter;
      JINJA_ASSIGN_OR_RETURN(parameter.name, stream_.TakeName());
      if (stream_.SkipOperator("=")) {
        JINJA_ASSIGN_OR_RETURN(parameter.default_value, expressions_.ParseExpression());
      } else if (!function.parameters.empty() &&
                 function.parameters.back().default_value != nullptr) {
        return SyntaxError(line, "non-default argument follows default argument");
      }
      if (function.parameters.size() >= kMostParameters) {
        return SyntaxError(line, "too many parameters");
      }
      for (const MacroParameter& other : function.parameters) {
        if (other.name == parameter.name) {
          return SyntaxError(line, StrCat("duplicate argument '", parameter.name, "'"));
        }
      }
      function.parameters.push_back(std::move(parameter));
    }
    stream_.Take();
    return absl::OkStatus();
  }

  // A body that is a function: loops outside do not reach into it.
  absl::Status ParseFunctionBody(FunctionBody& function, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    absl::StatusOr<Block> body = ParseTagBody({end});
    loops_ = loops;
    if (!body.ok()) return std::move(body).status();
    function.body = *std::move(body);
    return absl::OkStatus();
  }

  absl::StatusOr<StatementPtr> ParseMacro(int line) {
    auto node = std::make_unique<MacroStatement>(line);
    JINJA_ASSIGN_OR_RETURN(node->name, stream_.TakeName());
    JINJA_RETURN_IF_ERROR(ParseSignature(node->function));
    JINJA_RETURN_IF_ERROR(ParseFunctionBody(node->function, "endmacro"));
    return node;
  }

  absl::StatusOr<StatementPtr> ParseCallBlock(int line) {
    auto node = std::make_unique<CallBlockStatement>(line);
    if (stream_.IsOperator("(")) JINJA_RETURN_IF_ERROR(ParseSignature(node->function));
    JINJA_ASSIGN_OR_RETURN(node->call, expressions_.ParseExpression());
    if (node->call->kind != ExprKind::kCall) return SyntaxError(line, "expected call");
    JINJA_RETURN_IF_ERROR(ParseFunctionBody(node->function, "endcall"));
    return node;
  }

  absl::StatusOr<StatementPtr> ParseGeneration(int line) {
    auto node = std::make_unique<GenerationStatement>(line);
    JINJA_RETURN_IF_ERROR(ParseFunctionBody(node->function, "endgeneration"));
    return node;
  }

  absl::StatusOr<StatementPtr> ParseFilterBlock(int line) {
    auto node = std::make_unique<FilterBlockStatement>(line);
    JINJA_ASSIGN_OR_RETURN(node->filter, expressions_.ParseFilters(nullptr, /*inside_tag=*/true));
    JINJA_ASSIGN_OR_RETURN(node->body, ParseTagBody({"endfilter"}));
    return node;
  }

  absl::StatusOr<StatementPtr> ParseWith(int line) {
    auto node = std::make_unique<WithStatement>(line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!node->assignments.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      JINJA_ASSIGN_OR_RETURN(ExprPtr target, expressions_.ParseTarget(/*with_namespace=*/false));
      JINJA_RETURN_IF_ERROR(stream_.ExpectOperator("="));
      JINJA_ASSIGN_OR_RETURN(ExprPtr value, expressions_.ParseExpression());
      node->assignments.emplace_back(std::move(target), std::move(value));
    }
    JINJA_ASSIGN_OR_RETURN(node->body, ParseTagBody({"endwith"}));
    return node;
  }

  absl::StatusOr<StatementPtr> ParsePrint(int line) {
    auto output = std::make_unique<OutputStatement>(line);
    while (stream_.current().kind != TokenKind::kBlockEnd) {
      if (!output->items.empty()) JINJA_RETURN_IF_ERROR(stream_.ExpectOperator(","));
      JINJA_ASSIGN_OR_RETURN(ExprPtr item, expressions_.ParseExpression());
      output->items.push_back(std::move(item));
    }
    return output;
  }

  absl::StatusOr<StatementPtr> ParseLoopControl(StatementKind kind, std::string_view name,
                                                int line) {
    if (loops_ == 0) return SyntaxError(line, StrCat("'", name, "' outside loop"));
    return std::make_unique<LoopControlStatement>(kind, line);
  }
  absl::StatusOr<StatementPtr> ParseBreak(int line) {
    return ParseLoopControl(StatementKind::kBreak, "break", line);
  }
  absl::StatusOr<StatementPtr> ParseContinue(int line) {
    return ParseLoopControl(StatementKind::kContinue, "continue", line);
  }

  TokenStream& stream_;
  ExpressionParser expressions_;
  int max_depth_;
  int depth_ = 0;
  int loops_ = 0;  // loops around the current statement, within its function
};

}  // namespace

absl::StatusOr<std::unique_ptr<TemplateAst>> ParseTemplate(std::string_view source, int max_depth) {
  JINJA_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  TokenStream stream(std::move(tokens));
  JINJA_ASSIGN_OR_RETURN(std::unique_ptr<TemplateAst> ast,
                         StatementParser(stream, max_depth).ParseAll());
  JINJA_RETURN_IF_ERROR(ResolveNames(*ast));
  return ast;
}

}  // namespace fairlead::jinja
