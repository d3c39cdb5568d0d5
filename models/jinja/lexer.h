// SPDX-License-Identifier: Apache-2.0
// Template source to tokens, by jinja2's rules with trim_blocks and lstrip_blocks on: comments and
// whitespace control are gone, raw blocks are data, string literals are unescaped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/jinja/value.h"

namespace fairlead::jinja {

enum class TokenKind {
  kData,           // text between tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  // text is the operator
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // data, name, unescaped string, operator
  Int integer = 0;
  double real = 0;
};

// `source` is valid UTF-8. The last token is kEnd. Errors name the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// What to call a token in a message.
std::string Describe(const Token& token);

absl::Status SyntaxError(int line, std::string_view message);

}  // namespace fairlead::jinja
