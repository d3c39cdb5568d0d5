// SPDX-License-Identifier: Apache-2.0
// What a request for embeddings may hold, and which tokens become of its texts.
#include "server/embed_prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "server/errors.h"
#include "tests/server/fake_embedder.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Token kBos = FakeTokenizer::kBos, kEos = FakeTokenizer::kEos;

class EmbedPrepareTest : public testing::Test {
 protected:
  absl::StatusOr<PreparedEmbed> Prepare(const pb::EmbedRequest& request) const {
    return PrepareEmbed(model_, FakeEmbedder::Traits(), request, cancelled_);
  }
  static pb::EmbedRequest Text(const std::string& text) {
    pb::EmbedRequest request;
    request.add_inputs()->set_text(text);
    return request;
  }
  static pb::EmbedRequest Ids(const std::vector<Token>& ids) {
    pb::EmbedRequest request;
    request.add_inputs()->mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
    return request;
  }
  std::vector<Token> TokensOfOne(const pb::EmbedRequest& request) const {
    const auto prepared = Prepare(request);
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared.ok() ? prepared->texts.front() : std::vector<Token>();
  }

  FramingTokenizer tokenizer_;
  ServedModel model_ = FakeEmbedder::Served(&tokenizer_);
  std::atomic<bool> cancelled_{false};
};

TEST_F(EmbedPrepareTest, TheFrameIsWhatStandsAroundAnyText) {
  const auto frame = FrameOf(tokenizer_);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_THAT(frame->before, ElementsAre(kBos));
  EXPECT_THAT(frame->after, ElementsAre(kEos));
}

TEST_F(EmbedPrepareTest, WhatSpecialTokensFillHasNoRoomForText) {
  EmbedTraits traits = FakeEmbedder::Traits();
  pb::EmbedRequest request = Text(std::string(100'000, 'a'));
  request.set_truncate_prompt_tokens(-1);
  for (const int max_tokens : {1, 2}) {
    traits.max_tokens = max_tokens;
    const auto prepared = PrepareEmbed(model_, traits, request, cancelled_);
    EXPECT_TRUE(absl::IsInvalidArgument(prepared.status())) << prepared.status();
    EXPECT_THAT(std::string(prepared.status().message()), HasSubstr("no text fits"));
  }
  traits.max_tokens = 3;
  const auto prepared = PrepareEmbed(model_, traits, request, cancelled_);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_EQ(prepared->texts.front().size(), 3u);
}

TEST_F(EmbedPrepareTest, AFrameThatDependsOnTheTextIsRefused) {
  class Odd final : public FakeTokenizer {
   public:
    std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                              const EncodeOptions& options) const override {
      std::vector<Token> tokens = FakeTokenizer::Encode(pieces, options);
      if (options.add_special_tokens && pieces.front().text.size() > 1) tokens.push_back(kEos);
      return tokens;
    }
  };
  EXPECT_EQ(FrameOf(Odd()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(EmbedPrepareTest, TextsAreFramedAndIdsAreNot) {
  pb::EmbedRequest request = Text("hi");
  request.add_inputs()->mutable_tokens()->add_ids(7);
  const auto prepared = Prepare(request);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  EXPECT_THAT(prepared->texts, ElementsAre(ElementsAre(kBos, 'h', 'i', kEos), ElementsAre(7)));
  EXPECT_EQ(prepared->prompt_tokens, 5);
  EXPECT_EQ(prepared->dimensions, FakeEmbedder::kDimensions);
  EXPECT_FALSE(prepared->normalize);
}

TEST_F(EmbedPrepareTest, SpecialTokens) {
  pb::EmbedRequest request = Text("a<eos>");
  EXPECT_THAT(TokensOfOne(request), ElementsAre(kBos, 'a', kEos, kEos));
  request.set_parse_special(false);
  EXPECT_THAT(TokensOfOne(request), ElementsAre(kBos, 'a', '<', 'e', 'o', 's', '>', kEos));
  request.set_add_special_tokens(false);
  EXPECT_THAT(TokensOfOne(request), ElementsAre('a', '<', 'e', 'o', 's', '>'));
}

TEST_F(EmbedPrepareTest, TruncationKeepsTheFirstTokensAndTheFrame) {
  pb::EmbedRequest request = Text("abcdef");
  request.set_truncate_prompt_tokens(4);
  EXPECT_THAT(TokensOfOne(request), ElementsAre(kBos, 'a', 'b', kEos));
  request.set_add_special_tokens(false);
  EXPECT_THAT(TokensOfOne(request), ElementsAre('a', 'b', 'c', 'd'));
  request = Text("ab");
  request.set_truncate_prompt_tokens(10);
  EXPECT_THAT(TokensOfOne(request), ElementsAre(kBos, 'a', 'b', kEos));
  request = Text(std::string(1000, 'x'));
  request.set_truncate_prompt_tokens(-1);
  std::vector<Token> want(FakeEmbedder::kMaxTokens, 'x');
  want.front() = kBos;
  want.back() = kEos;
  EXPECT_EQ(TokensOfOne(request), want);
  request = Ids({1, 2, 3, 4});
  request.set_truncate_prompt_tokens(3);
  EXPECT_THAT(TokensOfOne(request), ElementsAre(1, 2, 3));
  request.set_truncate_prompt_tokens(1);  // ids get no frame
  EXPECT_THAT(TokensOfOne(request), ElementsAre(1));
  request.add_inputs()->set_text("a");
  EXPECT_THAT(std::string(Prepare(request).status().message()),
              HasSubstr("truncate_prompt_tokens is 1; allowed: 3 to 32"));
}

TEST_F(EmbedPrepareTest, ATextMayFillTheModel) {
  EXPECT_EQ(TokensOfOne(Text(std::string(30, 'x'))).size(), 32u);
  EXPECT_EQ(TokensOfOne(Ids(std::vector<Token>(32, 1))).size(), 32u);
}

struct Case {
  const char* field;
  std::function<void(pb::EmbedRequest&)> spoil;
  const char* message;  // part of it
  const char* code = "";
};

TEST_F(EmbedPrepareTest, BadValuesNameTheirFieldAndWhatIsAllowed) {
  const Case cases[] = {
      {"input", [](auto& r) { r.clear_inputs(); }, "has 0 texts; allowed: 1 to 2048"},
      {"input",
       [](auto& r) {
         while (r.inputs_size() < 2049) r.add_inputs()->set_text("a");
       },
       "2049"},
      {"input", [](auto& r) { r.mutable_inputs(0)->set_text(""); }, "input is an empty string"},
      {"input", [](auto& r) { r.add_inputs()->set_text(""); }, "input[1] is an empty string"},
      {"input", [](auto& r) { r.add_inputs(); }, "input[1] is neither"},
      {"input", [](auto& r) { r.add_inputs()->mutable_tokens(); }, "input[1] has no tokens"},
      {"input", [](auto& r) { r.mutable_inputs(0)->mutable_tokens()->add_ids(258); },
       "token 258; the model's vocabulary has 0 to 257"},
      {"input", [](auto& r) { r.mutable_inputs(0)->mutable_tokens()->add_ids(-1); }, "token -1"},
      {"input", [](auto& r) { r.add_inputs()->set_text(std::string(31, 'x')); },
       "input[1] has 33 tokens, special tokens included; the model takes 32",
       "context_length_exceeded"},
      {"input", [](auto& r) { r.mutable_inputs(0)->set_text(std::string(200000, 'x')); },
       "more than 65536", "context_length_exceeded"},
      {"dimensions", [](auto& r) { r.set_dimensions(0); }, "is 0; allowed: 1 to 3"},
      {"dimensions", [](auto& r) { r.set_dimensions(4); }, "is 4; allowed: 1 to 3"},
      {"truncate_prompt_tokens", [](auto& r) { r.set_truncate_prompt_tokens(33); },
       "is 33; allowed: 3 to 32"},
      {"truncate_prompt_tokens", [](auto& r) { r.set_truncate_prompt_tokens(2); }, "is 2;"},
      {"truncate_prompt_tokens", [](auto& r) { r.set_truncate_prompt_tokens(-2); }, "is -2;"},
      {"model", [](auto& r) { r.set_model("other"); }, "other", "model_not_found"},
  };
  for (const Case& bad : cases) {
    pb::EmbedRequest request = Text("hi");
    bad.spoil(request);
    const absl::Status status = Prepare(request).status();
    EXPECT_EQ(ErrorParam(status), bad.field) << status;
    EXPECT_EQ(ErrorCode(status), bad.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
}

TEST_F(EmbedPrepareTest, WithoutATokenizerThereAreIdsOnly) {
  model_.tokenizer = nullptr;
  EXPECT_THAT(std::string(Prepare(Text("hi")).status().message()), HasSubstr("--skip-tokenizer"));
  EXPECT_THAT(TokensOfOne(Ids({5})), ElementsAre(5));
}

TEST_F(EmbedPrepareTest, ACancelledRequestEndsAsThat) {
  cancelled_ = true;
  EXPECT_TRUE(absl::IsCancelled(Prepare(Text("hi")).status()));
}

}  // namespace
}  // namespace fairlead
