// SPDX-License-Identifier: Apache-2.0
// Oniguruma's Ruby syntax to PCRE2's. Checked against Oniguruma itself, code point by code point,
// for the classes below; documented in the two libraries' syntax pages.
#include <cctype>

#include "kernels/strings.h"
#include "models/regex.h"

namespace fairlead {
namespace {

// PCRE2's \s has U+180E in addition, its \w lacks marks (before 10.43) and some alphabetic symbols.
constexpr std::string_view kSpace = "\\p{White_Space}";
constexpr std::string_view kNotSpace = "\\P{White_Space}";
constexpr std::string_view kWordInClass =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
constexpr std::string_view kHexDigitInClass = "0-9a-fA-F";  // \h; horizontal space in PCRE2

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      absl::Status status = in_class_ ? StepInClass() : Step();
      if (!status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  char Peek(size_t ahead) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  void Copy(size_t count) {
    out_.append(in_.substr(pos_, count));
    pos_ += count;
  }
  void Replace(size_t count, std::string_view text) {
    out_.append(text);
    pos_ += count;
  }
  absl::Status Refuse(std::string_view what) const {
    return absl::UnimplementedError(StrCat("regular expression \"", in_, "\" at offset ", pos_,
                                           ": ", what, " is not supported"));
  }

  absl::Status Step() {
    const char c = in_[pos_];
    if (c == '\\') return Escape();
    if (c == '[') {
      in_class_ = true;
      class_start_ = true;
      Copy(Peek(1) == '^' ? 2 : 1);
    } else if (c == '(' && Peek(1) == '?') {
      Copy(2);
      InlineFlags();
    } else {
      Copy(1);
    }
    return absl::OkStatus();
  }

  // Ruby's m lets the dot match newlines, which is s here.
  void InlineFlags() {
    size_t length = 0;
    while (std::isalpha(static_cast<unsigned char>(Peek(length))) || Peek(length) == '-') ++length;
    if (Peek(length) != ':' && Peek(length) != ')') return;
    for (size_t i = 0; i < length; ++i) out_.push_back(Peek(i) == 'm' ? 's' : Peek(i));
    pos_ += length;
  }

  absl::Status StepInClass() {
    const char c = in_[pos_];
    const bool at_start = class_start_;
    class_start_ = false;
    if (c == '\\') return Escape();
    if (c == '&' && Peek(1) == '&') return Refuse("an intersection of character classes");
    if (c == '[' && Peek(1) != ':') return Refuse("a character class inside a character class");
    if (c == '[') {  // [:name:]
      const size_t end = in_.find(":]", pos_ + 2);
      if (end == std::string_view::npos) return Refuse("an unfinished [: :]");
      Copy(end + 2 - pos_);
      return absl::OkStatus();
    }
    if (c == ']' && !at_start) in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Escape() {
    class_start_ = false;
    const auto in_brackets = [&](std::string_view body, bool negated) {
      return in_class_ ? std::string(body) : StrCat(negated ? "[^" : "[", body, "]");
    };
    switch (Peek(1)) {
      case 's':
        Replace(2, kSpace);
        return absl::OkStatus();
      case 'S':
        Replace(2, kNotSpace);
        return absl::OkStatus();
      case 'w':
      case 'W':
        if (in_class_ && Peek(1) == 'W') return Refuse("\\W in a character class");
        Replace(2, in_brackets(kWordInClass, Peek(1) == 'W'));
        return absl::OkStatus();
      case 'h':
      case 'H':
        if (in_class_ && Peek(1) == 'H') return Refuse("\\H in a character class");
        Replace(2, in_brackets(kHexDigitInClass, Peek(1) == 'H'));
        return absl::OkStatus();
      case 'b':
      case 'B':
        if (in_class_) break;  // a backspace
        Replace(2, WordBoundary(Peek(1) == 'b'));
        return absl::OkStatus();
      case 'u':
        return FourHexDigits();
      default:
        break;
    }
    Copy(2);
    return absl::OkStatus();
  }

  // A word character on one side only, or its opposite.
  static std::string WordBoundary(bool boundary) {
    const auto look = [](std::string_view operation) {
      return StrCat("(?", operation, "[", kWordInClass, "])");
    };
    const std::string before = look("<=");
    const std::string not_before = look("<!");
    const std::string behind = look("=");
    const std::string not_behind = look("!");
    return boundary ? StrCat("(?:", before, not_behind, "|", not_before, behind, ")")
                    : StrCat("(?:", before, behind, "|", not_before, not_behind, ")");
  }

  absl::Status FourHexDigits() {
    for (size_t i = 2; i < 6; ++i) {
      if (!std::isxdigit(static_cast<unsigned char>(Peek(i))))
        return Refuse("\\u without four hexadecimal digits");
    }
    Replace(6, StrCat("\\x{", in_.substr(pos_ + 2, 4), "}"));
    return absl::OkStatus();
  }

  const std::string_view in_;
  std::string out_;
  size_t pos_ = 0;
  bool in_class_ = false;
  bool class_start_ = false;  // right behind [ or [^, where ] is a plain character
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace fairlead
