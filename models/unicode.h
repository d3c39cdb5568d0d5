// SPDX-License-Identifier: Apache-2.0
// What the tokenizers need of Unicode: code points, character classes, lower case and normalization
// forms. Character data comes from utf8proc (Unicode 14 or newer). Pure functions: any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fairlead {

// The code point that starts at text[*pos]; moves *pos behind it. `text` must be valid UTF-8.
char32_t DecodeUtf8(std::string_view text, size_t* pos);
void AppendUtf8(char32_t code_point, std::string* out);

// The property White_Space.
bool IsWhitespace(char32_t code_point);
// What regular expressions call \w (UTS #18, annex C): Alphabetic, marks, decimal digits, connector
// punctuation, Join_Control.
bool IsWordCharacter(char32_t code_point);

// Offset behind the white space that starts at `pos`; offset of the white space that ends at `pos`,
// looking no further back than `floor`.
size_t SkipWhitespace(std::string_view text, size_t pos);
size_t SkipWhitespaceBack(std::string_view text, size_t pos, size_t floor);

enum class NormalizationForm { kC, kD, kKC, kKD };

// A normalization form of valid UTF-8 (Unicode 15, chapter 3.11), with the character data of
// Unicode 9 that Hugging Face's library normalizes with: what came later does not decompose, and
// marks that came later neither move nor compose. O(n log n) at worst.
std::string Normalize(std::string_view text, NormalizationForm form);
inline std::string NormalizeNfc(std::string_view text) {
  return Normalize(text, NormalizationForm::kC);
}
// True if text may be cut before this code point without a change to a normalization form of the
// parts: it neither reorders with nor composes with what stands before it. May be false where a cut
// would do no harm.
bool StartsSegment(char32_t code_point);

// Of Unicode's general categories: M (marks), Mn, P (punctuation), C (others) without Cn, the
// unassigned code points. With a number: as that version of Unicode had them, which is what Hugging
// Face's library goes by.
bool IsMark(char32_t code_point);
bool IsMark9(char32_t code_point);
bool IsNonspacingMark8(char32_t code_point);
bool IsPunctuation8(char32_t code_point);
bool IsOther8(char32_t code_point);

// Appends the full lower case mapping, which may be several code points.
void AppendLowercase(char32_t code_point, std::string* out);

}  // namespace fairlead
