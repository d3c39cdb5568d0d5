// SPDX-License-Identifier: Apache-2.0
// Tokens to events: text that is certain, stop tokens and strings, token details, ends of every
// kind.
#include "server/choice_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <utility>

#include "tests/server/fake_model.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;

class ChoiceStreamTest : public testing::Test {
 protected:
  ChoiceStream& Make(const std::function<void(ChoiceOptions&)>& fill = [](ChoiceOptions&) {}) {
    ChoiceOptions options;
    options.max_tokens = 64;
    fill(options);
    stream_.emplace(std::move(options), &tokenizer_,
                    ChoiceStream::Listener{[this] { ++news_; }, [this] { ++flushes_; }});
    return *stream_;
  }
  void Push(const std::string& text) {
    for (const Token token : TokensOf(text)) PushToken(token);
  }
  void PushToken(Token token) {
    TokenOutput output;
    output.token = token;
    output.logprob = -0.25f;
    output.rank = 1;
    const TopLogprob top[] = {{token, -0.25f}, {token + 1, -2.0f}};
    output.top = top;
    stream_->Push(output);
  }
  void Close(FinishReason reason, absl::Status status = absl::OkStatus()) {
    EngineResult result;
    result.reason = reason;
    result.status = std::move(status);
    stream_->Close(result);
  }

  FakeTokenizer tokenizer_;
  std::optional<ChoiceStream> stream_;
  int news_ = 0, flushes_ = 0;
};

TEST_F(ChoiceStreamTest, DeltasStandForTheirTokens) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) { o.index = 2; });
  Push("ab");
  auto progress = stream.Take();
  ASSERT_TRUE(progress.delta.has_value());
  EXPECT_EQ(progress.delta->choice(), 2);
  EXPECT_EQ(progress.delta->text(), "ab");
  EXPECT_EQ(progress.delta->num_tokens(), 2);
  EXPECT_EQ(progress.delta->token_ids_size(), 0);
  EXPECT_FALSE(stream.Take().delta.has_value());
  Push("c");
  Close(FinishReason::kLength);
  progress = stream.Take();
  EXPECT_EQ(progress.delta->text(), "c");
  EXPECT_EQ(progress.finish->reason(), pb::FINISH_REASON_LENGTH);
  EXPECT_EQ(progress.finish->completion_tokens(), 3);
  EXPECT_TRUE(progress.closed);
  EXPECT_EQ(news_, 4);
  EXPECT_EQ(flushes_, 0);
  stream.Flush();
  EXPECT_EQ(flushes_, 1);
  EXPECT_EQ(stream.new_token_times().size(), 3u);
}

TEST_F(ChoiceStreamTest, NeverHalfACharacter) {
  ChoiceStream& stream = Make();
  const std::string euro = "\xe2\x82\xac";
  PushToken(0xe2);
  EXPECT_FALSE(stream.Take().delta.has_value());
  PushToken(0x82);
  EXPECT_FALSE(stream.Take().delta.has_value());
  PushToken(0xac);
  const auto progress = stream.Take();
  EXPECT_EQ(progress.delta->text(), euro);
  EXPECT_EQ(progress.delta->num_tokens(), 3);
  PushToken(0xe2);
  Close(FinishReason::kLength);
  EXPECT_EQ(stream.Take().delta->text(), "\xef\xbf\xbd");  // cut short: U+FFFD
}

TEST_F(ChoiceStreamTest, EosIsCountedAndNotShown) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) {
    o.stop_tokens = {FakeTokenizer::kEos};
    o.return_token_ids = true;
  });
  Push("a");
  PushToken(FakeTokenizer::kEos);
  Close(FinishReason::kStop);
  const auto progress = stream.Take();
  EXPECT_EQ(progress.delta->text(), "a");
  EXPECT_THAT(progress.delta->token_ids(), ElementsAre('a', FakeTokenizer::kEos));
  EXPECT_EQ(progress.finish->reason(), pb::FINISH_REASON_STOP);
  EXPECT_EQ(progress.finish->matched_case(), pb::Finish::MATCHED_NOT_SET);
  EXPECT_EQ(progress.finish->completion_tokens(), 2);
}

TEST_F(ChoiceStreamTest, AStopTokenOfTheRequestIsNamed) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) { o.stop_tokens = {'x', FakeTokenizer::kEos}; });
  Push("ax");
  Close(FinishReason::kStop);
  const auto progress = stream.Take();
  EXPECT_EQ(progress.delta->text(), "a");
  EXPECT_EQ(progress.finish->stop_token_id(), 'x');
}

TEST_F(ChoiceStreamTest, AStopStringAcrossTokensEndsTheText) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) { o.stop_strings = {"END"}; });
  Push("oneEN");
  auto progress = stream.Take();
  EXPECT_FALSE(progress.stop_string_matched);
  Push("D more");
  progress = stream.Take();
  EXPECT_TRUE(progress.stop_string_matched);
  ASSERT_TRUE(progress.finish.has_value());
  EXPECT_EQ(progress.finish->stop_string(), "END");
  EXPECT_EQ(progress.finish->completion_tokens(), 6);
  // The engine closes later, with whatever it had computed: nothing more is said.
  Close(FinishReason::kCancelled, absl::CancelledError("stopped"));
  progress = stream.Take();
  EXPECT_FALSE(progress.delta.has_value());
  EXPECT_FALSE(progress.finish.has_value());
  EXPECT_TRUE(progress.closed);
}

TEST_F(ChoiceStreamTest, TheStopStringIsTextWhenAskedFor) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) {
    o.stop_strings = {"END"};
    o.include_stop_text = true;
  });
  Push("oneENDmore");
  EXPECT_EQ(stream.Take().delta->text(), "oneEND");
}

TEST_F(ChoiceStreamTest, WhatWasHeldBackComesAtTheEnd) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) { o.stop_strings = {"END"}; });
  Push("oneEN");
  std::string text;
  if (auto progress = stream.Take(); progress.delta) text += progress.delta->text();
  Close(FinishReason::kLength);
  text += stream.Take().delta->text();
  EXPECT_EQ(text, "oneEN");
}

TEST_F(ChoiceStreamTest, LogprobsHaveTheBytesOfTheirTokens) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) { o.logprobs = 2; });
  PushToken(0xe2);
  const auto progress = stream.Take();
  ASSERT_TRUE(progress.delta.has_value());
  ASSERT_EQ(progress.delta->logprobs_size(), 1);
  const pb::TokenLogprob& logprob = progress.delta->logprobs(0);
  EXPECT_EQ(logprob.text(), "\xe2");
  EXPECT_FLOAT_EQ(logprob.logprob(), -0.25f);
  EXPECT_EQ(logprob.rank(), 1);
  ASSERT_EQ(logprob.top_size(), 2);
  EXPECT_EQ(logprob.top(1).token(), 0xe3);
  EXPECT_EQ(logprob.top(1).rank(), 2);
}

TEST_F(ChoiceStreamTest, PromptLogprobsComeOnceAndStartWithNone) {
  ChoiceStream& stream = Make([](ChoiceOptions& o) {
    o.prompt = {'a', 'b', 'c'};
    o.prompt_logprobs = 1;
  });
  for (const Token token : {'b', 'c'}) {
    const TopLogprob top[] = {{token, -0.5f}};
    TokenOutput output{.token = token, .logprob = -0.5f, .rank = 1, .top = top};
    stream.PushPromptLogprob(output);
  }
  EXPECT_FALSE(stream.Take().prompt_logprobs.has_value());  // not before the first token
  Push("x");
  const auto progress = stream.Take();
  ASSERT_TRUE(progress.prompt_logprobs.has_value());
  ASSERT_EQ(progress.prompt_logprobs->tokens_size(), 3);
  EXPECT_EQ(progress.prompt_logprobs->tokens(0).rank(), 0);
  EXPECT_EQ(progress.prompt_logprobs->tokens(2).token(), 'c');
  EXPECT_FALSE(stream.Take().prompt_logprobs.has_value());
}

TEST_F(ChoiceStreamTest, AFailureIsNoFinish) {
  ChoiceStream& stream = Make();
  Push("a");
  Close(FinishReason::kError, absl::InternalError("not finite"));
  const auto progress = stream.Take();
  EXPECT_FALSE(progress.finish.has_value());
  EXPECT_TRUE(progress.closed);
  EXPECT_EQ(stream.result().status.code(), absl::StatusCode::kInternal);
}

TEST_F(ChoiceStreamTest, WithoutATokenizerThereAreIds) {
  ChoiceOptions options;
  options.max_tokens = 4;
  stream_.emplace(std::move(options), nullptr, ChoiceStream::Listener{[] {}, [] {}});
  Push("ab");
  const auto progress = stream_->Take();
  EXPECT_EQ(progress.delta->text(), "");
  EXPECT_THAT(progress.delta->token_ids(), ElementsAre('a', 'b'));
}

TEST_F(ChoiceStreamTest, EngineAndDeliveryRunAtTheSameTime) {
  constexpr int kTokens = 20000;
  ChoiceStream& stream = Make([](ChoiceOptions& o) {
    o.max_tokens = kTokens;
    o.logprobs = 2;
  });
  std::thread engine([this] {
    for (int i = 0; i < kTokens; ++i) PushToken('a' + i % 26);
    Close(FinishReason::kLength);
  });
  std::string text;
  int num_tokens = 0;
  while (true) {
    const auto progress = stream.Take();
    if (progress.delta) {
      text += progress.delta->text();
      num_tokens += progress.delta->num_tokens();
      EXPECT_EQ(progress.delta->logprobs_size(), progress.delta->num_tokens());
    }
    if (progress.closed) break;
  }
  engine.join();
  EXPECT_EQ(num_tokens, kTokens);
  ASSERT_EQ(text.size(), static_cast<size_t>(kTokens));
  for (int i = 0; i < kTokens; ++i) ASSERT_EQ(text[static_cast<size_t>(i)], 'a' + i % 26);
}

}  // namespace
}  // namespace fairlead
