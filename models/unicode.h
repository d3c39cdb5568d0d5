// SPDX-License-Identifier: Apache-2.0
// What the tokenizers need of Unicode: code points, three character classes and normalization form
// C. Character data comes from utf8proc (Unicode 14 or newer). Pure functions: any thread.
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

// Normalization form C of valid UTF-8 (Unicode 15, chapter 3.11), with the character data of
// Unicode 9 that Hugging Face's library normalizes with: marks that came later neither move nor
// compose. O(n log n) at worst.
std::string NormalizeNfc(std::string_view text);
// True if text may be cut before this code point without a change to NFC of the parts: it neither
// reorders with nor composes with what stands before it. May be false where a cut would do no harm.
bool StartsNfcSegment(char32_t code_point);

}  // namespace fairlead
