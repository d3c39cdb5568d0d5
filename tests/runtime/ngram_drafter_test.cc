// SPDX-License-Identifier: Apache-2.0
// What follows what, written down by hand.
#include "runtime/ngram_drafter.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<Token> DraftOf(const NgramDrafter& drafter, const std::vector<Token>& tokens, int n) {
  std::vector<Token> draft(n);
  draft.resize(drafter.Draft(tokens, absl::MakeSpan(draft)));
  return draft;
}

// The draft after `prompt`.
std::vector<Token> DraftAfter(const std::vector<Token>& prompt, int n) {
  return DraftOf(NgramDrafter(prompt, 100), prompt, n);
}

TEST(NgramDrafterTest, NothingWithoutAnEarlierPair) {
  EXPECT_THAT(DraftAfter({}, 4), IsEmpty());
  EXPECT_THAT(DraftAfter({1}, 4), IsEmpty());
  EXPECT_THAT(DraftAfter({1, 2}, 4), IsEmpty());
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 5}, 4), IsEmpty());
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 2}, 4), IsEmpty());  // one token is too little
}

TEST(NgramDrafterTest, WhatFollowedThePair) {
  EXPECT_THAT(DraftAfter({1, 2, 3, 4, 5, 6, 1, 2}, 3), ElementsAre(3, 4, 5));
}

TEST(NgramDrafterTest, TheLatestOfEqualMatches) {
  EXPECT_THAT(DraftAfter({1, 2, 30, 9, 1, 2, 40, 8, 1, 2}, 1), ElementsAre(40));
}

TEST(NgramDrafterTest, ALongerMatchBeatsALaterOne) {
  EXPECT_THAT(DraftAfter({7, 1, 2, 30, 9, 1, 2, 40, 7, 1, 2}, 1), ElementsAre(30));
}

TEST(NgramDrafterTest, ShortRepetitionsGoOn) {
  // The last pair stood one period before, so a period is known and then repeats.
  EXPECT_THAT(DraftAfter({5, 6, 7, 5, 6}, 7), ElementsAre(7, 5, 6, 7, 5, 6, 7));
  EXPECT_THAT(DraftAfter({4, 4, 4}, 3), ElementsAre(4, 4, 4));
}

TEST(NgramDrafterTest, FollowsAMatchWhileItHoldsAndLooksAgainAfterwards) {
  std::vector<Token> tokens = {1, 2, 3, 4, 5, 9, 8, 7, 1, 2};
  NgramDrafter drafter(tokens, 100);
  const auto append = [&](Token token) {
    tokens.push_back(token);
    drafter.Append(tokens);
  };
  append(3);
  EXPECT_THAT(DraftOf(drafter, tokens, 2), ElementsAre(4, 5));
  append(4);
  EXPECT_THAT(DraftOf(drafter, tokens, 2), ElementsAre(5, 9));
  append(50);  // not 5
  EXPECT_THAT(DraftOf(drafter, tokens, 2), IsEmpty());
  EXPECT_FALSE(drafter.has_match());
  append(9);
  append(8);
  EXPECT_THAT(DraftOf(drafter, tokens, 2), ElementsAre(7, 1));
  EXPECT_TRUE(drafter.has_match());
}

// The mean of hits begins at 1/4 and moves by 1/16 of the error; a match counts its own hits
// against 4 of those.
TEST(NgramDrafterTest, AcceptanceByHand) {
  std::vector<Token> tokens = {1, 2, 3, 4, 5, 9, 8, 7, 1, 2};
  NgramDrafter drafter(tokens, 100);
  EXPECT_DOUBLE_EQ(drafter.acceptance(), 0.25);
  tokens.push_back(3);
  drafter.Append(tokens);
  const double after_hit = 0.25 + 0.75 / 16;
  EXPECT_DOUBLE_EQ(drafter.acceptance(), (1 + 4 * after_hit) / 5);
  tokens.push_back(60);
  drafter.Append(tokens);
  EXPECT_DOUBLE_EQ(drafter.acceptance(), after_hit - after_hit / 16);
  tokens.push_back(61);  // without a match nothing is learned
  drafter.Append(tokens);
  EXPECT_DOUBLE_EQ(drafter.acceptance(), after_hit - after_hit / 16);
}

// The definition, searched from the end: the longest match up to kMaxMatch, then the latest.
std::vector<Token> NaiveDraft(const std::vector<Token>& tokens, int n) {
  const int size = static_cast<int>(tokens.size());
  int best = -1, best_length = NgramDrafter::kMinMatch - 1;
  for (int p = size - 1; p >= 0; --p) {
    int length = 0;
    while (length < NgramDrafter::kMaxMatch && length < p &&
           tokens[p - 1 - length] == tokens[size - 1 - length]) {
      ++length;
    }
    if (length > best_length) best = p, best_length = length;
  }
  std::vector<Token> draft;
  for (int i = 0; best >= 0 && i < n; ++i)
    draft.push_back(best + i < size ? tokens[best + i] : draft[best + i - size]);
  return draft;
}

// 60 tokens have no more candidates than are looked at.
TEST(NgramDrafterTest, AgreesWithANaiveSearch) {
  std::mt19937 random(5);
  int drafted = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<Token> tokens(random() % 60);
    for (Token& token : tokens) token = static_cast<Token>(random() % (2 + i % 7));
    const std::vector<Token> draft = DraftAfter(tokens, 9);
    EXPECT_EQ(draft, NaiveDraft(tokens, 9)) << ::testing::PrintToString(tokens);
    drafted += !draft.empty();
  }
  EXPECT_GT(drafted, 500);
}

}  // namespace
}  // namespace fairlead
