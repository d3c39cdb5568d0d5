// SPDX-License-Identifier: Apache-2.0
#include "models/byte_level.h"

#include <array>
#include <cstdint>

#include "models/unicode.h"

namespace fairlead {
namespace {

constexpr int kAlphabetEnd = 256 + 68;  // one past the last character of the alphabet
constexpr int16_t kNoByte = -1;

struct Alphabet {
  std::array<uint16_t, 256> character;        // byte -> code point
  std::array<int16_t, kAlphabetEnd> byte_of;  // code point -> byte or kNoByte
};

constexpr bool IsPrintableLatin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet{};
  for (int16_t& byte : alphabet.byte_of) byte = kNoByte;
  uint16_t next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const uint16_t character = IsPrintableLatin1(byte) ? static_cast<uint16_t>(byte) : next++;
    alphabet.character[byte] = character;
    alphabet.byte_of[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

void AppendByteLevel(std::string_view bytes, std::string* out) {
  for (const char byte : bytes)
    AppendUtf8(kAlphabet.character[static_cast<unsigned char>(byte)], out);
}

void AppendByteLevelDecoded(std::string_view token, std::string* out) {
  const size_t start = out->size();
  for (size_t pos = 0; pos < token.size();) {
    const char32_t character = DecodeUtf8(token, &pos);
    const int16_t byte = character < kAlphabetEnd ? kAlphabet.byte_of[character] : kNoByte;
    if (byte == kNoByte) {
      out->replace(start, std::string::npos, token);
      return;
    }
    out->push_back(static_cast<char>(byte));
  }
}

}  // namespace fairlead
