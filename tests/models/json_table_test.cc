// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/detokenizer.h"
#include "models/json_file.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

TEST(JsonTableTest, ReadsWhatParseJsonReads) {
  const auto table = ParseJsonTable(R"({"b":[1,2.5,"x"],"a":{"a":null,"b":true}})");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->at("b").at(1), 2.5);
  EXPECT_EQ(table->at("a").at("b"), true);
  EXPECT_TRUE(ParseJsonTable("[{\"a\":1},{\"a\":1}]").ok());  // one key in two objects
}

TEST(JsonTableTest, DuplicateKeysAtAnyDepthAreNamed) {
  for (const char* text :
       {R"({"x":1,"x":1})", R"({"a":{"x":1,"b":[],"x":2}})", R"([{"a":{}},{"x":{"c":1},"x":1}])"}) {
    const auto table = ParseJsonTable(text);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr("duplicate key \"x\"")) << text;
  }
}

TEST(JsonTableTest, DepthAndSyntaxErrors) {
  EXPECT_TRUE(ParseJsonTable("[[1]]", 2).ok());
  EXPECT_THAT(std::string(ParseJsonTable("[[[1]]]", 2).status().message()),
              HasSubstr("nested deeper than 2"));
  EXPECT_THAT(std::string(ParseJsonTable("{\"a\":}").status().message()),
              HasSubstr("invalid JSON at byte 6"));
  EXPECT_FALSE(ParseJsonTable("").ok());
  EXPECT_FALSE(ParseJsonTable("{} {}").ok());
  EXPECT_FALSE(ParseJsonTable(std::string(1000000, '[')).ok());
}

TEST(JsonTableTest, LongTokensAreCutInMessages) {
  const std::string text = "\"" + std::string(1000000, 'x');
  EXPECT_LT(ParseJsonTable(text).status().message().size(), 500u);
  EXPECT_LT(ParseJson(text).status().message().size(), 500u);
}

TEST(JsonTableTest, MessagesAreUtf8) {
  const std::string cut = "\"" + std::string(171, 'x') + "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9";
  for (const std::string& text :
       {std::string("\"\xff"), std::string("{\"\xc3\":0}"), cut, "x" + cut}) {
    const absl::Status status = ParseJson(text).status();
    EXPECT_TRUE(IsValidUtf8(std::string_view(status.message().data(), status.message().size())))
        << status;
  }
}

// What the parser would keep: strings, numbers, white space.
TEST(JsonTableTest, LongTokensAreRefusedInFiles) {
  const auto says = [](const std::string& text) {
    return std::string(ParseJsonFile(text).status().message());
  };
  for (const char c : {'x', '\\', ' ', '"'}) {
    const std::string inside = c == '"' ? "\\\"" : std::string(2, c);
    std::string text = "[\"";
    while (text.size() < kMaxFileToken) text += inside;
    EXPECT_THAT(says(text + inside + inside + "\"]"),
                HasSubstr("at byte 1 has a token of more than 8388608"))
        << c;
  }
  EXPECT_THAT(says("[" + std::string(kMaxFileToken + 1, '1') + "]"), HasSubstr("a token of more"));
  EXPECT_THAT(says("[" + std::string(kMaxFileToken + 1, ' ') + "]"), HasSubstr("a token of more"));
  EXPECT_TRUE(ParseJsonFile("[\"" + std::string(kMaxFileToken - 2, 'x') + "\"]").ok());
}

TEST(JsonTableTest, TextIsBoundedInFiles) {
  const std::string word = "\"" + std::string(1 << 20, 'x') + "\"";
  std::string text = "[0";
  for (size_t i = 0; i < kMaxFileText >> 20; ++i) text += "," + word;
  EXPECT_TRUE(ParseJsonFile(text + "]").ok());
  for (const std::string& more : {std::string(",\"x\"]"), std::string(",{\"x\":0}]")}) {
    EXPECT_THAT(std::string(ParseJsonFile(text + more).status().message()),
                HasSubstr("more than 33554432 bytes of keys and strings"));
  }
}

}  // namespace
}  // namespace fairlead
