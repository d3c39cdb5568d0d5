// SPDX-License-Identifier: Apache-2.0
#include "bench/common/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/common/options.h"
#include "bench/engine/cases.h"

namespace fairlead::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Summarize, OddEvenOneNone) {
  const Summary odd = Summarize({9, 1, 4});
  EXPECT_EQ(odd.median, 4);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 9);
  EXPECT_EQ(Summarize({8, 1, 2, 4}).median, 3);
  EXPECT_EQ(Summarize({7}).median, 7);
  EXPECT_EQ(Summarize({}).median, 0);
}

TEST(SummaryJson, KeepsTheOrderMeasured) {
  EXPECT_EQ(SummaryJson({3, 1, 2}).dump(),
            R"({"median":2.0,"min":1.0,"max":3.0,"samples":[3.0,1.0,2.0]})");
}

TEST(ParseIntList, TakesCommasAndRefusesTheRest) {
  EXPECT_THAT(*ParseIntList("-p", "128,512", 0, 1024), ElementsAre(128, 512));
  for (const char* text : {"", "1,", "x", "1 2", "-1", "1025", "1.5"}) {
    const auto list = ParseIntList("-p", text, 0, 1024);
    ASSERT_FALSE(list.ok()) << text;
    EXPECT_THAT(std::string(list.status().message()), HasSubstr("-p"));
    EXPECT_THAT(std::string(list.status().message()), HasSubstr("1024"));
  }
}

TEST(ParseNameList, ListsWhatIsAllowed) {
  EXPECT_THAT(*ParseNameList("--numerics", "fast,precise", {"precise", "fast"}),
              ElementsAre("fast", "precise"));
  EXPECT_THAT(
      std::string(ParseNameList("--numerics", "slow", {"precise", "fast"}).status().message()),
      HasSubstr("precise, fast"));
}

TEST(MakeCases, InTheWordsOfLlamaBench) {
  std::vector<std::string> names;
  for (const EngineCase& c : MakeCases({.prompt = {512},
                             .generate = {64},
                             .depth = {0, 1024},
                             .batch = {1, 16},
                             .mixed = {128, 32}}))
    names.push_back(c.Name());
  EXPECT_THAT(names, ElementsAre("pp512", "pp512 @ d1024", "tg64", "tg64 b16", "tg64 @ d1024",
                                 "tg64 @ d1024 b16", "pp128+tg32", "pp128+tg32 b16"));
  EXPECT_TRUE(
      MakeCases({.prompt = {0}, .generate = {0}, .depth = {0}, .batch = {1}, .mixed = {}}).empty());
}

}  // namespace
}  // namespace fairlead::bench
