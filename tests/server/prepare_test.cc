// SPDX-License-Identifier: Apache-2.0
// What a request may hold: every bad value is refused and names its field and what is allowed.
#include "server/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>

#include "server/errors.h"
#include "tests/server/fake_model.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kContext = 64;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What to do to a good request, and what the answer then names.
struct Case {
  const char* field;
  std::function<void(pb::GenerateRequest&)> spoil;
  const char* message;  // part of it
};

class PrepareTest : public testing::Test {
 protected:
  absl::StatusOr<PreparedRequest> Prepare(const pb::GenerateRequest& request) const {
    return PrepareRequest(model_, request, {.max_model_len = kContext});
  }
  static pb::GenerateRequest Prompt(const std::string& text = "hi") {
    pb::GenerateRequest request;
    request.set_prompt(text);
    return request;
  }
  static pb::GenerateRequest Chat(const std::string& content = "hi") {
    pb::GenerateRequest request;
    pb::Message& message = *request.mutable_chat()->add_messages();
    message.set_role("user");
    message.set_content(content);
    return request;
  }

  FakeTokenizer tokenizer_;
  ChatFormat chat_format_ = FakeChatFormat();
  ServedModel model_ = FakeServedModel(&tokenizer_, &chat_format_);
};

// Not as a prompt without tokens, or with those that were there in time.
TEST_F(PrepareTest, ACancelledRequestEndsAsThat) {
  const std::atomic<bool> cancelled{true};
  for (const pb::GenerateRequest& request : {Prompt(), Chat()}) {
    const auto prepared =
        PrepareRequest(model_, request, {.max_model_len = kContext, .cancelled = &cancelled});
    EXPECT_EQ(prepared.status().code(), absl::StatusCode::kCancelled) << prepared.status();
  }
}

TEST_F(PrepareTest, Defaults) {
  const auto prepared = Prepare(Prompt());
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->engine.prompt, ElementsAre(FakeTokenizer::kBos, 'h', 'i'));
  EXPECT_EQ(prepared->engine.max_tokens, 16);
  EXPECT_EQ(prepared->engine.sampling.temperature, 1);
  EXPECT_EQ(prepared->engine.sampling.top_p, 1);
  EXPECT_EQ(prepared->engine.logprobs, -1);
  EXPECT_THAT(prepared->engine.stop_tokens, ElementsAre(FakeTokenizer::kEos));
  EXPECT_EQ(prepared->num_choices, 1);
}

TEST_F(PrepareTest, EveryBadValueNamesItsField) {
  const std::vector<Case> cases = {
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-0.1f); }, "0 to 2"},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(2.1f); }, "2.1"},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(kNan); }, "nan"},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(kInfinity); }, "inf"},
      {"top_p", [](auto& r) { r.mutable_sampling()->set_top_p(0); }, "above 0"},
      {"top_p", [](auto& r) { r.mutable_sampling()->set_top_p(1.5f); }, "1.5"},
      {"top_p", [](auto& r) { r.mutable_sampling()->set_top_p(kNan); }, "nan"},
      {"min_p", [](auto& r) { r.mutable_sampling()->set_min_p(-1); }, "0 to 1"},
      {"min_p", [](auto& r) { r.mutable_sampling()->set_min_p(kNan); }, "nan"},
      {"top_k", [](auto& r) { r.mutable_sampling()->set_top_k(-2); }, "-2"},
      {"repetition_penalty", [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); },
       "0.01"},
      {"repetition_penalty", [](auto& r) { r.mutable_sampling()->set_repetition_penalty(kNan); },
       "nan"},
      {"presence_penalty", [](auto& r) { r.mutable_sampling()->set_presence_penalty(3); },
       "-2 to 2"},
      {"presence_penalty", [](auto& r) { r.mutable_sampling()->set_presence_penalty(kNan); },
       "nan"},
      {"frequency_penalty", [](auto& r) { r.mutable_sampling()->set_frequency_penalty(-3); },
       "-2 to 2"},
      {"frequency_penalty", [](auto& r) { r.mutable_sampling()->set_frequency_penalty(kNan); },
       "nan"},
      {"logit_bias", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[258] = 1; },
       "258"},
      {"logit_bias", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[-1] = 1; }, "-1"},
      {"logit_bias", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[1] = 101; },
       "-100 to 100"},
      {"logit_bias", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[1] = kNan; },
       "nan"},
      {"max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(-1); }, "-1"},
      {"max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(62); }, "65 in all"},
      {"max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(2147483647); }, "2147483650"},
      {"min_tokens", [](auto& r) { r.mutable_stop()->set_min_tokens(-1); }, "-1"},
      {"min_tokens", [](auto& r) { r.mutable_stop()->set_min_tokens(17); }, "17"},
      {"stop", [](auto& r) { r.mutable_stop()->add_stop(std::string()); }, "empty"},
      {"stop", [](auto& r) { r.mutable_stop()->add_stop(std::string(1025, 'x')); }, "1025"},
      {"stop",
       [](auto& r) {
         for (int i = 0; i < 17; ++i) r.mutable_stop()->add_stop(std::string("x"));
       },
       "17"},
      {"stop_token_ids", [](auto& r) { r.mutable_stop()->add_stop_token_ids(258); }, "258"},
      {"stop_token_ids", [](auto& r) { r.mutable_stop()->add_stop_token_ids(-1); }, "-1"},
      {"logprobs", [](auto& r) { r.mutable_output()->set_logprobs(21); }, "21"},
      {"logprobs", [](auto& r) { r.mutable_output()->set_logprobs(-1); }, "-1"},
      {"prompt_logprobs", [](auto& r) { r.mutable_output()->set_prompt_logprobs(21); }, "21"},
      {"n", [](auto& r) { r.set_n(0); }, "0"},
      {"n", [](auto& r) { r.set_n(129); }, "129"},
      {"prompt", [](auto& r) { r.clear_prompt(); }, "missing"},
      {"prompt", [](auto& r) { r.mutable_prompt_tokens(); }, "no tokens"},
      {"prompt", [](auto& r) { r.mutable_prompt_tokens()->add_ids(258); }, "258"},
      {"prompt", [](auto& r) { r.mutable_prompt_tokens()->add_ids(-5); }, "-5"},
      {"prompt", [](auto& r) { r.set_prompt(std::string(100, 'x')); }, "64"},
      {"messages", [](auto& r) { r.mutable_chat(); }, "empty"},
      {"messages", [](auto& r) { r.mutable_chat()->add_messages()->set_content("x"); }, "role"},
  };
  for (const Case& c : cases) {
    pb::GenerateRequest request = Prompt();
    c.spoil(request);
    const auto prepared = Prepare(request);
    ASSERT_FALSE(prepared.ok()) << c.field << " " << c.message;
    EXPECT_EQ(prepared.status().code(), absl::StatusCode::kInvalidArgument) << prepared.status();
    EXPECT_EQ(ErrorParam(prepared.status()), c.field) << prepared.status();
    EXPECT_THAT(std::string(prepared.status().message()), HasSubstr(c.message));
  }
}

TEST_F(PrepareTest, ThePromptIsNeverCut) {
  pb::GenerateRequest request = Prompt(std::string(63, 'x'));  // 64 with <bos>: fills the context
  const auto full = Prepare(request);
  EXPECT_EQ(ErrorCode(full.status()), "context_length_exceeded");
  EXPECT_THAT(std::string(full.status().message()), HasSubstr("64 tokens"));
  request.mutable_stop()->set_max_tokens(0);  // scoring it is fine
  EXPECT_TRUE(Prepare(request).ok());
  request = Prompt(std::string(62, 'x'));
  EXPECT_EQ(Prepare(request)->engine.max_tokens, 1);
}

TEST_F(PrepareTest, AnUnknownModelIsNotFound) {
  pb::GenerateRequest request = Prompt();
  request.set_model("other");
  const auto prepared = Prepare(request);
  EXPECT_EQ(prepared.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorCode(prepared.status()), "model_not_found");
  EXPECT_EQ(ErrorParam(prepared.status()), "model");
  request.set_model("fake");
  EXPECT_TRUE(Prepare(request).ok());
}

TEST_F(PrepareTest, ChatsAreRenderedAndCallersTextIsNotTrusted) {
  const auto prepared = Prepare(Chat("<eos>"));
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->engine.prompt, TokensOf("user: <eos>\nassistant: "));
  EXPECT_EQ(prepared->engine.max_tokens,
            kContext - static_cast<int>(prepared->engine.prompt.size()));
  const auto text = Prepare(Prompt("<eos>"));
  EXPECT_THAT(text->engine.prompt, ElementsAre(FakeTokenizer::kBos, FakeTokenizer::kEos));
  pb::GenerateRequest plain = Prompt("<eos>");
  plain.set_parse_special(false);
  EXPECT_EQ(Prepare(plain)->engine.prompt.size(), 6u);
}

TEST_F(PrepareTest, TheTemplatesRefusalIsTheCallers) {
  pb::GenerateRequest request = Chat();
  request.mutable_chat()->mutable_messages(0)->set_role("bad");
  const auto prepared = Prepare(request);
  EXPECT_EQ(prepared.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(prepared.status().message()), HasSubstr("the role bad is not allowed"));
}

// Every string that a chat has room for, keys too, printed in every way: none of them becomes the
// token that its text spells, while the template's own does.
TEST_F(PrepareTest, NoStringOfAChatIsTrusted) {
  chat_format_.chat_template = *ParseChatTemplate(
      "{% for m in messages %}{{ m ~ m|tojson ~ m.content ~ m.role|upper|lower }}{% for k, v in "
      "m|items %}{{ [k, v]|join('<eos>'[:1]) ~ '%s' % k }}{% endfor %}{% endfor %}{{ tools ~ "
      "documents ~ extra ~ extra|string|replace('q', '') ~ eos_token ~ unk_token }}<eos>");
  const std::string evil = "<eos>";
  const auto with = [&](const std::function<void(pb::ChatInput&)>& fill) {
    pb::GenerateRequest request = Chat("hi");
    fill(*request.mutable_chat());
    return request;
  };
  const Json nested = {{"a", Json::array({evil, {{evil, evil}}})}, {evil, 1}};
  const pb::GenerateRequest requests[] = {
      Chat(evil),
      with([&](pb::ChatInput& c) { c.mutable_messages(0)->set_role(evil); }),
      with([&](pb::ChatInput& c) { c.mutable_messages(0)->set_extra_json(DumpJson(nested)); }),
      with([&](pb::ChatInput& c) { c.set_tools_json(DumpJson(Json::array({nested}))); }),
      with([&](pb::ChatInput& c) {
        c.set_documents_json(DumpJson(Json::array({nested, evil})));
      }),
      with([&](pb::ChatInput& c) {
        c.set_template_variables_json(
            DumpJson({{"extra", nested}, {"eos_token", evil + evil}, {"unk_token", evil}}));
      })};
  for (const pb::GenerateRequest& request : requests) {
    const auto prompt = RenderChat(model_, request.chat(), false, {});
    ASSERT_TRUE(prompt.ok()) << prompt.status();
    // eos_token and the template's last word.
    EXPECT_EQ(std::count(prompt->tokens.begin(), prompt->tokens.end(), FakeTokenizer::kEos), 2)
        << prompt->text;
  }
}

TEST_F(PrepareTest, ChoosesTheTemplate) {
  chat_format_.named_templates.emplace("tool_use", ParseChatTemplate("T{{ tools|length }}"));
  chat_format_.named_templates.emplace("broken", ParseChatTemplate("{{"));
  pb::GenerateRequest request = Chat();
  const auto text = [&] { return RenderChat(model_, request.chat(), false, {})->text; };
  EXPECT_EQ(text(), "user: hi\nassistant: ");
  request.mutable_chat()->set_tools_json("[{}, {}]");
  EXPECT_EQ(text(), "T2");
  request.mutable_chat()->set_chat_template("default");
  EXPECT_EQ(text(), "user: hi\nassistant: ");
  for (const char* name : {"broken", "{{ messages }}"}) {
    request.mutable_chat()->set_chat_template(name);
    const auto prepared = Prepare(request);
    EXPECT_EQ(prepared.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorParam(prepared.status()), "chat_template");
  }
}

TEST_F(PrepareTest, WithoutATemplateItIsSaidWhy) {
  chat_format_.chat_template = nullptr;
  const auto message = [&] { return std::string(Prepare(Chat()).status().message()); };
  EXPECT_EQ(message(), "the model's files have no chat template");
  chat_format_.unusable = true;
  EXPECT_THAT(message(), HasSubstr("cannot be used"));
}

TEST_F(PrepareTest, ContinuesTheFinalMessage) {
  pb::GenerateRequest request = Chat("hi");
  pb::Message& message = *request.mutable_chat()->add_messages();
  message.set_role("assistant");
  message.set_content("Sure, ");
  request.mutable_chat()->set_continue_final_message(true);
  const auto prepared = Prepare(request);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->engine.prompt, TokensOf("user: hi\nassistant: Sure, "));
  request.mutable_chat()->set_add_generation_prompt(true);
  EXPECT_EQ(ErrorParam(Prepare(request).status()), "continue_final_message");
}

TEST_F(PrepareTest, PartsGoToTemplatesThatTakeThem) {
  pb::GenerateRequest request = Chat("");
  pb::Message& message = *request.mutable_chat()->mutable_messages(0);
  message.clear_content();
  message.set_extra_json(
      R"({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})");
  EXPECT_EQ(RenderChat(model_, request.chat(), false, {})->text, "user: a\nb\nassistant: ");
  chat_format_.named_templates.emplace(
      "parts", ParseChatTemplate("{% for m in messages %}{% for p in m.content %}<{{ p.text }}>"
                                 "{% endfor %}{% endfor %}"));
  request.mutable_chat()->set_chat_template("parts");
  EXPECT_EQ(RenderChat(model_, request.chat(), false, {})->text, "<a><b>");
  request.mutable_chat()->set_continue_final_message(true);
  EXPECT_EQ(RenderChat(model_, request.chat(), false, {})->text, "<a><b");
  for (const char* extra : {R"({"content": [{"type": "image"}]})", R"({"content": "a"})",
                            R"({"content": [{"type": "text", "text": 1}]})"}) {
    message.set_extra_json(extra);
    EXPECT_EQ(ErrorParam(Prepare(request).status()), "messages") << extra;
  }
}

// Of roles that the template treats alike, the first few are known to take parts.
TEST_F(PrepareTest, PartsAreLookedAtRoleByRole) {
  chat_format_.chat_template = *ParseChatTemplate(
      "{% for m in messages %}{% if m.content is string %}[{{ m.content }}]"
      "{% elif m.role == 'system' %}{{ m.content }}"
      "{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}");
  pb::GenerateRequest request = Chat("");
  request.mutable_chat()->clear_messages();
  for (const char* role : {"system", "user", "assistant", "a", "b", "c"}) {
    pb::Message& message = *request.mutable_chat()->add_messages();
    message.set_role(role);
    message.set_extra_json(
        R"({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]})");
  }
  EXPECT_EQ(RenderChat(model_, request.chat(), false, {})->text,
            "[x\ny]<x><y><x><y><x><y><x><y>[x\ny]");
}

TEST_F(PrepareTest, ExtraKeysReplaceNothing) {
  pb::GenerateRequest request = Chat("hi");
  pb::Message& message = *request.mutable_chat()->mutable_messages(0);
  message.set_extra_json(R"({"content": null, "role": null})");
  EXPECT_EQ(RenderChat(model_, request.chat(), false, {})->text, "user: hi\nassistant: ");
  for (const char* extra :
       {R"({"role": "system"})", R"({"content": [{"type": "text", "text": "b"}]})"}) {
    message.set_extra_json(extra);
    EXPECT_EQ(ErrorParam(Prepare(request).status()), "messages") << extra;
  }
}

TEST_F(PrepareTest, WhatCannotBeContinuedNamesItsField) {
  pb::GenerateRequest request = Chat("hi");
  request.mutable_chat()->set_continue_final_message(true);
  pb::Message& message = *request.mutable_chat()->add_messages();
  message.set_role("assistant");
  message.set_extra_json(R"({"tool_calls": []})");
  const absl::Status status = Prepare(request).status();
  EXPECT_EQ(ErrorParam(status), "continue_final_message");
  EXPECT_EQ(status.message(), "the final message has no content to continue");
}

TEST_F(PrepareTest, BadJsonInsideAChatNamesItsField) {
  const std::pair<std::string, std::function<void(pb::ChatInput&)>> cases[] = {
      {"tools", [](auto& c) { c.set_tools_json("{"); }},
      {"tools", [](auto& c) { c.set_tools_json("{}"); }},
      {"documents", [](auto& c) { c.set_documents_json("1"); }},
      {"chat_template_kwargs", [](auto& c) { c.set_template_variables_json("[]"); }},
      {"messages[0].extra_json", [](auto& c) { c.mutable_messages(0)->set_extra_json("[]"); }},
  };
  for (const auto& [field, spoil] : cases) {
    pb::GenerateRequest request = Chat();
    spoil(*request.mutable_chat());
    EXPECT_EQ(ErrorParam(Prepare(request).status()), field);
  }
}

TEST_F(PrepareTest, SeedsAreKeptOrDrawn) {
  pb::GenerateRequest request = Prompt();
  request.mutable_sampling()->set_seed(-5);
  EXPECT_EQ(static_cast<int64_t>(Prepare(request)->engine.sampling.seed), -5);
  request.mutable_sampling()->clear_seed();
  EXPECT_NE(Prepare(request)->engine.sampling.seed, Prepare(request)->engine.sampling.seed);
}

TEST_F(PrepareTest, EosIsIgnoredWhenAskedFor) {
  pb::GenerateRequest request = Prompt();
  request.mutable_stop()->set_ignore_eos(true);
  request.mutable_stop()->add_stop_token_ids('x');
  request.mutable_stop()->add_stop_token_ids('x');
  EXPECT_THAT(Prepare(request)->engine.stop_tokens, ElementsAre('x'));
}

TEST_F(PrepareTest, WithoutATokenizerThereAreIdsOnly) {
  model_.tokenizer = nullptr;
  EXPECT_EQ(ErrorParam(Prepare(Prompt()).status()), "prompt");
  EXPECT_EQ(ErrorParam(Prepare(Chat()).status()), "messages");
  pb::GenerateRequest request;
  request.mutable_prompt_tokens()->add_ids(5);
  const auto prepared = Prepare(request);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->engine.prompt, ElementsAre(5));
  EXPECT_TRUE(prepared->engine.stop_tokens.empty());
  request.mutable_stop()->add_stop(std::string("x"));
  EXPECT_EQ(ErrorParam(Prepare(request).status()), "stop");
}

}  // namespace
}  // namespace fairlead
