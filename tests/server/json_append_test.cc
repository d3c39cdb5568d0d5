// SPDX-License-Identifier: Apache-2.0
// The JSON library is the oracle: the bytes are to be the same for every text.
#include "server/json_append.h"

#include <gtest/gtest.h>

#include <random>

#include "models/json.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

void ExpectSame(const std::string& text) {
  std::string out = "before";
  AppendJsonString(text, &out);
  ASSERT_EQ(out, "before" + DumpJson(Json(text)));
}

TEST(AppendJsonString, EveryCharacter) {
  for (char32_t c = 0; c <= 0x10ffff; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;  // surrogates are no characters
    std::string text;
    AppendUtf8(c, &text);
    ExpectSame(text);
  }
}

TEST(AppendJsonString, EveryPairOfAsciiCharacters) {
  for (int a = 0; a < 128; ++a) {
    for (int b = 0; b < 128; ++b) ExpectSame({static_cast<char>(a), 'x', static_cast<char>(b)});
  }
}

TEST(AppendJsonString, BytesThatAreNoText) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 6, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    ExpectSame(bytes);
  }
}

TEST(AppendJsonString, WordsAndEmptyText) {
  ExpectSame("");
  ExpectSame(" \"Grüße\",\n\tsaid C:\\path \x7f \xf0\x9f\x91\x8b");
}

}  // namespace
}  // namespace fairlead
