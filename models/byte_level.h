// SPDX-License-Identifier: Apache-2.0
// The byte-level alphabet of GPT-2's encoder: every byte is spelled as one printable character, so
// that a vocabulary of text can hold any bytes. Printable Latin-1 bytes stand for themselves; the
// other 68 follow from U+0100 on in byte order (0x20, the space, is U+0120). Pure functions: any
// thread.
#pragma once

#include <string>
#include <string_view>

namespace fairlead {

// Appends one character (1 or 2 bytes of UTF-8) for each byte.
void AppendByteLevel(std::string_view bytes, std::string* out);

// Appends the bytes that a token of valid UTF-8 spells. A token with any character outside the
// alphabet is not spelled in it and is appended as it is: added tokens are plain text.
void AppendByteLevelDecoded(std::string_view token, std::string* out);

}  // namespace fairlead
