// SPDX-License-Identifier: Apache-2.0
// Sets of characters of Oniguruma's regular expressions in PCRE2's syntax: escapes, properties and
// classes with classes inside. Every set becomes an expression that matches one character and has
// no second way to match it, so that repeating it stays linear. Any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fairlead {

// The characters of `[body]` and those that one of `part` matches; with `negated` all others.
struct CharacterSet {
  std::string body;
  std::vector<std::string> part;
  bool negated = false;
};

std::string RenderCharacterSet(const CharacterSet& set);

// \s \S \w \W \d \D \h \H. \w has some numbers (two, three, fractions) outside of classes alone.
std::optional<CharacterSet> FindEscapedSet(char letter, bool in_class);

// All below advance `pos` behind what they read and name PATTERN and offset in their errors.

// \p{name}, \P{name}, \p{^name}; `pos` at the backslash. A script's name means the script, not its
// extensions. Names that neither library knows are left for PCRE2 to refuse.
absl::StatusOr<CharacterSet> ParseProperty(std::string_view pattern, size_t* pos);

// One character by escape, in PCRE2's syntax; `pos` at the backslash of \x, \u, \v, \Q, \E or \ and
// a character that is no ASCII letter or digit.
absl::StatusOr<std::string> ParseEscapedCharacter(std::string_view pattern, size_t* pos);

// [...], `pos` at the bracket. Classes nest kMaxClassDepth deep at most.
absl::StatusOr<CharacterSet> ParseCharacterClass(std::string_view pattern, size_t* pos);
inline constexpr int kMaxClassDepth = 16;

// kUnimplemented: `what` at this offset is not supported.
absl::Status RefusePattern(std::string_view pattern, size_t pos, std::string_view what);

}  // namespace fairlead
