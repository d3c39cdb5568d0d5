// SPDX-License-Identifier: Apache-2.0
// UTF-8 as Python decodes it (tests/golden/text/utf8.json), and streaming: whatever the tokens, the
// pieces make up the whole text.
#include "models/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

TEST(Utf8, ReplacesWhatPythonReplaces) {
  const Json golden = ReadGolden("text/utf8.json");
  ASSERT_EQ(golden.size(), 1284u);
  int valid = 0;
  for (const Json& one : golden) {
    const std::string bytes = absl::HexStringToBytes(Text(one["bytes"]));
    const std::string text = Text(one["text"]);
    EXPECT_EQ(ReplaceInvalidUtf8(bytes), text) << one["bytes"];
    EXPECT_EQ(IsValidUtf8(bytes), text == bytes) << one["bytes"];
    valid += text == bytes;
  }
  EXPECT_GT(valid, 50);
}

// Cut anywhere: what is complete decodes by itself, and the rest with what follows.
TEST(Utf8, CompletePrefixMayBeDecodedAlone) {
  for (const Json& one : ReadGolden("text/utf8.json")) {
    const std::string bytes = absl::HexStringToBytes(Text(one["bytes"]));
    for (size_t cut = 0; cut <= bytes.size(); ++cut) {
      const size_t complete = CompleteUtf8Prefix(std::string_view(bytes).substr(0, cut));
      ASSERT_LE(complete, cut);
      ASSERT_LE(cut - complete, 3u);
      EXPECT_EQ(ReplaceInvalidUtf8(bytes.substr(0, complete)) +
                    ReplaceInvalidUtf8(bytes.substr(complete)),
                Text(one["text"]))
          << one["bytes"] << " cut at " << cut;
    }
  }
}

TEST(Utf8, CompletePrefixWaitsNoLongerThanItMust) {
  EXPECT_EQ(CompleteUtf8Prefix(""), 0u);
  EXPECT_EQ(CompleteUtf8Prefix("ab"), 2u);
  EXPECT_EQ(CompleteUtf8Prefix("a\xC3"), 1u);
  EXPECT_EQ(CompleteUtf8Prefix("a\xC3\xA9"), 3u);
  EXPECT_EQ(CompleteUtf8Prefix("\xF0\x9F\x98"), 0u);
  EXPECT_EQ(CompleteUtf8Prefix("\xF0\x9F\x98\x80"), 4u);
  EXPECT_EQ(CompleteUtf8Prefix("\xE0\x80"), 2u);  // 80 may not follow E0
  EXPECT_EQ(CompleteUtf8Prefix("\xED\xA0"), 2u);  // a surrogate
  EXPECT_EQ(CompleteUtf8Prefix("\xF5"), 1u);      // no character starts so
  EXPECT_EQ(CompleteUtf8Prefix("\x80\x80\x80\x80"), 4u);
  EXPECT_EQ(CompleteUtf8Prefix("\xF0\xF0\x9F"), 1u);
}

class Streaming : public ::testing::TestWithParam<const char*> {};

TEST_P(Streaming, PiecesMakeUpTheWholeText) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = LoadTokenizerFromPath(
      GoldenPath(std::string("tokenizers/") + GetParam() + "/tokenizer.json"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tokenizer& tokenizer = **loaded;
  std::mt19937 random(20);
  std::vector<Token> bytes;  // tokens of part of a character
  for (Token id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!IsValidUtf8(tokenizer.Bytes(id))) bytes.push_back(id);
  }
  ASSERT_GT(bytes.size(), 100u);
  for (int round = 0; round < 3000; ++round) {
    std::vector<Token> ids(random() % 20);
    for (Token& id : ids) {
      id = random() % 3 == 0 ? static_cast<Token>(random() % (tokenizer.vocab_size() + 2))
                             : bytes[random() % bytes.size()];
    }
    const bool skip = round % 2 == 0;
    Detokenizer detokenizer(tokenizer, skip);
    std::string text;
    for (const Token id : ids) {
      const std::string piece = detokenizer.Push(id);
      EXPECT_TRUE(IsValidUtf8(piece));
      text += piece;
    }
    text += detokenizer.Finish();
    ASSERT_EQ(text, tokenizer.Decode(ids, skip)) << ::testing::PrintToString(ids);
    EXPECT_EQ(detokenizer.Finish(), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Streaming, ::testing::Values("bpe-gpt2", "bpe-llama3"),
                         [](const auto& info) { return std::string(info.param).substr(4); });

TEST(Detokenizer, HoldsBackHalfACharacter) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> loaded =
      LoadTokenizerFromPath(GoldenPath("tokenizers/bpe-gpt2/tokenizer.json"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::vector<Token> ids = (*loaded)->Encode("\U0001F9FF");
  ASSERT_EQ(ids.size(), 4u);  // rare enough to be four bytes
  Detokenizer detokenizer(**loaded, false);
  EXPECT_EQ(detokenizer.Push(ids[0]), "");
  EXPECT_EQ(detokenizer.Push(ids[1]), "");
  EXPECT_EQ(detokenizer.Push(ids[2]), "");
  EXPECT_EQ(detokenizer.Push(ids[3]), "\U0001F9FF");
  EXPECT_EQ(detokenizer.Push(ids[0]), "");
  EXPECT_EQ(detokenizer.Push((*loaded)->Encode("a")[0]), "\uFFFDa");
  EXPECT_EQ(detokenizer.Push(ids[0]), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

}  // namespace
}  // namespace fairlead
