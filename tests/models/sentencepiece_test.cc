// SPDX-License-Identifier: Apache-2.0
// tokenizer.model, compared with sentencepiece (tests/golden/tokenizers/spm-*); what a folder's
// configs add; hostile files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "models/detokenizer.h"
#include "models/sentencepiece_model.h"
#include "models/tokenizer.h"
#include "tests/models/sentencepiece_files.h"
#include "tests/models/tokenizer_testing.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

std::unique_ptr<Tokenizer> Load(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizerFromPath(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadModel(const std::string& bytes) {
  const TemporaryFolder folder;
  return LoadTokenizerFromPath(folder.Write("tokenizer.model", bytes));
}

class GoldenModel : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, AgreesWithTheLibrary) {
  const std::string kind = std::string("tokenizers/") + GetParam();
  const auto tokenizer = Load(GoldenPath(kind + "/tokenizer.model"));
  ASSERT_NE(tokenizer, nullptr);
  const Json cases = ReadGolden(kind + "/cases.json");
  ASSERT_EQ(cases["encode"].size(), 311u);
  EXPECT_EQ(tokenizer->vocab_size(), cases["vocab_size"].get<int>());
  for (const Json& one : cases["encode"]) {
    const std::string text = Text(one["text"]);
    const std::vector<Token> ids = Tokens(one["ids"]);
    // The library puts nothing around a text and recognises no control text.
    EXPECT_EQ(tokenizer->Encode(text), ids) << text;
    EXPECT_EQ(tokenizer->Decode(ids, false), Text(one["decoded"])) << text;
    EXPECT_EQ(tokenizer->Decode(ids, true), Text(one["decoded"])) << text;
    Detokenizer stream(*tokenizer, false);
    std::string streamed;
    for (const Token id : ids) {
      const std::string delta = stream.Push(id);
      EXPECT_TRUE(IsValidUtf8(delta));
      streamed += delta;
    }
    EXPECT_EQ(streamed + stream.Finish(), Text(one["decoded"])) << text;
  }
}

// More models of all options, and lists of ids that no text gives.
TEST(SmallModels, AgreeWithTheLibrary) {
  const Json golden = ReadGolden("text/sentencepiece.json");
  ASSERT_EQ(golden.size(), 12u);
  for (size_t i = 0; i < golden.size(); ++i) {
    SCOPED_TRACE(i);
    std::string bytes;
    ASSERT_TRUE(absl::Base64Unescape(Text(golden[i]["model"]), &bytes));
    const auto tokenizer = LoadModel(bytes);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ASSERT_EQ(golden[i]["encode"].size(), 60u);
    for (const Json& one : golden[i]["encode"])
      EXPECT_EQ((*tokenizer)->Encode(Text(one["text"])), Tokens(one["ids"])) << one["text"];
    for (const Json& one : golden[i]["decode"])
      EXPECT_EQ((*tokenizer)->Decode(Tokens(one["ids"]), false), Text(one["text"])) << one["ids"];
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenModel, ::testing::Values("spm-bpe", "spm-unigram"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Speed, AMegabyteOfAnyTextIsQuick) {
  for (const char* kind : {"spm-bpe", "spm-unigram"}) {
    const auto tokenizer = Load(GoldenPath(std::string("tokenizers/") + kind + "/tokenizer.model"));
    ASSERT_NE(tokenizer, nullptr);
    for (const char* unit : {"a", " ", "\u4e2d", "The quick brown fox ", "="}) {
      std::string text;
      while (text.size() < (1 << 20)) text += unit;
      const auto begin = std::chrono::steady_clock::now();
      tokenizer->Encode(text);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      EXPECT_LT(took.count(), kSanitized ? 60 : 3) << kind << " " << unit;
    }
  }
}

TEST(Speed, CancelledEncodingEnds) {
  const auto tokenizer = Load(GoldenPath("tokenizers/spm-bpe/tokenizer.model"));
  ASSERT_NE(tokenizer, nullptr);
  const std::atomic<bool> cancelled = true;
  EXPECT_THAT(tokenizer->Encode(std::string(1 << 20, 'a'), {.cancelled = &cancelled}), IsEmpty());
}

// Beside configs, Hugging Face's rules.
class Folder : public ::testing::Test {
 protected:
  Folder() { folder_.Write("tokenizer.model", SmallModel()); }
  std::unique_ptr<Tokenizer> LoadFolder() { return Load(folder_.path()); }

  const TemporaryFolder folder_;
};

TEST_F(Folder, AloneTextSpellsNoControlPiece) {
  const auto tokenizer = LoadFolder();
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(tokenizer->Encode("<s>ab"), ElementsAre(0, 5));
  EXPECT_TRUE(tokenizer->IsSpecial(1));
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_THAT(tokenizer->stop_tokens(), ElementsAre(2));
}

TEST_F(Folder, ConfigsMakeControlPiecesSpecialTokens) {
  folder_.Write("tokenizer_config.json", R"({"eos_token": "</s>"})");
  const auto tokenizer = LoadFolder();
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(tokenizer->Encode("ab</s>"), ElementsAre(1, 5, 2));
  EXPECT_THAT(tokenizer->Encode("ab</s>", WithoutSpecial()), ElementsAre(5, 2));
  const std::vector<TextPiece> untrusted = {{"a", true}, {"</s>", false}};
  EXPECT_THAT(tokenizer->Encode(untrusted, WithoutSpecial()), ElementsAre(3, 0));
  EXPECT_EQ(tokenizer->Decode(std::vector<Token>{1, 5, 2}, true), "ab");
  EXPECT_EQ(tokenizer->Decode(std::vector<Token>{1, 5, 2}, false), "<s>ab</s>");
}

TEST_F(Folder, ListsOfAddedTokens) {
  folder_.Write("added_tokens.json", R"({"<tool>": 6})");
  folder_.Write("special_tokens_map.json", R"({"additional_special_tokens": ["<tool>"]})");
  folder_.Write(
      "tokenizer_config.json",
      R"({"add_bos_token": false, "add_eos_token": true, "eos_token": {"content": "<end>"},
                    "added_tokens_decoder": {"8": {"content": "<end>", "rstrip": true}}})");
  const auto tokenizer = LoadFolder();
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_THAT(tokenizer->Encode("a<tool>b<end>  a"), ElementsAre(3, 6, 4, 8, 3, 8));
  EXPECT_TRUE(tokenizer->IsSpecial(6));
  EXPECT_TRUE(tokenizer->IsSpecial(8));
  EXPECT_EQ(tokenizer->Spelling(7), "");
  EXPECT_THAT(tokenizer->stop_tokens(), ElementsAre(8));
}

TEST_F(Folder, BadListsAreNamed) {
  folder_.Write("added_tokens.json", R"({"<tool>": 4000000000})");
  EXPECT_THAT(LoadTokenizerFromPath(folder_.path()).status().ToString(), HasSubstr("4000000000"));
  folder_.Write("added_tokens.json", "{}");
  folder_.Write("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "y"}}})");
  EXPECT_THAT(LoadTokenizerFromPath(folder_.path()).status().ToString(), HasSubstr("\"x\""));
}

struct BadModel {
  const char* name;
  std::string bytes;
  const char* message;
};

class HostileModel : public ::testing::TestWithParam<BadModel> {};

TEST_P(HostileModel, IsRefused) {
  const absl::Status status = LoadModel(GetParam().bytes).status();
  EXPECT_EQ(status.code(), kInvalid) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(GetParam().message));
}

std::string Trainer(const sentencepiece::TrainerSpec& spec) {
  return Field(2, spec.SerializeAsString());
}

std::string WithCharsmap(const std::string& charsmap) {
  sentencepiece::NormalizerSpec spec;
  spec.set_precompiled_charsmap(charsmap);
  return SmallModel() + Field(3, spec.SerializeAsString());
}

std::string WithByteFallback() {
  sentencepiece::TrainerSpec spec;
  spec.set_byte_fallback(true);
  return SmallModel() + Trainer(spec);
}

INSTANTIATE_TEST_SUITE_P(
    Files, HostileModel,
    ::testing::Values(
        BadModel{"Empty", "", "0 tokens"}, BadModel{"Text", "hello", "not valid"},
        BadModel{"Truncated", SmallModel().substr(0, 40), "not valid"},
        BadModel{"HugeLength", SmallModel() + "\x0a\xff\xff\xff\xff\x07", "piece 6"},
        BadModel{"LongerLength", SmallModel() + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                 "not valid"},
        BadModel{"Groups", SmallModel() + std::string(100000, '\x33'), "not valid"},
        BadModel{"NestedGroups", SmallModel() + Field(2, std::string(100000, '\x33')), "not valid"},
        BadModel{"PieceTooLong", Field(1, "\x0a\x7f") + SmallModel(), "not valid"},
        BadModel{"NoText", SmallModel() + Field(1, ""), "piece 6 has no text"},
        BadModel{"Type", SmallModel() + Piece("x", 0, 7), "type 7"},
        BadModel{"NegativeType", SmallModel() + Piece("x", 0, -1), "type -1"},
        BadModel{"Utf8", SmallModel() + Piece("\xff", 0, 1), "UTF-8"},
        BadModel{"NanScore", SmallModel() + Piece("x", std::nanf(""), 1), "finite"},
        BadModel{"InfiniteScore",
                 SmallModel() + Piece("x", std::numeric_limits<float>::infinity(), 1), "finite"},
        BadModel{"TwoUnknown", SmallModel() + Piece("?", 0, 2), "as is token 0"},
        BadModel{"NoUnknown", Piece("a", 0, 1), "no unknown"},
        BadModel{"NoByte", SmallModel() + Piece("<0xG0>", 0, 6), "<0x00>"},
        BadModel{"BytesMissing", WithByteFallback(), "byte_fallback"},
        BadModel{"CharsmapShort", WithCharsmap("abc"), "precompiled_charsmap"},
        BadModel{"CharsmapSize",
                 WithCharsmap("\xff\xff\xff\x7f"
                              "abcd"),
                 "trie's size"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(HostileModels, AnyTruncationIsHarmless) {
  const std::string model = SmallModel();
  for (size_t size = 0; size < model.size(); ++size) {
    const auto tokenizer = LoadModel(model.substr(0, size));
    if (tokenizer.ok()) (*tokenizer)->Encode("abc<s>");
  }
}

TEST(HostileModels, UnknownModelsAreNamed) {
  sentencepiece::TrainerSpec spec;
  spec.set_model_type(3);
  const absl::Status status = LoadModel(SmallModel() + Trainer(spec)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.ToString(), HasSubstr("model_type 3"));
}

// Scores that overflow in sums still give every character one token.
TEST(HostileModels, ExtremeScoresGiveTokens) {
  const float lowest = std::numeric_limits<float>::lowest();
  const auto tokenizer = LoadModel(Piece("<unk>", 0, 2) + Piece("a", lowest, 1) +
                                   Piece("b", -lowest, 1) + Piece("bb", lowest, 1));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<Token> ids = (*tokenizer)->Encode("aabbccaabb");
  EXPECT_FALSE(ids.empty());
}

}  // namespace
}  // namespace fairlead
