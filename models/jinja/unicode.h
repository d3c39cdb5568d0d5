// SPDX-License-Identifier: Apache-2.0
// Unicode as Python's str sees it. Inputs are valid UTF-8 (checked where text enters); any thread.
// Properties and simple case mappings are utf8proc's; the multi-character mappings of
// SpecialCasing.txt are in special_casing.inc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fairlead::jinja {

struct DecodedCodePoint {
  char32_t value;
  size_t size;  // bytes
};
// The code point that begins at byte `at` < text.size().
DecodedCodePoint DecodeAt(std::string_view text, size_t at);
// The byte at which the code point that ends before byte `end` > 0 begins.
size_t PreviousBoundary(std::string_view text, size_t end);
void AppendUtf8(char32_t code_point, std::string& out);
bool IsValidUtf8(std::string_view text);
size_t CountCodePoints(std::string_view text);

// str.isspace() and friends, for one character.
bool IsSpace(char32_t c);
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsTitle(char32_t c);
bool IsPrintable(char32_t c);
inline bool IsAlnum(char32_t c) { return IsAlpha(c) || IsNumeric(c); }
// Upper, lower or title case: what str.title() calls a letter.
inline bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || IsTitle(c); }
// Skipped when a capital sigma looks for its neighbours.
bool IsCaseIgnorable(char32_t c);

void AppendUpper(char32_t c, std::string& out);
void AppendLower(char32_t c, std::string& out);
void AppendTitle(char32_t c, std::string& out);
// Full case folding.
void AppendFolded(char32_t c, std::string& out);

}  // namespace fairlead::jinja
