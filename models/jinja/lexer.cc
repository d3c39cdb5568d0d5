// SPDX-License-Identifier: Apache-2.0
#include "models/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "kernels/strings.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/string_literal.h"
#include "models/jinja/unicode.h"

namespace fairlead::jinja {

absl::Status SyntaxError(int line, std::string_view message) {
  return absl::InvalidArgumentError(StrCat("chat template line ", line, ": ", message));
}

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "template data / text";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableBegin:
      return "begin of print statement";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kString:
      return "string";
    case TokenKind::kInteger:
      return "integer";
    case TokenKind::kFloat:
      return "float";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kName:
    case TokenKind::kOperator:
      return token.text;
  }
  return "";
}

namespace {

// Line ends become \n, and one at the very end is dropped.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool IsNameStart(char32_t c) { return c == '_' || IsAlpha(c); }
bool IsNamePart(char32_t c) { return c == '_' || IsAlnum(c); }

// Longest first within a common beginning.
constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) JINJA_RETURN_IF_ERROR(ReadText());
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(at_); }
  bool At(std::string_view text) const { return Rest().substr(0, text.size()) == text; }

  void Push(TokenKind kind, std::string_view text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::string(text);
    tokens_.push_back(std::move(token));
  }

  void Advance(size_t bytes) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                    source_.begin() + static_cast<ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }

  size_t SpacesFrom(size_t position) const {
    size_t end = position;
    while (end < source_.size()) {
      const DecodedCodePoint c = DecodeAt(source_, end);
      if (!IsSpace(c.value)) break;
      end += c.size;
    }
    return end - position;
  }
  void SkipSpaces() { Advance(SpacesFrom(at_)); }

  // Where the next tag begins, or npos.
  size_t FindTag() const {
    for (size_t i = source_.find('{', at_); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '%' || source_[i + 1] == '{' || source_[i + 1] == '#')) {
        return i;
      }
    }
    return std::string::npos;
  }

  // The text before a tag at `end`, less what `-` or lstrip_blocks takes away.
  std::string_view Stripped(size_t end, char sign, bool is_variable) const {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      while (!text.empty()) {
        const size_t last = PreviousBoundary(text, text.size());
        if (!IsSpace(DecodeAt(text, last).value)) break;
        text = text.substr(0, last);
      }
      return text;
    }
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !line_starting_) return text;
    for (size_t i = line_start; i < text.size();) {
      const DecodedCodePoint c = DecodeAt(text, i);
      if (!IsSpace(c.value)) return text;
      i += c.size;
    }
    return text.substr(0, line_start);
  }

  char SignAt(size_t position) const {
    const char c = position < source_.size() ? source_[position] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  void PushData(std::string_view text) {
    if (!text.empty()) Push(TokenKind::kData, text);
  }

  // Text up to the next tag, and that tag.
  absl::Status ReadText() {
    const size_t tag = FindTag();
    if (tag == std::string::npos) {
      PushData(Rest());
      Advance(source_.size() - at_);
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(tag + 2);
    PushData(Stripped(tag, sign, kind == '{'));
    Advance(tag - at_);
    if (kind == '%') {
      if (const std::optional<size_t> size = RawBegin()) return ReadRaw(*size);
    }
    const size_t size = sign == '\0' ? 2 : 3;
    if (kind == '#') return ReadComment(size);
    Push(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    Advance(size);
    return ReadTag(kind == '%');
  }

  // Whether `word` stands at `position` after optional spaces; the position after it.
  std::optional<size_t> AfterWord(size_t position, std::string_view word) const {
    position += SpacesFrom(position);
    if (source_.compare(position, word.size(), word) != 0) return std::nullopt;
    position += word.size();
    return position + SpacesFrom(position);
  }

  // The size of `{% raw %}` here, spaces after `-%}` included.
  std::optional<size_t> RawBegin() const {
    const size_t start = at_ + (SignAt(at_ + 2) == '\0' ? 2 : 3);
    const std::optional<size_t> end = AfterWord(start, "raw");
    if (!end) return std::nullopt;
    if (source_.compare(*end, 3, "-%}") == 0) return *end + 3 + SpacesFrom(*end + 3) - at_;
    if (source_.compare(*end, 2, "%}") == 0) return *end + 2 - at_;
    return std::nullopt;
  }

  // The size of the end of a block at `position`, or nothing: `%}` takes one newline with it, `-%}`
  // all spaces.
  std::optional<size_t> BlockEnd(size_t position, std::string_view close) const {
    const auto at = [&](size_t p, std::string_view text) {
      return source_.compare(std::min(p, source_.size()), text.size(), text) == 0;
    };
    if (at(position, StrCat("+", close))) return 1 + close.size();
    if (at(position, StrCat("-", close))) {
      return 1 + close.size() + SpacesFrom(position + 1 + close.size());
    }
    if (!at(position, close)) return std::nullopt;
    return close.size() + (at(position + close.size(), "\n") ? 1 : 0);
  }

  absl::Status ReadRaw(size_t begin_size) {
    Advance(begin_size);
    if (at_ == source_.size()) return absl::OkStatus();  // as for comments
    line_starting_ = source_[at_ - 1] == '\n';
    for (size_t i = source_.find("{%", at_); i != std::string::npos;
         i = source_.find("{%", i + 1)) {
      const char sign = SignAt(i + 2);
      const std::optional<size_t> word = AfterWord(i + (sign == '\0' ? 2 : 3), "endraw");
      if (!word) continue;
      const std::optional<size_t> close = BlockEnd(*word, "%}");
      if (!close) continue;
      PushData(Stripped(i, sign, /*is_variable=*/false));
      Advance(*word + *close - at_);
      line_starting_ = source_[at_ - 1] == '\n';
      return absl::OkStatus();
    }
    return SyntaxError(line_, "Missing end of raw directive");
  }

  absl::Status ReadComment(size_t begin_size) {
    Advance(begin_size);
    if (at_ == source_.size()) return absl::OkStatus();  // nothing follows: jinja2 lets it pass
    size_t close = source_.find("#}", at_);
    if (close == std::string::npos) return SyntaxError(line_, "Missing end of comment tag");
    if (close > at_ && (source_[close - 1] == '-' || source_[close - 1] == '+')) --close;
    Advance(close + *BlockEnd(close, "#}") - at_);
    line_starting_ = source_[at_ - 1] == '\n';
    return absl::OkStatus();
  }

  // Tokens up to the end of a block or variable tag.
  absl::Status ReadTag(bool block) {
    std::vector<char> open;
    while (true) {
      if (open.empty() && ReadTagEnd(block)) return absl::OkStatus();
      if (at_ >= source_.size()) return absl::OkStatus();  // the parser reports the missing end
      const DecodedCodePoint c = DecodeAt(source_, at_);
      if (IsSpace(c.value)) {
        SkipSpaces();
      } else if (c.value < 0x80 && absl::ascii_isdigit(static_cast<unsigned char>(c.value))) {
        JINJA_RETURN_IF_ERROR(ReadNumber());
      } else if (IsNameStart(c.value)) {
        ReadName();
      } else if (c.value == '\'' || c.value == '"') {
        JINJA_RETURN_IF_ERROR(ReadString());
      } else {
        JINJA_RETURN_IF_ERROR(ReadOperator(open));
      }
    }
  }

  bool ReadTagEnd(bool block) {
    std::optional<size_t> size;
    if (block) {
      size = BlockEnd(at_, "%}");
    } else if (At("-}}")) {
      size = 3 + SpacesFrom(at_ + 3);
    } else if (At("}}")) {
      size = 2;
    }
    if (!size) return false;
    Push(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
    Advance(*size);
    line_starting_ = source_[at_ - 1] == '\n';
    return true;
  }

  void ReadName() {
    size_t end = at_;
    while (end < source_.size()) {
      const DecodedCodePoint c = DecodeAt(source_, end);
      if (!IsNamePart(c.value)) break;
      end += c.size;
    }
    Push(TokenKind::kName, std::string_view(source_).substr(at_, end - at_));
    at_ = end;
  }

  // Digits of `base` with single underscores between them, from `position` on; the end of them.
  template <typename IsDigitOf>
  size_t DigitsEnd(size_t position, IsDigitOf is_digit) const {
    size_t end = position;
    while (end < source_.size()) {
      const bool underscore = source_[end] == '_' && end > position && end + 1 < source_.size() &&
                              is_digit(source_[end + 1]);
      if (!underscore && !is_digit(source_[end])) break;
      end += 1;
    }
    return end;
  }

  static bool IsDecimalDigit(char c) { return c >= '0' && c <= '9'; }

  // The end of a float literal at at_, or at_ if there is none. After a dot digits are an index.
  size_t FloatEnd() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return at_;
    const size_t whole = DigitsEnd(at_, IsDecimalDigit);
    size_t end = whole;
    if (end < source_.size() && source_[end] == '.') {
      const size_t fraction = DigitsEnd(end + 1, IsDecimalDigit);
      if (fraction > end + 1) end = fraction;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t digits = end + 1;
      if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
      const size_t exponent = DigitsEnd(digits, IsDecimalDigit);
      if (exponent > digits) return exponent;
    }
    return end > whole ? end : at_;
  }

  std::string WithoutUnderscores(size_t begin, size_t end) const {
    std::string text = source_.substr(begin, end - begin);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    return text;
  }

  absl::Status ReadNumber() {
    if (const size_t end = FloatEnd(); end > at_) {
      Push(TokenKind::kFloat, "");
      const std::string text = WithoutUnderscores(at_, end);
      // Out of range reads as infinity, as in Python.
      if (!absl::SimpleAtod(text, &tokens_.back().real)) {
        return SyntaxError(line_, StrCat("invalid number ", text));
      }
      at_ = end;
      return absl::OkStatus();
    }
    return ReadInteger();
  }

  absl::Status ReadInteger() {
    int base = 10;
    size_t begin = at_;
    if (source_[at_] == '0' && at_ + 1 < source_.size()) {
      const char prefix = absl::ascii_tolower(static_cast<unsigned char>(source_[at_ + 1]));
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
      if (base != 10) begin += 2;
    }
    const auto is_digit = [base](char c) {
      const int value = absl::ascii_isdigit(static_cast<unsigned char>(c)) ? c - '0'
                        : absl::ascii_isxdigit(static_cast<unsigned char>(c))
                            ? absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10
                            : 99;
      return value < base;
    };
    if (base != 10 && source_.compare(begin, 1, "_") == 0) ++begin;  // 0x_ff
    size_t end = DigitsEnd(begin, is_digit);
    if (end == begin) {  // "0x" alone is 0 followed by a name
      base = 10;
      begin = at_;
      end = at_ + 1;
    }
    if (base == 10 && source_[begin] == '0') {  // a decimal does not begin with 0
      end = DigitsEnd(begin, [](char c) { return c == '0'; });
    }
    Push(TokenKind::kInteger, "");
    Int value = 0;
    for (const char c : WithoutUnderscores(begin, end)) {
      value = value * base + (absl::ascii_isdigit(static_cast<unsigned char>(c))
                                  ? c - '0'
                                  : absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10);
      if (value > kMaxInt) return SyntaxError(line_, "integer above 2^64 - 1");
    }
    tokens_.back().integer = value;
    at_ = end;
    return absl::OkStatus();
  }

  absl::Status ReadString() {
    const char quote = source_[at_];
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) {
      return SyntaxError(line_, StrCat("unexpected char ", quote == '"' ? "'\"'" : "\"'\"",
                                       ": a string without end"));
    }
    const std::string_view body = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    absl::StatusOr<std::string> text = UnescapeLiteral(body);
    if (!text.ok()) return SyntaxError(line_, std::string(text.status().message()));
    Push(TokenKind::kString, *text);
    Advance(end + 1 - at_);
    return absl::OkStatus();
  }

  absl::Status ReadOperator(std::vector<char>& open) {
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(),
                                     [this](std::string_view text) { return At(text); });
    if (found == kOperators.end()) {
      return SyntaxError(
          line_, StrCat("unexpected char '", Rest().substr(0, DecodeAt(source_, at_).size), "'"));
    }
    const char c = found->front();
    if (c == '(') open.push_back(')');
    if (c == '[') open.push_back(']');
    if (c == '{') open.push_back('}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) return SyntaxError(line_, StrCat("unexpected '", *found, "'"));
      if (open.back() != c) {
        return SyntaxError(line_, StrCat("unexpected '", *found, "', expected '",
                                         std::string(1, open.back()), "'"));
      }
      open.pop_back();
    }
    Push(TokenKind::kOperator, *found);
    at_ += found->size();
    return absl::OkStatus();
  }

  std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag ended a line
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace fairlead::jinja
