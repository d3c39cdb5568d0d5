// SPDX-License-Identifier: Apache-2.0
// OpenAI's request JSON as proto: what each field becomes, and which field an error names.
#include "server/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/errors.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<OpenAiRequest> Chat(const std::string& text) {
  return ParseChatRequest(*ParseJson(text));
}
absl::StatusOr<OpenAiRequest> Completion(const std::string& text) {
  return ParseCompletionRequest(*ParseJson(text));
}

TEST(OpenAiChatRequest, EveryFieldFindsItsPlace) {
  const auto request = Chat(R"({
    "model": "m", "messages": [{"role": "system", "content": "s"},
                               {"role": "user", "content": [{"type": "text", "text": "a"},
                                                            {"type": "text", "text": "b"}],
                                "name": "n"}],
    "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5,
    "presence_penalty": -1, "frequency_penalty": 2, "seed": -3, "logit_bias": {"5": -100},
    "max_completion_tokens": 9, "min_tokens": 2, "stop": ["x", "y"], "stop_token_ids": [1, 2],
    "ignore_eos": true, "n": 3, "priority": -4, "logprobs": true, "top_logprobs": 5,
    "stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true,
    "return_tokens_as_token_ids": true, "add_special_tokens": true, "request_id": "r",
    "chat_template_kwargs": {"think": false}, "unknown_field": 1, "user": "u"})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->is_chat);
  EXPECT_TRUE(request->stream);
  EXPECT_TRUE(request->include_usage);
  EXPECT_TRUE(request->logprobs);
  EXPECT_TRUE(request->tokens_as_ids);
  ASSERT_EQ(request->prompts.size(), 1u);
  const pb::GenerateRequest& prompt = request->prompts[0];
  EXPECT_EQ(prompt.model(), "m");
  ASSERT_EQ(prompt.chat().messages_size(), 2);
  EXPECT_EQ(prompt.chat().messages(1).extra_json(),
            R"({"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"})");
  EXPECT_EQ(prompt.chat().template_variables_json(), R"({"think":false})");
  EXPECT_EQ(prompt.sampling().temperature(), 0.5f);
  EXPECT_EQ(prompt.sampling().top_p(), 0.25f);
  EXPECT_EQ(prompt.sampling().top_k(), 7);
  EXPECT_EQ(prompt.sampling().min_p(), 0.125f);
  EXPECT_EQ(prompt.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(prompt.sampling().presence_penalty(), -1);
  EXPECT_EQ(prompt.sampling().frequency_penalty(), 2);
  EXPECT_EQ(prompt.sampling().seed(), -3);
  EXPECT_EQ(prompt.sampling().logit_bias().at(5), -100);
  EXPECT_EQ(prompt.stop().max_tokens(), 9);
  EXPECT_EQ(prompt.stop().min_tokens(), 2);
  EXPECT_THAT(prompt.stop().stop(), ElementsAre("x", "y"));
  EXPECT_THAT(prompt.stop().stop_token_ids(), ElementsAre(1, 2));
  EXPECT_TRUE(prompt.stop().ignore_eos());
  EXPECT_EQ(prompt.n(), 3);
  EXPECT_EQ(prompt.priority(), -4);
  EXPECT_EQ(prompt.output().logprobs(), 5);
  EXPECT_TRUE(prompt.output().return_token_ids());
  EXPECT_TRUE(prompt.add_special_tokens());
  EXPECT_EQ(prompt.request_id(), "r");
}

TEST(OpenAiChatRequest, NullIsAbsent) {
  const auto request = Chat(R"({"messages": [{"role": "user", "content": "x"}], "temperature": null,
    "stop": null, "n": null, "seed": null, "stream": null, "stream_options": null, "tools": null,
    "response_format": null, "logit_bias": null, "max_tokens": null})");
  ASSERT_TRUE(request.ok()) << request.status();
  const pb::GenerateRequest& prompt = request->prompts[0];
  EXPECT_FALSE(prompt.sampling().has_temperature());
  EXPECT_FALSE(prompt.stop().has_max_tokens());
  EXPECT_FALSE(prompt.has_n());
}

TEST(OpenAiChatRequest, ToolCallsBecomeObjects) {
  const auto request = Chat(R"({"messages": [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": null, "tool_calls": [
      {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
    {"role": "tool", "content": "2", "tool_call_id": "1"}],
    "tools": [{"type": "function", "function": {"name": "f"}}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  const pb::ChatInput& chat = request->prompts[0].chat();
  EXPECT_FALSE(chat.messages(1).has_content());
  const Json extra = *ParseJson(chat.messages(1).extra_json());
  EXPECT_EQ(extra["tool_calls"][0]["function"]["arguments"], (Json{{"a", 1}}));
  EXPECT_EQ(*ParseJson(chat.messages(2).extra_json()), (Json{{"tool_call_id", "1"}}));
  EXPECT_EQ(ParseJson(chat.tools_json())->size(), 1u);
}

TEST(OpenAiChatRequest, ErrorsNameTheField) {
  const std::string start = R"({"messages": [{"role": "user", "content": "x"}], )";
  const std::pair<std::string, std::string> cases[] = {
      {"{}", "messages"},
      {R"({"messages": []})", "messages"},
      {R"({"messages": "x"})", "messages"},
      {R"({"messages": ["x"]})", "messages"},
      {R"({"messages": [{"content": "x"}]})", "messages"},
      {R"({"messages": [{"role": "user"}]})", "messages"},
      {start + R"("temperature": "hot"})", "temperature"},
      {start + R"("top_k": 1.5})", "top_k"},
      {start + R"("max_tokens": 1e99})", "max_tokens"},
      {start + R"("max_tokens": true})", "max_tokens"},
      {start + R"("n": "2"})", "n"},
      {start + R"("seed": 99999999999999999999})", "seed"},
      {start + R"("stop": [1]})", "stop"},
      {start + R"("stop": 1})", "stop"},
      {start + R"("stop_token_ids": ["a"]})", "stop_token_ids"},
      {start + R"("logit_bias": {"x": 1}})", "logit_bias"},
      {start + R"("logit_bias": {"1": "a"}})", "logit_bias"},
      {start + R"("logit_bias": [1]})", "logit_bias"},
      {start + R"("stream": 1})", "stream"},
      {start + R"("stream_options": {}})", "stream_options"},
      {start + R"("stream": true, "stream_options": {"include_usage": 1}})", "stream_options"},
      {start + R"("top_logprobs": 2})", "top_logprobs"},
      {start + R"("response_format": {"type": "json_object"}})", "response_format"},
      {start + R"("tool_choice": "required"})", "tool_choice"},
      {start + R"("tools": [1]})", "tools"},
      {start + R"("functions": [{}]})", "functions"},
      {start + R"("chat_template": {}})", "chat_template"},
      {start + R"("prompt_logprobs": 1, "stream": true})", "prompt_logprobs"},
      {start + R"("logit_bias": {" 5": 1}})", "logit_bias"},
      {start + R"("user": {}})", "user"},
      {start + R"("store": "x"})", "store"},
      {start + R"("metadata": "x"})", "metadata"},
      {start + R"("parallel_tool_calls": 1})", "parallel_tool_calls"},
      {start + R"("reasoning_effort": {}})", "reasoning_effort"},
      {start + R"("documents": [1.5]})", "documents"},
  };
  for (const auto& [text, field] : cases) {
    const auto request = Chat(text);
    ASSERT_FALSE(request.ok()) << text;
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(ErrorParam(request.status()).substr(0, field.size()), field)
        << text << ": " << request.status();
  }
  EXPECT_FALSE(ParseChatRequest(Json::array()).ok());
  EXPECT_FALSE(ParseChatRequest(Json(3)).ok());
}

TEST(OpenAiCompletionRequest, PromptsOfEveryKind) {
  EXPECT_EQ(Completion(R"({"prompt": "x"})")->prompts[0].prompt(), "x");
  EXPECT_THAT(Completion(R"({"prompt": [1, 2]})")->prompts[0].prompt_tokens().ids(),
              ElementsAre(1, 2));
  const auto texts = Completion(R"({"prompt": ["x", "y"], "n": 2})");
  ASSERT_EQ(texts->prompts.size(), 2u);
  EXPECT_EQ(texts->prompts[1].prompt(), "y");
  EXPECT_EQ(texts->prompts[1].n(), 2);
  const auto ids = Completion(R"({"prompt": [[1], [2, 3]]})");
  ASSERT_EQ(ids->prompts.size(), 2u);
  EXPECT_THAT(ids->prompts[1].prompt_tokens().ids(), ElementsAre(2, 3));
  EXPECT_EQ(Completion(R"({"prompt": ["x", [1]]})")->prompts.size(), 2u);
  for (const char* text :
       {"{}", R"({"prompt": null})", R"({"prompt": 1})", R"({"prompt": []})", R"({"prompt": [[]]})",
        R"({"prompt": [1, "x"]})", R"({"prompt": [1.5]})", R"({"prompt": [[1], 2]})",
        R"({"prompt": {"a": 1}})", R"({"prompt": [99999999999]})"}) {
    const auto request = Completion(text);
    ASSERT_FALSE(request.ok()) << text;
    EXPECT_EQ(ErrorParam(request.status()), "prompt") << text;
  }
}

TEST(OpenAiCompletionRequest, LogprobsAndEcho) {
  const auto request =
      Completion(R"({"prompt": "x", "logprobs": 3, "echo": true, "max_tokens": 0})");
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(request->logprobs);
  EXPECT_TRUE(request->echo);
  EXPECT_FALSE(request->prompt_logprobs);
  EXPECT_EQ(request->prompts[0].output().logprobs(), 3);
  EXPECT_EQ(request->prompts[0].output().prompt_logprobs(), 3);
  EXPECT_EQ(request->prompts[0].stop().max_tokens(), 0);
  EXPECT_TRUE(Completion(R"({"prompt": "x", "prompt_logprobs": 2})")->prompt_logprobs);
  EXPECT_EQ(ErrorParam(Completion(R"({"prompt": "x", "best_of": 2})").status()), "best_of");
  EXPECT_EQ(ErrorParam(Completion(R"({"prompt": "x", "suffix": "y"})").status()), "suffix");
}

TEST(OpenAiTokenizeRequest, TextOrChat) {
  const auto text = ParseTokenizeRequest(
      *ParseJson(R"({"prompt": "x", "add_special_tokens": false, "return_token_strs": true})"));
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->text(), "x");
  EXPECT_TRUE(text->has_add_special_tokens());
  EXPECT_FALSE(text->add_special_tokens());
  EXPECT_TRUE(text->return_token_strs());
  const auto chat =
      ParseTokenizeRequest(*ParseJson(R"({"messages": [{"role": "user", "content": "x"}]})"));
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->chat().messages_size(), 1);
  EXPECT_EQ(ErrorParam(ParseTokenizeRequest(Json::object()).status()), "prompt");
  EXPECT_EQ(ErrorParam(ParseTokenizeRequest(Json{{"prompt", 1}}).status()), "prompt");
}

TEST(OpenAiDetokenizeRequest, Tokens) {
  EXPECT_THAT(ParseDetokenizeRequest(Json{{"tokens", {1, 2}}})->tokens(), ElementsAre(1, 2));
  EXPECT_EQ(ErrorParam(ParseDetokenizeRequest(Json::object()).status()), "tokens");
  EXPECT_EQ(ErrorParam(ParseDetokenizeRequest(Json{{"tokens", {"a"}}}).status()), "tokens");
}

}  // namespace
}  // namespace fairlead
