// SPDX-License-Identifier: Apache-2.0
// Words, compared with Hugging Face's tokenizers (tests/golden/text/split.json); the rewriting of
// regular expressions; what a hostile one can do.
#include "models/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> WordsOf(const PreTokenizer& pre_tokenizer, std::string_view text) {
  const Words words = pre_tokenizer.Split(text, true);
  std::vector<std::string> out;
  for (size_t i = 0; i < words.span.size(); ++i) out.emplace_back(words.word(i));
  return out;
}

TEST(PreTokenizer, AgreesWithTheLibrary) {
  const Json golden = ReadGolden("text/split.json");
  ASSERT_EQ(golden.size(), 41u);
  for (const Json& kind : golden) {
    SCOPED_TRACE(DumpJson(kind["pre_tokenizer"]));
    const absl::StatusOr<PreTokenizer> pre_tokenizer =
        PreTokenizer::FromJson(kind["pre_tokenizer"]);
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    ASSERT_EQ(kind["cases"].size(), 24u);
    for (const Json& one : kind["cases"]) {
      EXPECT_EQ(WordsOf(*pre_tokenizer, Text(one["text"])),
                one["words"].get<std::vector<std::string>>())
          << Text(one["text"]);
    }
  }
}

// The example of the library's documentation.
TEST(PreTokenizer, BehaviorsOfSplit) {
  const auto split = [](const char* behavior) {
    const Json json = {{"type", "Split"},
                       {"pattern", {{"String", "-"}}},
                       {"behavior", behavior},
                       {"invert", false}};
    return WordsOf(*PreTokenizer::FromJson(json), "the-final--countdown");
  };
  EXPECT_THAT(split("Removed"), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(split("Isolated"), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(split("MergedWithPrevious"), ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(split("MergedWithNext"), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(split("Contiguous"), ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(PreTokenizer, NullLeavesTheTextWhole) {
  const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(Json());
  ASSERT_TRUE(pre_tokenizer.ok());
  EXPECT_THAT(WordsOf(*pre_tokenizer, "a b"), ElementsAre("a b"));
  EXPECT_TRUE(WordsOf(*pre_tokenizer, "").empty());
  EXPECT_FALSE(pre_tokenizer->byte_level());
}

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  std::vector<TextSpan> span;
  EXPECT_TRUE(regex.ok() && Regex::Search(*regex, text.size()).FindAll(text, &span));
  std::vector<std::string> out;
  for (const TextSpan& s : span) out.emplace_back(text.substr(s.begin, s.size()));
  return out;
}

// Where Oniguruma and PCRE2 read a pattern differently.
TEST(Regex, ReadsPatternsAsOniguruma) {
  EXPECT_THAT(Matches("\\s", " \u180e\u0085"), ElementsAre(" ", "\u0085"));
  EXPECT_THAT(Matches("\\w+", "a\u0301\u00b2_- \u24b6"), ElementsAre("a\u0301\u00b2_", "\u24b6"));
  EXPECT_THAT(Matches("\\W", "a-b"), ElementsAre("-"));
  EXPECT_THAT(Matches("\\h+", "xBEEF z"), ElementsAre("BEEF"));
  EXPECT_THAT(Matches("[\\h]+|\\H", "g1f"), ElementsAre("g", "1f"));
  EXPECT_THAT(Matches("^.|.$", "ab\ncd"), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(Matches("a.b", "a\nb"), ElementsAre());
  EXPECT_THAT(Matches("(?m:a.b)", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(Matches("(?mi)A.B", "a\nb"), ElementsAre("a\nb"));
  EXPECT_THAT(Matches("\\u00e9", "\u00e9"), ElementsAre("\u00e9"));
  EXPECT_THAT(Matches("[]a]+", "a]b"), ElementsAre("a]"));
  EXPECT_THAT(Matches("[^]a]+", "a]b"), ElementsAre("b"));
  EXPECT_THAT(Matches("[[:digit:]x]+", "1x2"), ElementsAre("1x2"));
  EXPECT_THAT(Matches("x*", "axb"), ElementsAre("", "x", ""));
}

// Classes, properties and quantifiers, compared with the library's (tests/golden/text/regex.json).
TEST(Regex, AgreesWithTheLibrary) {
  const Json golden = ReadGolden("text/regex.json");
  ASSERT_GE(golden.size(), 130u);
  for (const Json& kind : golden) {
    const std::string pattern = Text(kind["pattern"]);
    ASSERT_EQ(kind["cases"].size(), 19u);
    for (const Json& one : kind["cases"]) {
      std::vector<std::string> matches = Matches(pattern, Text(one["text"]));
      std::erase(matches, "");
      EXPECT_EQ(matches, one["matches"].get<std::vector<std::string>>())
          << pattern << " in " << Text(one["text"]);
    }
  }
}

TEST(Regex, LiteralsHaveNoSyntax) {
  const absl::StatusOr<Regex> regex = Regex::CompileLiteral("a.(");
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::vector<TextSpan> span;
  EXPECT_TRUE(Regex::Search(*regex, 8).FindAll("axa.(a.(", &span));
  ASSERT_EQ(span.size(), 2u);
  EXPECT_EQ(span[0].begin, 2u);
}

TEST(Regex, RefusesWhatItCannotRead) {
  for (const char* pattern : {"[a&&]", "[&&a]", "[a-[b]]", "[a-\\d]", "[[:foo:]]", "\\u12", "[[:x",
                              "\\xe9", "[\\R]", "(*UTF)a", "\\p{a=b}"}) {
    EXPECT_EQ(Regex::Compile(pattern).status().code(), absl::StatusCode::kUnimplemented) << pattern;
  }
  for (const std::string& pattern :
       {std::string("("), std::string("a**"), std::string("[b-a]"), std::string("\\p{Klingon}"),
        std::string(300, '(') + std::string(300, ')'), std::string(70000, 'a'),
        std::string("[a")}) {
    EXPECT_EQ(Regex::Compile(pattern).status().code(), absl::StatusCode::kInvalidArgument)
        << pattern.substr(0, 20);
  }
}

// Exponential patterns end at the match limit, deep ones do not overflow the stack; no text is
// lost.
TEST(Regex, LimitsHold) {
  struct Hostile {
    const char* pattern;
    size_t length;
  };
  for (const Hostile& hostile :
       {Hostile{"(x+x+)+y", 60}, Hostile{"(?:x|xx)+y", 80}, Hostile{"(?:(x)|w)*y", 1 << 20},
        Hostile{"(?:[x&&x]+[x[x&&x]]+)+y", 60}}) {
    SCOPED_TRACE(hostile.pattern);
    const absl::StatusOr<Regex> regex = Regex::Compile(hostile.pattern);
    ASSERT_TRUE(regex.ok()) << regex.status();
    // One match, then a long way to the next y that is none: without a y it would not even try.
    const std::string text = "xxy" + std::string(hostile.length, 'x') + "zy";
    std::vector<TextSpan> span;
    EXPECT_FALSE(Regex::Search(*regex, text.size()).FindAll(text, &span));
    ASSERT_EQ(span.size(), 1u);
    EXPECT_EQ(span[0].end, 3u);

    const Json json = {
        {"type", "Split"}, {"pattern", {{"Regex", hostile.pattern}}}, {"behavior", "Isolated"}};
    const absl::StatusOr<PreTokenizer> pre_tokenizer = PreTokenizer::FromJson(json);
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
    EXPECT_THAT(WordsOf(*pre_tokenizer, text), ElementsAre("xxy", text.substr(3)));
  }
}

// A character that two members of a class match is one way to match it, not two.
TEST(Regex, NestedClassesStayLinear) {
  const std::string text(100000, 'x');
  for (const char* pattern : {"[x[^a]\\W]*y", "[^\\W[a]&&[^b]]+y", "(?:[x[^a]]+y|z)"})
    EXPECT_THAT(Matches(pattern, text.substr(0, 2000)), ElementsAre()) << pattern;
  EXPECT_THAT(Matches("[x[^a]\\W]+", text), ElementsAre(text));
  EXPECT_THAT(Matches("[\\w&&[^\\p{Han}]]+", text), ElementsAre(text));
  const std::string deep(17, '[');
  EXPECT_EQ(Regex::Compile(deep + "a" + std::string(17, ']')).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Matches(std::string(16, '[') + "a" + std::string(16, ']'), "ba"), ElementsAre("a"));
}

// Repetition of a group needs memory for each turn: more than the JIT's stack, but it works.
TEST(Regex, LongGroupsMatch) {
  const std::string text(200000, 'x');
  EXPECT_THAT(Matches("(?:x|y)+", text), ElementsAre(text));
}

}  // namespace
}  // namespace fairlead
