// SPDX-License-Identifier: Apache-2.0
// Oniguruma's Ruby syntax to PCRE2's; sets of characters in regex_class.cc. Documented in the two
// libraries' syntax pages.
#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/regex.h"
#include "models/regex_class.h"

namespace fairlead {
namespace {

constexpr size_t kNone = std::string_view::npos;

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) {
      if (absl::Status status = Step(); !status.ok()) return status;
    }
    out_.append(group_.back().closers, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start = 0;    // in out_
    size_t closers = 0;  // of the groups that its (?flags) opened
    bool extended_outside = false;
  };

  char Peek(size_t ahead) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  void Copy(size_t count) {
    out_.append(in_.substr(pos_, count));
    pos_ += count;
  }
  // What follows is one thing that a quantifier can repeat, or none.
  void BeginAtom() {
    atom_ = out_.size();
    interval_ = false;
  }
  void EndAtom() {
    atom_ = kNone;
    interval_ = false;
  }

  absl::Status Step() {
    switch (in_[pos_]) {
      case '\\':
        BeginAtom();
        return Escape();
      case '[': {
        BeginAtom();
        absl::StatusOr<CharacterSet> set = ParseCharacterClass(in_, &pos_);
        if (!set.ok()) return set.status();
        out_ += RenderCharacterSet(*set);
        return absl::OkStatus();
      }
      case '(':
        return OpenGroup();
      case ')':
        CloseGroup();
        return absl::OkStatus();
      case '|':
      case '^':
      case '$':
        EndAtom();
        Copy(1);
        return absl::OkStatus();
      case '*':
      case '+':
      case '?':
        WrapInterval();
        Copy(Peek(1) == '?' || Peek(1) == '+' ? 2 : 1);
        return absl::OkStatus();
      case '{':
        if (Interval()) return absl::OkStatus();
        break;
      case '#':
        if (extended_) {
          pos_ = std::min(in_.find('\n', pos_), in_.size());
          return absl::OkStatus();
        }
        break;
      default:
        // Between a thing and its quantifier, too.
        if (extended_ && std::isspace(static_cast<unsigned char>(in_[pos_])) != 0) {
          Copy(1);
          return absl::OkStatus();
        }
        break;
    }
    BeginAtom();
    Copy(1);
    while ((static_cast<unsigned char>(Peek(0)) & 0xC0) == 0x80) Copy(1);
    return absl::OkStatus();
  }

  // Behind an interval, + does not make it possessive, nor ? a fixed one lazy: they repeat the
  // repetition.
  void WrapInterval() {
    if (!interval_) return;
    out_.insert(atom_, "(?:");
    out_.push_back(')');
    interval_ = false;
  }

  // {n}, {n,}, {n,m} and {,m}, which begins at 0; anything else is text.
  bool Interval() {
    size_t end = 1;
    const auto digits = [&] {
      const size_t start = end;
      while (std::isdigit(static_cast<unsigned char>(Peek(end))) != 0) ++end;
      return end - start;
    };
    const size_t low = digits();
    const bool comma = Peek(end) == ',';
    if (comma) ++end;
    const size_t high = comma ? digits() : 0;
    if (Peek(end) != '}' || low + high == 0 || atom_ == kNone) return false;
    WrapInterval();
    interval_ = true;
    out_ += StrCat("{", low == 0 ? "0" : "", in_.substr(pos_ + 1, end));
    pos_ += end + 1;
    if (comma && Peek(0) == '?') Copy(1);
    return true;
  }

  absl::Status OpenGroup() {
    if (Peek(1) == '*') return RefusePattern(in_, pos_, "(*");
    const size_t start = out_.size();
    const bool extended_outside = extended_;
    if (Peek(1) != '?') {
      Copy(1);
    } else if (Peek(2) == '#') {
      const size_t end = in_.find(')', pos_);
      if (end == kNone) return RefusePattern(in_, pos_, "a comment without its )");
      pos_ = end + 1;
      return absl::OkStatus();
    } else {
      Copy(2);
      if (InlineFlags()) {
        EndAtom();
        ++group_.back().closers;
        return absl::OkStatus();
      }
    }
    EndAtom();
    group_.push_back({.start = start, .extended_outside = extended_outside});
    return absl::OkStatus();
  }

  // Ruby's m lets the dot match newlines, which is s here. True for (?flags), which reach to the
  // end of the group around them, other branches too: as if it were a group of its own.
  bool InlineFlags() {
    size_t length = 0;
    while (std::isalpha(static_cast<unsigned char>(Peek(length))) || Peek(length) == '-') ++length;
    if (Peek(length) != ':' && Peek(length) != ')') return false;
    const bool alone = Peek(length) == ')';
    bool on = true;
    for (size_t i = 0; i < length; ++i) {
      out_.push_back(Peek(i) == 'm' ? 's' : Peek(i));
      if (Peek(i) == '-') on = false;
      if (Peek(i) == 'x') extended_ = on;
    }
    out_.push_back(':');
    pos_ += length + 1;
    return alone;
  }

  void CloseGroup() {
    EndAtom();
    if (group_.size() > 1) {
      out_.append(group_.back().closers, ')');
      atom_ = group_.back().start;
      extended_ = group_.back().extended_outside;
      group_.pop_back();
    }
    Copy(1);
  }

  absl::Status Escape() {
    const char letter = Peek(1);
    if (const std::optional<CharacterSet> set = FindEscapedSet(letter, false)) {
      out_ += RenderCharacterSet(*set);
      pos_ += 2;
      return absl::OkStatus();
    }
    if (letter == 'b' || letter == 'B') {
      out_ += WordBoundary(letter == 'b');
      pos_ += 2;
      return absl::OkStatus();
    }
    if (letter == 'p' || letter == 'P') return Property();
    if (std::isdigit(static_cast<unsigned char>(letter)) != 0) {
      Copy(2);
      while (std::isdigit(static_cast<unsigned char>(Peek(0))) != 0) Copy(1);
      return absl::OkStatus();
    }
    const bool character = std::string_view("xuvQE").find(letter) != kNone;
    if (std::isalpha(static_cast<unsigned char>(letter)) != 0 && !character) {
      Copy(2);
      return absl::OkStatus();
    }
    absl::StatusOr<std::string> text = ParseEscapedCharacter(in_, &pos_);
    if (!text.ok()) return text.status();
    out_ += *text;
    return absl::OkStatus();
  }

  // Without braces, \p is a p.
  absl::Status Property() {
    if (Peek(2) != '{') {
      out_.push_back(Peek(1));
      pos_ += 2;
      return absl::OkStatus();
    }
    absl::StatusOr<CharacterSet> set = ParseProperty(in_, &pos_);
    if (!set.ok()) return set.status();
    out_ += RenderCharacterSet(*set);
    return absl::OkStatus();
  }

  // A word character on one side only, or its opposite.
  static std::string WordBoundary(bool boundary) {
    const std::string word = RenderCharacterSet(*FindEscapedSet('w', false));
    const auto look = [&](std::string_view operation) {
      return StrCat("(?", operation, word, ")");
    };
    const std::string before = look("<=");
    const std::string not_before = look("<!");
    const std::string behind = look("=");
    const std::string not_behind = look("!");
    return boundary ? StrCat("(?:", before, not_behind, "|", not_before, behind, ")")
                    : StrCat("(?:", before, behind, "|", not_before, not_behind, ")");
  }

  const std::string_view in_;
  std::string out_;
  size_t pos_ = 0;
  std::vector<Group> group_ = std::vector<Group>(1);
  size_t atom_ = kNone;    // in out_, what a quantifier here repeats
  bool interval_ = false;  // and that an interval already repeats
  bool extended_ = false;  // here (?x) holds
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace fairlead
