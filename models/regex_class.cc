// SPDX-License-Identifier: Apache-2.0
// What the names stand for was checked against Oniguruma itself, code point by code point; the
// syntax is documented in the two libraries' syntax pages.
#include "models/regex_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "absl/strings/str_join.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

// PCRE2's \s has U+180E in addition, its \w lacks marks (before 10.43) and some alphabetic symbols.
constexpr std::string_view kSpace = "\\p{White_Space}";
constexpr std::string_view kDigit = "\\p{Nd}";
constexpr std::string_view kWordInClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kWord =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
constexpr std::string_view kHexDigit = "0-9a-fA-F";  // \h is horizontal space in PCRE2

struct NamedSet {
  std::string_view name;  // in lower case, without spaces, hyphens and underscores
  std::string_view body;
  bool negated = false;
};

// The POSIX brackets, properties too but for punct and word.
constexpr auto kPosixSets = std::to_array<NamedSet>({
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"ascii", "\\x00-\\x7f"},
    {"blank", "\\p{Zs}\\t"},
    {"cntrl", "\\p{Cc}"},
    {"digit", kDigit},
    {"graph", "\\p{White_Space}\\p{Cc}\\p{Cn}\\p{Cs}", true},
    {"lower", "\\p{Lowercase}"},
    {"print", "\\p{Cc}\\p{Cn}\\p{Cs}\\x{2028}\\x{2029}", true},
    {"punct", "\\p{P}\\p{S}"},
    {"space", kSpace},
    {"upper", "\\p{Uppercase}"},
    {"word", kWordInClass},
    {"xdigit", kHexDigit},
});

// Property names that PCRE2 lacks, or has with another meaning.
constexpr auto kProperties = std::to_array<NamedSet>({
    {"punct", "\\p{P}"},
    {"word", kWord},
    {"assigned", "\\P{Cn}"},
    {"letter", "\\p{L}"},
    {"casedletter", "\\p{LC}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"surrogate", "\\p{Cs}"},
    {"privateuse", "\\p{Co}"},
    {"unassigned", "\\p{Cn}"},
});

template <size_t Size>
const NamedSet* FindNamed(const std::array<NamedSet, Size>& sets, std::string_view name) {
  const auto* const found = std::find_if(
      sets.begin(), sets.end(), [&](const NamedSet& candidate) { return candidate.name == name; });
  return found == sets.end() ? nullptr : found;
}

bool IsOneProperty(const CharacterSet& set) {
  return set.part.empty() && !set.negated &&
         (set.body.starts_with("\\p{") || set.body.starts_with("\\P{")) &&
         set.body.find('}') == set.body.size() - 1;
}

// One property negates itself, which leaves it a plain member of a class.
CharacterSet Complement(CharacterSet set) {
  if (IsOneProperty(set) && set.body[1] == 'p') {
    set.body[1] = 'P';
  } else {
    set.negated = !set.negated;
  }
  return set;
}

// Whether `name` is a script's: PCRE2 10.40 and later have the prefix, and mean script extensions
// without it. Before that the plain name is the script.
bool IsScript(std::string_view name) {
  const std::string pattern = StrCat("\\p{sc:", name, "}");
  int error = 0;
  size_t offset = 0;
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

bool IsHexDigit(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }

// Bytes of the character at `pos`.
size_t CharacterSize(std::string_view text, size_t pos) {
  size_t end = pos + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - pos;
}

std::string LiteralInClass(std::string_view character) {
  const bool syntax = std::string_view("\\[]^-.:=").find(character[0]) != std::string_view::npos;
  return syntax ? StrCat("\\", character) : std::string(character);
}

absl::StatusOr<std::string> ParseHex(std::string_view pattern, size_t* pos) {
  if (pattern.substr(*pos + 2, 1) == "{") {
    const size_t end = pattern.find('}', *pos);
    const std::string_view digits =
        pattern.substr(*pos + 3, end == std::string_view::npos ? 0 : end - *pos - 3);
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), IsHexDigit))
      return RefusePattern(pattern, *pos, "\\x{ without hexadecimal digits and }");
    *pos = end + 1;
    return StrCat("\\x{", digits, "}");
  }
  size_t count = 0;
  while (count < 2 && *pos + 2 + count < pattern.size() && IsHexDigit(pattern[*pos + 2 + count]))
    ++count;
  const std::string digits(pattern.substr(*pos + 2, count));
  // Oniguruma reads a byte of UTF-8 there.
  if (count == 0 || std::stoi(digits, nullptr, 16) > 0x7f)
    return RefusePattern(pattern, *pos, "\\x without one of 00 to 7f");
  *pos += 2 + count;
  return StrCat("\\x{", digits, "}");
}

absl::StatusOr<std::string> ParseFourHexDigits(std::string_view pattern, size_t* pos) {
  const std::string_view digits = pattern.substr(*pos + 2, 4);
  if (digits.size() != 4 || !std::all_of(digits.begin(), digits.end(), IsHexDigit))
    return RefusePattern(pattern, *pos, "\\u without four hexadecimal digits");
  *pos += 6;
  return StrCat("\\x{", digits, "}");
}

class ClassParser {
 public:
  ClassParser(std::string_view pattern, size_t pos) : in_(pattern), pos_(pos) {}
  size_t pos() const { return pos_; }

  absl::StatusOr<CharacterSet> Parse() {
    if (++depth_ > kMaxClassDepth)
      return RefusePattern(in_, pos_, StrCat("a class inside ", kMaxClassDepth, " classes"));
    const bool negated = in_.substr(++pos_, 1) == "^";
    if (negated) ++pos_;
    std::vector<CharacterSet> side(1);  // of &&
    bool start = true;                  // where ] is a plain character
    while (pos_ < in_.size() && (in_[pos_] != ']' || start)) {
      start = false;
      if (in_.substr(pos_, 2) == "&&") {
        pos_ += 2;
        if (absl::Status status = EndSide(&side.back()); !status.ok()) return status;
        side.emplace_back();
      } else if (absl::Status status = Member(&side.back()); !status.ok()) {
        return status;
      }
    }
    if (pos_ == in_.size()) {
      return absl::InvalidArgumentError(
          StrCat("regular expression \"", in_, "\": a character class without ]"));
    }
    ++pos_;
    --depth_;
    if (absl::Status status = EndSide(&side.back()); !status.ok()) return status;
    CharacterSet all = side.size() == 1 ? std::move(side[0]) : Intersection(side);
    return negated ? Complement(std::move(all)) : all;
  }

 private:
  static CharacterSet Intersection(const std::vector<CharacterSet>& side) {
    std::string all = "(?>";
    for (size_t i = 0; i + 1 < side.size(); ++i)
      all += StrCat("(?=", RenderCharacterSet(side[i]), ")");
    return {.body = "", .part = {StrCat(all, RenderCharacterSet(side.back()), ")")}};
  }

  absl::Status EndSide(CharacterSet* side) const {
    if (!side->body.empty() || !side->part.empty()) return absl::OkStatus();
    return RefusePattern(in_, pos_, "an empty side of &&");
  }

  // `side` has no other member than this negated set, or becomes the union.
  static void Join(CharacterSet set, CharacterSet* side) {
    if (side->body.empty() && side->part.empty()) {
      *side = std::move(set);
      return;
    }
    if (side->negated) *side = {.body = "", .part = {RenderCharacterSet(*side)}};
    if (set.negated) {
      side->part.push_back(RenderCharacterSet(set));
      return;
    }
    side->body += set.body;
    side->part.insert(side->part.end(), set.part.begin(), set.part.end());
  }

  absl::Status Member(CharacterSet* side) {
    if (in_[pos_] == '[') {
      absl::StatusOr<CharacterSet> set = in_.substr(pos_, 2) == "[:" ? PosixOrClass() : Parse();
      if (!set.ok()) return set.status();
      Join(*std::move(set), side);
      return absl::OkStatus();
    }
    absl::StatusOr<CharacterSet> first = CharacterOrSet();
    if (!first.ok()) return first.status();
    const bool range = !first_is_set_ && in_.substr(pos_, 1) == "-" && pos_ + 1 < in_.size() &&
                       in_[pos_ + 1] != ']' && in_.substr(pos_ + 1, 2) != "&&";
    if (range) {
      ++pos_;
      if (in_[pos_] == '[') return RefusePattern(in_, pos_, "a range that ends with a class");
      const absl::StatusOr<CharacterSet> last = CharacterOrSet();
      if (!last.ok()) return last.status();
      if (first_is_set_) return RefusePattern(in_, pos_, "a range that ends with a set");
      first->body += StrCat("-", last->body);
    }
    Join(*std::move(first), side);
    return absl::OkStatus();
  }

  // [:name:], [:^name:], or a class that begins with a colon.
  absl::StatusOr<CharacterSet> PosixOrClass() {
    const size_t end = in_.find(']', pos_);
    if (end == std::string_view::npos) return RefusePattern(in_, pos_, "an unfinished [:");
    if (in_[end - 1] != ':' || end - 1 < pos_ + 2) return Parse();
    std::string_view name = in_.substr(pos_ + 2, end - 1 - (pos_ + 2));
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const NamedSet* const named = FindNamed(kPosixSets, name);
    if (named == nullptr) return RefusePattern(in_, pos_, "the name in [: :]");
    pos_ = end + 1;
    CharacterSet set = {.body = std::string(named->body), .part = {}, .negated = named->negated};
    return negated ? Complement(std::move(set)) : set;
  }

  // A single character is a set without first_is_set_.
  absl::StatusOr<CharacterSet> CharacterOrSet() {
    first_is_set_ = false;
    if (in_[pos_] != '\\') {
      const size_t size = CharacterSize(in_, pos_);
      pos_ += size;
      return Single(LiteralInClass(in_.substr(pos_ - size, size)));
    }
    const char letter = pos_ + 1 < in_.size() ? in_[pos_ + 1] : '\0';
    if (std::optional<CharacterSet> set = FindEscapedSet(letter, true)) {
      first_is_set_ = true;
      pos_ += 2;
      return *std::move(set);
    }
    if ((letter == 'p' || letter == 'P') && in_.substr(pos_ + 2, 1) == "{") {
      first_is_set_ = true;
      return ParseProperty(in_, &pos_);
    }
    if (letter == 'b') {
      pos_ += 2;
      return Single("\\x{8}");
    }
    if (std::string_view("ntrfae").find(letter) != std::string_view::npos) {
      pos_ += 2;
      return Single(StrCat("\\", std::string_view(&letter, 1)));
    }
    if (letter >= '0' && letter <= '7') return Single(Octal());
    absl::StatusOr<std::string> character = ParseEscapedCharacter(in_, &pos_);
    if (!character.ok()) return character.status();
    return Single(*std::move(character));
  }

  static CharacterSet Single(std::string text) { return {.body = std::move(text), .part = {}}; }

  std::string Octal() {
    size_t count = 0;
    while (count < 3 && pos_ + 1 + count < in_.size() && in_[pos_ + 1 + count] >= '0' &&
           in_[pos_ + 1 + count] <= '7') {
      ++count;
    }
    const std::string_view digits = in_.substr(pos_ + 1, count);
    pos_ += 1 + count;
    return StrCat("\\o{", digits, "}");
  }

  const std::string_view in_;
  size_t pos_;
  int depth_ = 0;
  bool first_is_set_ = false;  // what CharacterOrSet read last
};

}  // namespace

absl::Status RefusePattern(std::string_view pattern, size_t pos, std::string_view what) {
  return absl::UnimplementedError(StrCat("regular expression \"", pattern, "\" at offset ", pos,
                                         ": ", what, " is not supported"));
}

std::string RenderCharacterSet(const CharacterSet& set) {
  if (IsOneProperty(set)) return set.body;
  if (set.part.empty()) return StrCat(set.negated ? "[^" : "[", set.body, "]");
  std::vector<std::string> choice = set.part;
  if (!set.body.empty()) choice.insert(choice.begin(), StrCat("[", set.body, "]"));
  const std::string choices = absl::StrJoin(choice, "|");
  if (set.negated) return StrCat("(?>(?!", choices, ")\\p{Any})");
  return choice.size() == 1 ? choices : StrCat("(?>", choices, ")");
}

std::optional<CharacterSet> FindEscapedSet(char letter, bool in_class) {
  const auto set = [&](std::string_view body) {
    CharacterSet plain = {.body = std::string(body), .part = {}};
    return std::isupper(static_cast<unsigned char>(letter)) ? Complement(std::move(plain)) : plain;
  };
  switch (letter) {
    case 's':
    case 'S':
      return set(kSpace);
    case 'd':
    case 'D':
      return set(kDigit);
    case 'w':
    case 'W':
      return set(in_class ? kWordInClass : kWord);
    case 'h':
    case 'H':
      return set(kHexDigit);
    default:
      return std::nullopt;
  }
}

absl::StatusOr<CharacterSet> ParseProperty(std::string_view pattern, size_t* pos) {
  const size_t end = pattern.find('}', *pos);
  if (end == std::string_view::npos)
    return RefusePattern(pattern, *pos, "a property without its }");
  std::string_view name = pattern.substr(*pos + 3, end - *pos - 3);
  bool negated = pattern[*pos + 1] == 'P';
  if (name.starts_with('^')) {
    negated = !negated;
    name.remove_prefix(1);
  }
  std::string plain;
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      plain.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    } else if (c != ' ' && c != '_' && c != '-') {
      return RefusePattern(pattern, *pos, "a property with such a name");
    }
  }
  *pos = end + 1;
  const NamedSet* named = FindNamed(kProperties, plain);
  if (named == nullptr) named = FindNamed(kPosixSets, plain);
  CharacterSet set;
  if (named != nullptr) {
    set = {.body = std::string(named->body), .part = {}, .negated = named->negated};
  } else {
    set.body = StrCat("\\p{", IsScript(name) ? "sc:" : "", name, "}");
  }
  return negated ? Complement(std::move(set)) : set;
}

absl::StatusOr<std::string> ParseEscapedCharacter(std::string_view pattern, size_t* pos) {
  if (*pos + 1 == pattern.size()) {
    return absl::InvalidArgumentError(
        StrCat("regular expression \"", pattern, "\": \\ at its end"));
  }
  const char c = pattern[*pos + 1];
  if (c == 'x') return ParseHex(pattern, pos);
  if (c == 'u') return ParseFourHexDigits(pattern, pos);
  if (c == 'v' || c == 'Q' || c == 'E') {
    *pos += 2;
    return c == 'v' ? std::string("\\x{b}") : std::string(1, c);
  }
  if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
    return RefusePattern(pattern, *pos,
                         StrCat("\\", std::string_view(&c, 1), " in a character class"));
  }
  const size_t size = CharacterSize(pattern, *pos + 1);
  const std::string_view character = pattern.substr(*pos + 1, size);
  *pos += 1 + size;
  // Under (?x), a space as it stands would be none.
  if (std::isspace(static_cast<unsigned char>(c)) != 0) return StrCat("\\x{", absl::Hex(c), "}");
  const bool syntax = std::ispunct(static_cast<unsigned char>(c)) != 0;
  return syntax ? StrCat("\\", character) : std::string(character);
}

absl::StatusOr<CharacterSet> ParseCharacterClass(std::string_view pattern, size_t* pos) {
  ClassParser parser(pattern, *pos);
  absl::StatusOr<CharacterSet> set = parser.Parse();
  *pos = parser.pos();
  return set;
}

}  // namespace fairlead
