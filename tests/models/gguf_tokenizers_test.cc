// SPDX-License-Identifier: Apache-2.0
// GGUF vocabularies llama, t5 and bert: the models of tests/golden/tokenizers as a converter writes
// them, compared with what sentencepiece and Hugging Face's tokenizers make of the originals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "models/sentencepiece_model.h"
#include "models/tokenizer.h"
#include "tests/models/sentencepiece_files.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr EncodeOptions kPlain = {.add_special_tokens = false, .parse_special = false};

// The metadata of a converted tokenizer.model.
Json FromSentencePiece(const std::string& kind, const char* model) {
  const std::string bytes = ReadWholeFile(GoldenPath("tokenizers/" + kind + "/tokenizer.model"));
  absl::StatusOr<SentencePieceFile> file = ParseSentencePieceModel(bytes);
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok()) return Json::object();
  Json tokens = Json::array();
  Json scores = Json::array();
  Json types = Json::array();
  for (const SentencePieceParts::Piece& piece : file->parts.piece) {
    tokens.push_back(std::string(piece.text));
    scores.push_back(piece.score);
    types.push_back(static_cast<int>(piece.type));
  }
  sentencepiece::NormalizerSpec normalizer;
  EXPECT_TRUE(normalizer.ParseFromString(FindField(bytes, 3)));
  Json charsmap = Json::array();
  for (const char byte : normalizer.precompiled_charsmap())
    charsmap.push_back(static_cast<signed char>(byte));
  return {{"tokenizer.ggml.model", model},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.scores", scores},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.bos_token_id", 1},
          {"tokenizer.ggml.eos_token_id", 2},
          {"tokenizer.ggml.unknown_token_id", 0},
          {"tokenizer.ggml.remove_extra_whitespaces", normalizer.remove_extra_whitespaces()},
          {"tokenizer.ggml.precompiled_charsmap", charsmap}};
}

std::unique_ptr<Tokenizer> Load(const Json& metadata) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadGguf(metadata);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// Compares the cases whose text holds none of `without`: tokens that the two know differently.
void ExpectGolden(const Tokenizer& tokenizer, const std::string& kind,
                  const std::vector<std::string>& without, int at_least) {
  int compared = 0;
  const Json cases = ReadGolden("tokenizers/" + kind + "/cases.json");
  for (const Json& one : cases["encode"]) {
    const std::string text = Text(one["text"]);
    if (std::any_of(without.begin(), without.end(), [&](const std::string& token) {
          return text.find(token) != std::string::npos;
        })) {
      continue;
    }
    ++compared;
    EXPECT_EQ(tokenizer.Encode(text, kPlain), Tokens(one["ids"])) << text;
  }
  EXPECT_GE(compared, at_least);
}

TEST(Llama, AgreesWithSentencePiece) {
  const auto tokenizer = Load(FromSentencePiece("spm-bpe", "llama"));
  ASSERT_NE(tokenizer, nullptr);
  ExpectGolden(*tokenizer, "spm-bpe", {}, 311);
  const Json cases = ReadGolden("tokenizers/spm-bpe/cases.json");
  for (const Json& one : cases["encode"])
    EXPECT_EQ(tokenizer->Decode(Tokens(one["ids"]), false), Text(one["decoded"]));
}

TEST(Llama, PutsBosFirstAndKnowsControlTokens) {
  Json metadata = FromSentencePiece("spm-bpe", "llama");
  const auto tokenizer = Load(metadata);
  ASSERT_NE(tokenizer, nullptr);
  std::vector<Token> expected = {1};
  const std::vector<Token> hello = tokenizer->Encode("Hello", kPlain);
  expected.insert(expected.end(), hello.begin(), hello.end());
  EXPECT_EQ(tokenizer->Encode("Hello"), expected);
  expected.push_back(2);
  // Text behind a token is a text of its own, with a space before it.
  expected.insert(expected.end(), hello.begin(), hello.end());
  EXPECT_EQ(tokenizer->Encode("Hello</s>Hello"), expected);
  const std::vector<TextPiece> untrusted = {{"</s>", false}};
  EXPECT_THAT(tokenizer->Encode(untrusted, {}), ::testing::Not(::testing::Contains(2)));
  EXPECT_THAT(tokenizer->Encode("<unk>"), ElementsAre(1, 0));
  EXPECT_THAT(tokenizer->stop_tokens(), ElementsAre(2));
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_EQ(Load(metadata)->Encode("Hello"), hello);
}

TEST(Llama, AddSpacePrefix) {
  Json metadata = {{"tokenizer.ggml.model", "llama"},
                   {"tokenizer.ggml.tokens", {"<unk>", "a", "\u2581", "\u2581a"}},
                   {"tokenizer.ggml.scores", {0, -2, -3, -1}},
                   {"tokenizer.ggml.token_type", {2, 1, 1, 1}}};
  EXPECT_THAT(Load(metadata)->Encode("a"), ElementsAre(3));
  metadata["tokenizer.ggml.add_space_prefix"] = false;
  EXPECT_THAT(Load(metadata)->Encode("a"), ElementsAre(1));
  EXPECT_THAT(Load(metadata)->Encode("  a"), ElementsAre(2, 3));
}

TEST(T5, AgreesWithSentencePiece) {
  const auto tokenizer = Load(FromSentencePiece("spm-unigram", "t5"));
  ASSERT_NE(tokenizer, nullptr);
  // User-defined: an added token here, behind which a text begins.
  ExpectGolden(*tokenizer, "spm-unigram", {"<tool_call>"}, 290);
  const std::vector<Token> hello = tokenizer->Encode("Hello", kPlain);
  EXPECT_EQ(tokenizer->Encode("Hello").back(), 2);
  EXPECT_EQ(tokenizer->Encode("Hello").size(), hello.size() + 1);
}

// As converters spell a WordPiece vocabulary.
Json FromWordPiece() {
  const Json file = ReadGolden("tokenizers/wordpiece-bert/tokenizer.json");
  std::vector<std::string> token(file["model"]["vocab"].size());
  std::vector<int> type(token.size(), 1);
  for (const auto& [text, id] : file["model"]["vocab"].items()) {
    const bool control = text.starts_with('[') && text.ends_with(']') && text.size() > 2;
    type[id.get<size_t>()] = control ? 3 : 1;
    token[id.get<size_t>()] = control                  ? text
                              : text.starts_with("##") ? text.substr(2)
                                                       : "\u2581" + text;
  }
  return {{"tokenizer.ggml.model", "bert"},    {"tokenizer.ggml.tokens", token},
          {"tokenizer.ggml.token_type", type}, {"tokenizer.ggml.unknown_token_id", 1},
          {"tokenizer.ggml.bos_token_id", 2},  {"tokenizer.ggml.seperator_token_id", 3}};
}

TEST(Bert, AgreesWithTheLibrary) {
  const auto tokenizer = Load(FromWordPiece());
  ASSERT_NE(tokenizer, nullptr);
  ExpectGolden(*tokenizer, "wordpiece-bert",
               {"<mask>", "<sep2>", "<tool_call>", "New York", "NEW YORK", "new york", "kbd",
                "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[PAD]"},
               250);
  const std::vector<Token> ids = tokenizer->Encode("hello");
  EXPECT_EQ(ids.front(), 2);
  EXPECT_EQ(ids.back(), 3);
  EXPECT_EQ(tokenizer->Decode(ids, true), "hello");
}

TEST(Bert, ObeysTheNormalizersKeys) {
  const Json golden = ReadGolden("text/gguf_pre.json");
  ASSERT_EQ(golden["bert"].size(), 18u);
  for (const Json& one : golden["bert"]) {
    Json metadata = FromWordPiece();
    metadata["tokenizer.ggml.normalizer.lowercase"] = one["lowercase"];
    if (!one["strip_accents"].is_null())
      metadata["tokenizer.ggml.normalizer.strip_accents"] = one["strip_accents"];
    EXPECT_EQ(Load(metadata)->Encode(Text(one["text"]), kPlain), Tokens(one["ids"])) << one.dump();
  }
}

Json FromByteLevel(const Json& golden) {
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.tokens", golden["tokens"]},
          {"tokenizer.ggml.merges", golden["merges"]},
          {"tokenizer.ggml.add_bos_token", false},
          {"tokenizer.ggml.add_eos_token", false}};
}

// What each name of tokenizer.ggml.pre stands for.
TEST(ByteLevel, CutsTextAsThePreTokenizersNamed) {
  const Json golden = ReadGolden("text/gguf_pre.json");
  Json metadata = FromByteLevel(golden);
  int compared = 0;
  for (const Json& group : golden["groups"]) {
    for (const Json& pre : group["pre"]) {
      metadata["tokenizer.ggml.pre"] = pre;
      const auto tokenizer = Load(metadata);
      ASSERT_NE(tokenizer, nullptr) << pre;
      for (size_t i = 0; i < golden["texts"].size(); ++i, ++compared) {
        const std::string text = Text(golden["texts"][i]);
        EXPECT_EQ(tokenizer->Encode(text, kPlain), Tokens(group["ids"][i])) << pre << ": " << text;
      }
    }
  }
  EXPECT_EQ(compared, 70 * 6);
  metadata.erase("tokenizer.ggml.pre");
  EXPECT_EQ(Load(metadata)->Encode(Text(golden["texts"][0]), kPlain),
            Tokens(golden["groups"][0]["ids"][0]));
}

// Names of end tokens count more than their types; <mask> takes a space along for Jina's.
TEST(ByteLevel, KnowsEndTokensByName) {
  const Json golden = ReadGolden("text/gguf_pre.json");
  const Json& special = golden["special"];
  Json metadata = FromByteLevel(golden);
  const size_t plain = golden["tokens"].size();
  Json types = std::vector<int>(plain, 1);
  for (const Json& token : special["tokens"]) metadata["tokenizer.ggml.tokens"].push_back(token);
  for (const Json& type : special["types"]) types.push_back(type);
  metadata["tokenizer.ggml.token_type"] = types;
  for (const Json& one : special["cases"]) {
    metadata["tokenizer.ggml.pre"] = one["pre"];
    const auto tokenizer = Load(metadata);
    ASSERT_NE(tokenizer, nullptr);
    for (size_t i = 0; i < special["texts"].size(); ++i) {
      const std::string text = Text(special["texts"][i]);
      EXPECT_EQ(tokenizer->Encode(text, {.add_special_tokens = false, .parse_special = true}),
                Tokens(one["ids"][i]))
          << one["pre"] << ": " << text;
    }
    EXPECT_TRUE(tokenizer->IsSpecial(static_cast<Token>(plain + 1)));
    const std::vector<TextPiece> untrusted = {{"<|im_end|>", false}};
    EXPECT_THAT(tokenizer->Encode(untrusted, {}),
                ::testing::Not(::testing::Contains(static_cast<Token>(plain + 1))));
  }
  // A user-defined token would match in any text.
  metadata["tokenizer.ggml.token_type"][plain + 1] = 4;
  const auto tokenizer = Load(metadata);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_TRUE(tokenizer->IsSpecial(static_cast<Token>(plain + 1)));
  const std::vector<TextPiece> untrusted = {{"<|im_end|>", false}};
  EXPECT_THAT(tokenizer->Encode(untrusted, {}),
              ::testing::Not(::testing::Contains(static_cast<Token>(plain + 1))));
}

TEST(Gguf, MalformedKeysAreNamed) {
  const auto refused = [](const char* key, Json value) {
    Json metadata = {{"tokenizer.ggml.model", "t5"},
                     {"tokenizer.ggml.tokens", {"<unk>", "a", "<0x00>"}},
                     {"tokenizer.ggml.scores", {0, -1, 0}},
                     {"tokenizer.ggml.token_type", {2, 1, 1}}};
    EXPECT_TRUE(LoadGguf(metadata).ok());
    metadata[key] = std::move(value);
    const absl::Status status = LoadGguf(metadata).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << key << ": " << status;
    return status.ToString();
  };
  EXPECT_THAT(refused("tokenizer.ggml.scores", {0, 1}), HasSubstr("2 entries for 3"));
  EXPECT_THAT(refused("tokenizer.ggml.scores", {0, 1, "x"}), HasSubstr("entry 2"));
  EXPECT_THAT(refused("tokenizer.ggml.scores", {0, 1e39, 0}), HasSubstr("finite"));
  EXPECT_THAT(refused("tokenizer.ggml.token_type", {2, 1, 6.5}), HasSubstr("entry 2"));
  EXPECT_THAT(refused("tokenizer.ggml.token_type", {1, 1, 1}), HasSubstr("no unknown"));
  EXPECT_THAT(refused("tokenizer.ggml.token_type", {2, 6, 1}), HasSubstr("token 1"));
  EXPECT_THAT(refused("tokenizer.ggml.tokens", {"a", "b", 3}), HasSubstr("entry 2"));
  EXPECT_THAT(refused("tokenizer.ggml.eos_token_id", 3), HasSubstr("eos_token_id"));
  EXPECT_THAT(refused("tokenizer.ggml.add_eos_token", true), HasSubstr("add_eos_token"));
  EXPECT_THAT(refused("tokenizer.ggml.precompiled_charsmap", {1, 300}), HasSubstr("entry 1"));
  EXPECT_THAT(refused("tokenizer.ggml.precompiled_charsmap", {1, 2}), HasSubstr("header"));
}

}  // namespace
}  // namespace fairlead
