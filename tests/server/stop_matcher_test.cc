// SPDX-License-Identifier: Apache-2.0
#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace fairlead {
namespace {

struct Outcome {
  std::string text;
  std::string match;  // empty: none
};

// Feeds a text in pieces that end at `cuts`.
Outcome Feed(const std::vector<std::string>& stops, bool include, const std::string& text,
             size_t piece) {
  StopMatcher matcher(stops, include);
  Outcome outcome;
  for (size_t i = 0; i < text.size(); i += piece) {
    const StopMatcher::Result result = matcher.Push(std::string_view(text).substr(i, piece));
    outcome.text += result.text;
    if (result.match != nullptr) {
      outcome.match = *result.match;
      return outcome;
    }
  }
  outcome.text += matcher.Finish();
  return outcome;
}

// By definition: the shortest prefix of the text that ends with a stop string ends the output.
Outcome Expected(const std::vector<std::string>& stops, bool include, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* longest = nullptr;
    for (const std::string& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (longest == nullptr || stop.size() > longest->size())) {
        longest = &stop;
      }
    }
    if (longest != nullptr)
      return {text.substr(0, include ? end : end - longest->size()), *longest};
  }
  return {text, ""};
}

TEST(StopMatcher, EqualsTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 random(1);
  const auto word = [&random](size_t longest) {
    std::string text;
    const size_t size = 1 + random() % longest;
    for (size_t i = 0; i < size; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 1 + random() % 3; i > 0; --i) stops.push_back(word(6));
    const std::string text = word(40);
    const bool include = random() % 2 == 0;
    const Outcome expected = Expected(stops, include, text);
    for (const size_t piece : {1, 2, 3, 7, 64}) {
      const Outcome outcome = Feed(stops, include, text, piece);
      EXPECT_EQ(outcome.text, expected.text) << text;
      EXPECT_EQ(outcome.match, expected.match) << text;
    }
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAMatch) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.Push("abcE").text, "abc");
  EXPECT_TRUE(matcher.holding());
  EXPECT_EQ(matcher.Push("NX").text, "ENX");
  EXPECT_FALSE(matcher.holding());
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Finish(), "EN");
}

TEST(StopMatcher, WithoutStopsNothingIsHeld) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

}  // namespace
}  // namespace fairlead
