// SPDX-License-Identifier: Apache-2.0
// Events as OpenAI's answers: whole bodies and chunks, compared as JSON with what the API
// documents.
#include "server/openai_response.h"

#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace fairlead {
namespace {

const AnswerIdentity kIdentity = {"1", "m", "fp", 1700000000};

pb::GenerateEvent Started(int prompt_tokens, std::vector<int32_t> ids = {}) {
  pb::GenerateEvent event;
  event.mutable_started()->set_prompt_tokens(prompt_tokens);
  event.mutable_started()->mutable_prompt_token_ids()->Add(ids.begin(), ids.end());
  return event;
}

pb::TokenLogprob Logprob(int token, float logprob, int rank, const std::string& text) {
  pb::TokenLogprob out;
  out.set_token(token);
  out.set_logprob(logprob);
  out.set_rank(rank);
  out.set_text(text);
  return out;
}

pb::GenerateEvent Delta(int choice, const std::string& text,
                        std::vector<pb::TokenLogprob> logprobs = {},
                        std::vector<int32_t> ids = {}) {
  pb::GenerateEvent event;
  pb::Delta& delta = *event.mutable_delta();
  delta.set_choice(choice);
  delta.set_text(text);
  delta.set_num_tokens(1);
  for (const auto& logprob : logprobs) *delta.add_logprobs() = logprob;
  delta.mutable_token_ids()->Add(ids.begin(), ids.end());
  return event;
}

pb::GenerateEvent Finish(int choice, pb::FinishReason reason) {
  pb::GenerateEvent event;
  event.mutable_finish()->set_choice(choice);
  event.mutable_finish()->set_reason(reason);
  return event;
}

pb::GenerateEvent Usage(int prompt, int completion, int cached) {
  pb::GenerateEvent event;
  event.mutable_usage()->set_prompt_tokens(prompt);
  event.mutable_usage()->set_completion_tokens(completion);
  event.mutable_usage()->set_cached_prompt_tokens(cached);
  return event;
}

OpenAiRequest Request(bool is_chat) {
  OpenAiRequest request;
  request.is_chat = is_chat;
  request.prompts.emplace_back();
  return request;
}

Json Parse(const std::string& text) { return *ParseJson(text); }

// The data of each event; [DONE] as a string.
std::vector<Json> Events(const std::string& chunks) {
  std::vector<Json> events;
  for (absl::string_view event : absl::StrSplit(chunks, "\n\n", absl::SkipEmpty())) {
    EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
    events.push_back(event == "[DONE]" ? Json("[DONE]") : Parse(std::string(event)));
  }
  return events;
}

TEST(OpenAiAnswer, ChatBody) {
  OpenAiRequest request = Request(true);
  request.logprobs = true;
  OpenAiAnswer answer(request, kIdentity);
  pb::TokenLogprob token = Logprob(7, -0.5f, 1, "H\xc3");
  *token.add_top() = Logprob(7, -0.5f, 1, "H\xc3");
  *token.add_top() = Logprob(8, -std::numeric_limits<float>::infinity(), 2, "x");
  answer.Add(0, Started(3));
  answer.Add(0, Delta(0, "He", {token}));
  answer.Add(0, Delta(0, "y"));
  answer.Add(0, Finish(0, pb::FINISH_REASON_LENGTH));
  answer.Add(0, Usage(3, 2, 1));
  EXPECT_EQ(answer.Body(), Parse(R"({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "m",
    "system_fingerprint": "fp",
    "choices": [{"index": 0,
      "message": {"role": "assistant", "content": "Hey", "refusal": null},
      "logprobs": {"content": [{"token": "H\ufffd", "logprob": -0.5, "bytes": [72, 195],
        "top_logprobs": [{"token": "H\ufffd", "logprob": -0.5, "bytes": [72, 195]},
                         {"token": "x", "logprob": -9999.0, "bytes": [120]}]}],
        "refusal": null},
      "finish_reason": "length", "stop_reason": null}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
              "prompt_tokens_details": {"cached_tokens": 1}}})"));
}

// Text alone is written by hand, everything else from a tree: the bytes around it are the same.
TEST(OpenAiAnswer, TextChunksToTheByte) {
  OpenAiRequest request = Request(false);
  OpenAiAnswer completion(request, kIdentity);
  const std::string head =
      "data: "
      "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","
      "\"system_fingerprint\":\"fp\",\"choices\":[";
  EXPECT_EQ(
      completion.Chunks(0, Delta(0, "a \"b\"\n")),
      head +
          "{\"index\":0,\"text\":\"a \\\"b\\\"\\n\",\"logprobs\":null,\"finish_reason\":null}]}"
          "\n\n");
  request.return_token_ids = true;  // from a tree
  EXPECT_EQ(
      completion.Chunks(0, Delta(0, "c", {}, {5})),
      head +
          "{\"index\":0,\"text\":\"c\",\"logprobs\":null,\"finish_reason\":null,\"token_ids\":[5],"
          "\"prompt_token_ids\":null}]}\n\n");

  OpenAiRequest chat_request = Request(true);
  chat_request.include_usage = true;
  OpenAiAnswer chat(chat_request, kIdentity);
  chat.Chunks(0, Delta(0, "role and text"));
  EXPECT_EQ(
      chat.Chunks(0, Delta(0, "é")),
      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
      "\"model\":\"m\",\"system_fingerprint\":\"fp\",\"choices\":[{\"index\":0,\"delta\":{"
      "\"content\":\"é\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n");
}

TEST(OpenAiAnswer, ChatChunks) {
  OpenAiRequest request = Request(true);
  request.include_usage = true;
  OpenAiAnswer answer(request, kIdentity);
  EXPECT_EQ(answer.Chunks(0, Started(3)), "");
  std::vector<Json> events = Events(answer.Chunks(0, Delta(0, "Hi")));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0], Parse(R"({
    "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m",
    "system_fingerprint": "fp", "choices": [{"index": 0,
      "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}],
    "usage": null})"));
  EXPECT_EQ(events[1]["choices"][0]["delta"], Parse(R"({"content": "Hi"})"));
  EXPECT_EQ(Events(answer.Chunks(0, Delta(0, "!"))).size(), 1u);  // the role comes once
  pb::GenerateEvent finish = Finish(0, pb::FINISH_REASON_STOP);
  finish.mutable_finish()->set_stop_string("END");
  events = Events(answer.Chunks(0, finish));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(events[0]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[0]["choices"][0]["stop_reason"], "END");
  EXPECT_EQ(answer.Chunks(0, Usage(3, 2, 0)), "");
  events = Events(answer.LastChunks());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["choices"], Json::array());
  EXPECT_EQ(events[0]["usage"]["total_tokens"], 5);
  EXPECT_EQ(events[1], "[DONE]");
}

TEST(OpenAiAnswer, NoUsageUnlessAskedFor) {
  const OpenAiRequest request = Request(true);
  OpenAiAnswer answer(request, kIdentity);
  EXPECT_FALSE(Events(answer.Chunks(0, Delta(0, "Hi")))[0].contains("usage"));
  answer.Chunks(0, Usage(3, 2, 0));
  EXPECT_EQ(answer.LastChunks(), "data: [DONE]\n\n");
}

TEST(OpenAiAnswer, ContinuousUsageCounts) {
  OpenAiRequest request = Request(false);
  request.continuous_usage = true;
  OpenAiAnswer answer(request, kIdentity);
  answer.Chunks(0, Started(3));
  EXPECT_EQ(Events(answer.Chunks(0, Delta(0, "a")))[0]["usage"]["completion_tokens"], 1);
  const Json usage = Events(answer.Chunks(0, Delta(0, "b")))[0]["usage"];
  EXPECT_EQ(usage["completion_tokens"], 2);
  EXPECT_EQ(usage["prompt_tokens"], 3);
  EXPECT_EQ(usage["total_tokens"], 5);
}

TEST(OpenAiAnswer, CompletionChoicesAreNumberedByPromptAndChoice) {
  OpenAiRequest request = Request(false);
  request.prompts.emplace_back();
  for (auto& prompt : request.prompts) prompt.set_n(2);
  OpenAiAnswer answer(request, kIdentity);
  for (int prompt : {1, 0}) {
    answer.Add(prompt, Started(2));
    for (int choice : {1, 0}) {
      answer.Add(prompt, Delta(choice, std::to_string(prompt) + std::to_string(choice)));
      answer.Add(prompt, Finish(choice, pb::FINISH_REASON_STOP));
    }
    answer.Add(prompt, Usage(2, 4, 0));
  }
  const Json body = answer.Body();
  EXPECT_EQ(body["id"], "cmpl-1");
  EXPECT_EQ(body["object"], "text_completion");
  ASSERT_EQ(body["choices"].size(), 4u);
  const char* const texts[] = {"00", "01", "10", "11"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], texts[i]);
  }
  EXPECT_EQ(body["usage"]["total_tokens"], 12);
}

TEST(OpenAiAnswer, LegacyLogprobsWithEcho) {
  OpenAiRequest request = Request(false);
  request.echo = true;
  request.logprobs = true;
  OpenAiAnswer answer(request, kIdentity);
  pb::GenerateEvent prompt;
  *prompt.mutable_prompt_logprobs()->add_tokens() = Logprob(1, 0, 0, "\xc3\xa4");
  pb::TokenLogprob second = Logprob(2, -1, 3, "b");
  second.set_text_offset(1);
  *second.add_top() = Logprob(9, -0.5f, 1, "z");
  *prompt.mutable_prompt_logprobs()->add_tokens() = second;
  answer.Add(0, Started(2));
  answer.Add(0, Delta(0,
                      "\xc3\xa4"
                      "b"));  // the echo
  answer.Add(0, prompt);
  pb::TokenLogprob third = Logprob(3, -0.25f, 1, "c");
  third.set_text_offset(2);
  answer.Add(0, Delta(0, "c", {third}));
  answer.Add(0, Finish(0, pb::FINISH_REASON_STOP));
  const Json choice = answer.Body()["choices"][0];
  EXPECT_EQ(choice["text"],
            "\xc3\xa4"
            "bc");
  EXPECT_EQ(choice["logprobs"], Parse(R"({
    "tokens": ["\u00e4", "b", "c"], "token_logprobs": [null, -1.0, -0.25],
    "top_logprobs": [null, {"z": -0.5, "b": -1.0}, {"c": -0.25}], "text_offset": [0, 1, 2]})"));
}

TEST(OpenAiAnswer, PromptLogprobsAndTokenIds) {
  OpenAiRequest request = Request(false);
  request.prompt_logprobs = true;
  request.return_token_ids = true;
  OpenAiAnswer answer(request, kIdentity);
  pb::GenerateEvent prompt;
  *prompt.mutable_prompt_logprobs()->add_tokens() = Logprob(1, 0, 0, "a");
  pb::TokenLogprob second = Logprob(2, -1, 3, "b");
  second.set_text_offset(1);
  *second.add_top() = Logprob(9, -0.5f, 1, "z");
  *prompt.mutable_prompt_logprobs()->add_tokens() = second;
  answer.Add(0, Started(2, {1, 2}));
  answer.Add(0, prompt);
  answer.Add(0, Delta(0, "c", {}, {3}));
  answer.Add(0, Finish(0, pb::FINISH_REASON_STOP));
  const Json choice = answer.Body()["choices"][0];
  EXPECT_EQ(choice["token_ids"], (Json{3}));
  EXPECT_EQ(choice["prompt_token_ids"], (Json{1, 2}));
  EXPECT_EQ(choice["prompt_logprobs"], Parse(R"([null,
    {"2": {"logprob": -1.0, "rank": 3, "decoded_token": "b"},
     "9": {"logprob": -0.5, "rank": 1, "decoded_token": "z"}}])"));

  OpenAiRequest chat = Request(true);
  chat.return_token_ids = true;
  OpenAiAnswer chat_answer(chat, kIdentity);
  chat_answer.Add(0, Started(2, {1, 2}));
  EXPECT_EQ(chat_answer.Body()["prompt_token_ids"], (Json{1, 2}));
}

TEST(OpenAiAnswer, TokensAsIds) {
  OpenAiRequest request = Request(true);
  request.logprobs = true;
  request.tokens_as_ids = true;
  OpenAiAnswer answer(request, kIdentity);
  answer.Add(0, Delta(0, "c", {Logprob(3, -0.25f, 1, "c")}));
  EXPECT_EQ(answer.Body()["choices"][0]["logprobs"]["content"][0]["token"], "token_id:3");
}

TEST(OpenAiAnswer, AnErrorInAStreamEndsIt) {
  const std::vector<Json> events =
      Events(OpenAiAnswer::ErrorChunks(Json{{"error", {{"message", "x"}}}}));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["error"]["message"], "x");
  EXPECT_EQ(events[1], "[DONE]");
}

}  // namespace
}  // namespace fairlead
