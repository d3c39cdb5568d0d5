// SPDX-License-Identifier: Apache-2.0
// Normalization, compared with Hugging Face's tokenizers (tests/golden/text/nfc.json).
#include "models/unicode.h"

#include <gtest/gtest.h>

#include <string>

#include "models/byte_level.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

TEST(Nfc, AgreesWithTheLibrary) {
  const Json golden = ReadGolden("text/nfc.json");
  ASSERT_GT(golden.size(), 1900u);
  for (const Json& one : golden)
    EXPECT_EQ(NormalizeNfc(Text(one["text"])), Text(one["nfc"])) << one["text"];
}

TEST(Nfc, PartsMayBeNormalizedApartWhereItSaysSo) {
  int cuts = 0;
  for (const Json& one : ReadGolden("text/nfc.json")) {
    const std::string text = Text(one["text"]);
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      if (!StartsSegment(DecodeUtf8(text, &pos))) continue;
      EXPECT_EQ(NormalizeNfc(text.substr(0, begin)) + NormalizeNfc(text.substr(begin)),
                Text(one["nfc"]));
      ++cuts;
    }
  }
  EXPECT_GT(cuts, 2000);
}

TEST(Nfc, LongRunsOfMarks) {
  std::string text = "a";
  for (int i = 0; i < 200000; ++i) text += i % 2 == 0 ? "\u0315" : "\u0323";  // classes 232 and 220
  const std::string normalized = NormalizeNfc(text);
  EXPECT_EQ(normalized.size(), text.size());  // U+1EA1 is one byte longer than a, and one mark less
  EXPECT_EQ(normalized.substr(0, 5), "\u1ea1\u0323");
  EXPECT_EQ(normalized.substr(normalized.size() - 2), "\u0315");
}

TEST(Characters, Classes) {
  for (const char32_t c : {U' ', U'\t', U'\u0085', U'\u00a0', U'\u2028', U'\u3000'})
    EXPECT_TRUE(IsWhitespace(c));
  for (const char32_t c : {U'a', U'\u180e', U'\u200b', U'\ufeff', U'\x1c'})
    EXPECT_FALSE(IsWhitespace(c));
  for (const char32_t c :
       {U'a', U'\u00e9', U'_', U'7', U'\u0301', U'\u4e2d', U'\u2160', U'\u200d', U'\u24b6'}) {
    EXPECT_TRUE(IsWordCharacter(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U' ', U'-', U'\u00b2', U'\u2460', U'\u20ac'})
    EXPECT_FALSE(IsWordCharacter(c));
}

TEST(Characters, Utf8RoundTrip) {
  for (const char32_t c :
       {U'\0', U'\x7f', U'\x80', U'\u07ff', U'\u0800', U'\uffff', U'\U00010000', U'\U0010ffff'}) {
    std::string text;
    AppendUtf8(c, &text);
    size_t pos = 0;
    EXPECT_EQ(DecodeUtf8(text, &pos), c);
    EXPECT_EQ(pos, text.size());
  }
}

TEST(ByteLevel, EveryByteIsOneCharacterAndBack) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.push_back(static_cast<char>(byte));
  std::string spelled;
  AppendByteLevel(bytes, &spelled);
  std::string decoded = "x";
  AppendByteLevelDecoded(spelled, &decoded);
  EXPECT_EQ(decoded, "x" + bytes);
  // Characters outside the alphabet: the text is plain.
  std::string plain = "x";
  AppendByteLevelDecoded("\u0120 ", &plain);
  EXPECT_EQ(plain, "x\u0120 ");
}

}  // namespace
}  // namespace fairlead
