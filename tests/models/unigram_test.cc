// SPDX-License-Identifier: Apache-2.0
// The unigram model by itself; whole tokenizers with it are compared with the library in
// tokenizer_test (unigram-*).
#include "models/unigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <string>
#include <vector>

#include "models/byte_trie.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Token> Encode(const std::vector<Unigram::Piece>& pieces,
                          const Unigram::Options& options, std::string_view word) {
  absl::StatusOr<std::unique_ptr<TokenModel>> model = Unigram::Create(pieces, options);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  std::vector<Token> out;
  (*model)->Encode(word, (*model)->NewWorkspace().get(), &out);
  return out;
}

const std::vector<Unigram::Piece> kPieces = {{"<unk>", 0}, {"a", -2},   {"b", -2},
                                             {"ab", -3},   {"abc", -9}, {"<s>", 0}};

TEST(Unigram, TakesTheBestSum) {
  const Unigram::Options options = {.unknown = 0};
  EXPECT_THAT(Encode(kPieces, options, "ab"), ElementsAre(3));
  EXPECT_THAT(Encode(kPieces, options, "aba"), ElementsAre(3, 1));
  // One piece of -9 against -3 and an unknown character of -9 - 10.
  EXPECT_THAT(Encode(kPieces, options, "abc"), ElementsAre(4));
}

TEST(Unigram, UnknownCharactersInARowAreOneToken) {
  const Unigram::Options options = {.unknown = 0};
  EXPECT_THAT(Encode(kPieces, options, "\u4e2d\u6587a\u4e2d"), ElementsAre(0, 1, 0));
  EXPECT_THAT(Encode(kPieces, {}, "\u4e2da"), ElementsAre(1));
}

TEST(Unigram, SpecialTokensAreNeverSpelled) {
  EXPECT_THAT(Encode(kPieces, {.unknown = 0}, "<s>"), ElementsAre(5));
  EXPECT_THAT(Encode(kPieces, {.unknown = 0, .left_out = {5}}, "<s>"), ElementsAre(0));
}

TEST(Unigram, OfEqualTextsTheLastCounts) {
  EXPECT_THAT(Encode({{"<unk>", 0}, {"a", -1}, {"a", -1}}, {.unknown = 0}, "a"), ElementsAre(2));
}

TEST(Unigram, BadPiecesAreNamed) {
  const auto message = [](const std::vector<Unigram::Piece>& pieces, std::optional<Token> unknown) {
    return Unigram::Create(pieces, {.unknown = unknown}).status().ToString();
  };
  EXPECT_THAT(message({{"a", std::numeric_limits<double>::quiet_NaN()}}, std::nullopt),
              HasSubstr("token 0"));
  EXPECT_THAT(message({{"a", 0}, {"b", -std::numeric_limits<double>::infinity()}}, 0),
              HasSubstr("token 1"));
  EXPECT_THAT(message({{"\xff", 0}}, 0), HasSubstr("UTF-8"));
  EXPECT_THAT(message({{"a", 0}}, 1), HasSubstr("unk_id is 1"));
  EXPECT_THAT(message({{"a", 0}}, -1), HasSubstr("unk_id is -1"));
}

TEST(Unigram, CancelledEncodingEnds) {
  absl::StatusOr<std::unique_ptr<TokenModel>> model = Unigram::Create(kPieces, {.unknown = 0});
  ASSERT_TRUE(model.ok());
  const std::atomic<bool> cancelled = true;
  const auto workspace = (*model)->NewWorkspace();
  workspace->cancelled = &cancelled;
  std::vector<Token> out;
  (*model)->Encode(std::string(1 << 20, 'a'), workspace.get(), &out);
  EXPECT_THAT(out, IsEmpty());
}

TEST(ByteTrie, FindsAllPrefixes) {
  const std::vector<ByteTrie::Entry> entry = {
      {"b", 1}, {"abc", 2}, {"a", 3}, {"", 4}, {"ab", 5}, {std::string_view("\0x", 2), 6}};
  const ByteTrie trie(entry);
  std::vector<std::pair<size_t, int32_t>> found;
  trie.ForEachPrefix("xabcd", 1,
                     [&](size_t length, int32_t value) { found.emplace_back(length, value); });
  EXPECT_THAT(found, ElementsAre(std::pair(1, 3), std::pair(2, 5), std::pair(3, 2)));
  EXPECT_EQ(trie.LongestPrefix("abx", 0), 2u);
  EXPECT_EQ(trie.LongestPrefix(std::string_view("\0x", 2), 0), 2u);
  EXPECT_EQ(trie.LongestPrefix("c", 0), 0u);
  EXPECT_TRUE(ByteTrie().empty());
}

}  // namespace
}  // namespace fairlead
