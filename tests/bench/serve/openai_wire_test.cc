// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/openai_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fairlead::serve_bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Time At(int ms) { return Time() + std::chrono::milliseconds(ms); }

// Reads events that come at 10, 20, 30 ... ms.
Record Read(const std::vector<std::string>& events) {
  Record record;
  AnswerReader reader(record);
  int ms = 0;
  for (const std::string& event : events) reader.OnData(event, At(ms += 10));
  reader.OnEnd();
  return record;
}

constexpr char kUsage[] =
    R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,)"
    R"("prompt_tokens_details":{"cached_tokens":4}}})";

TEST(AnswerReader, CompletionOfOurs) {
  const Record record = Read({
      R"({"choices":[{"index":0,"text":"He","finish_reason":null}],"usage":null})",
      R"({"choices":[{"index":0,"text":"llo","finish_reason":null}],"usage":null})",
      R"({"choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null})",
      kUsage,
      "[DONE]",
  });
  EXPECT_EQ(record.outcome, Outcome::kOk) << record.error_message;
  EXPECT_THAT(record.token_events, ElementsAre(At(10), At(20)));  // the finish carries no token
  EXPECT_EQ(record.answer_text, "Hello");
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.completion_tokens, 3);
  EXPECT_EQ(record.cached_tokens, 4);
}

TEST(AnswerReader, ChatSkipsRoleAndEmptyChunks) {
  const Record record = Read({
      R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})",
      R"({"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]})",
      R"({"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]})",
      R"({"choices":[{"index":0,"delta":{"content":"Hi"}}]})",
      R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]})",
      R"({"choices":[{"index":0,"delta":{"tool_calls":[]},"finish_reason":"stop"}]})",
      kUsage,
      "[DONE]",
  });
  EXPECT_EQ(record.outcome, Outcome::kOk);
  EXPECT_THAT(record.token_events, ElementsAre(At(30), At(40), At(50)));
  EXPECT_EQ(record.answer_text, "hmHi");
}

TEST(AnswerReader, TokenIdsCountWhereTextIsEmpty) {
  const Record record = Read({
      R"({"choices":[{"index":0,"text":"","token_ids":[5,6]}]})",
      R"({"choices":[{"index":0,"text":"x","token_ids":[7]}]})",
      R"({"choices":[{"index":0,"text":"","token_ids":[],"finish_reason":"length"}]})",
      kUsage,
      "[DONE]",
  });
  EXPECT_THAT(record.token_events, ElementsAre(At(10), At(20)));
  EXPECT_EQ(record.answer_ids, (TokenIds{5, 6, 7}));
}

// As vLLM sends it with continuous_usage_stats, and llama-server with its timings.
TEST(AnswerReader, TheLastUsageStands) {
  const Record record = Read({
      R"({"choices":[{"text":"a"}],"usage":{"prompt_tokens":7,"completion_tokens":1}})",
      R"({"choices":[{"text":"b"}],"usage":{"prompt_tokens":7,"completion_tokens":2},"timings":{}})",
      "[DONE]",
  });
  EXPECT_EQ(record.outcome, Outcome::kOk);
  EXPECT_EQ(record.completion_tokens, 2);
  EXPECT_EQ(record.cached_tokens, 0);
}

TEST(AnswerReader, ErrorsByKind) {
  EXPECT_EQ(Read({kUsage}).error_kind, "incomplete");
  EXPECT_EQ(Read({R"({"choices":[{"text":"a"}]})", "[DONE]"}).error_kind, "no_usage");
  EXPECT_EQ(Read({R"({"choices":[],"usage":{"completion_tokens":"3"}})", "[DONE]"}).error_kind,
            "no_usage");
  EXPECT_EQ(Read({"not json"}).error_kind, "protocol");
  EXPECT_EQ(Read({"[1]"}).error_kind, "protocol");
  const Record record = Read({R"({"error":{"message":"out of memory","code":500}})", "[DONE]"});
  EXPECT_EQ(record.error_kind, "stream_error");
  EXPECT_EQ(record.error_message, "out of memory");
}

TEST(AnswerReader, SurvivesOddShapes) {
  const Record record = Read({
      R"({"choices":[1,null,{"text":5},{"delta":3},{"delta":{"content":{}}},{"token_ids":"x"}]})",
      R"({"choices":{"text":"a"},"usage":[]})",
      R"({"error":null,"choices":[{"text":"a"}]})",
      kUsage,
      "[DONE]",
  });
  EXPECT_EQ(record.outcome, Outcome::kOk);
  EXPECT_THAT(record.token_events, ElementsAre(At(30)));
}

TEST(ErrorMessage, OfEveryServersShape) {
  EXPECT_EQ(ErrorMessage(R"({"error":{"message":"a"}})"), "a");
  EXPECT_EQ(ErrorMessage(R"({"object":"error","message":"b"})"), "b");
  EXPECT_EQ(ErrorMessage(R"({"error":"c"})"), "c");
  EXPECT_EQ(ErrorMessage("<html>"), "<html>");
  EXPECT_EQ(ErrorMessage(std::string(300, 'x')).size(), 200u);
}

TEST(BodyOf, TokensTextAndChat) {
  TargetOptions options{.model = "m"};
  Request request{.prompt = TokenIds{1, 2}, .max_tokens = 9};
  EXPECT_STREQ(PathOf(request), "/v1/completions");
  EXPECT_EQ(*ParseJson(BodyOf(request, options)), *ParseJson(R"({"model":"m","prompt":[1,2],
    "max_tokens":9,"temperature":0.0,"stream":true,"stream_options":{"include_usage":true},
    "ignore_eos":true})"));
  request.prompt = "text";
  request.wants_answer_ids = true;
  options.ignore_eos = false;
  options.extra_body = *ParseJson(R"({"temperature":0.5,"response_format":{"type":"text"}})");
  const Json body = *ParseJson(BodyOf(request, options));
  EXPECT_EQ(body["prompt"], "text");
  EXPECT_FALSE(body.contains("ignore_eos"));
  EXPECT_EQ(body["return_token_ids"], true);
  EXPECT_EQ(body["temperature"], 0.5);
  EXPECT_TRUE(body.contains("response_format"));
  request.prompt = Chat{{"system", "s"}, {"user", "u"}};
  EXPECT_STREQ(PathOf(request), "/v1/chat/completions");
  EXPECT_THAT(BodyOf(request, options), HasSubstr(R"({"role":"user","content":"u"})"));
}

}  // namespace
}  // namespace fairlead::serve_bench
