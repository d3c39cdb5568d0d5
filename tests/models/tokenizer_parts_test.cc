// SPDX-License-Identifier: Apache-2.0
// Each normalizer, pre-tokenizer and decoder of tokenizer.json alone, compared with Hugging Face's
// tokenizers: golden/make/make_tokenizer_parts.py.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/detokenizer.h"
#include "models/normalizer.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

std::unique_ptr<Tokenizer> With(Json tokenizer, const char* section, const Json& part) {
  tokenizer[section] = part;
  auto loaded = LoadTokenizerText(tokenizer.dump());
  EXPECT_TRUE(loaded.ok()) << part << ": " << loaded.status();
  return loaded.ok() ? *std::move(loaded) : nullptr;
}

void ExpectEncodes(const std::string& file, const char* section) {
  const Json golden = ReadGolden("tokenizer_parts/" + file);
  ASSERT_GT(golden["cases"].size(), 10u);
  for (const Json& one : golden["cases"]) {
    const auto tokenizer = With(golden["tokenizer"], section, one["part"]);
    ASSERT_NE(tokenizer, nullptr);
    for (size_t i = 0; i < golden["texts"].size(); ++i) {
      const std::string text = Text(golden["texts"][i]);
      EXPECT_EQ(tokenizer->Encode(text), Tokens(one["ids"][i])) << one["part"] << " on: " << text;
    }
  }
}

TEST(TokenizerParts, Normalizers) { ExpectEncodes("normalizers.json", "normalizer"); }

TEST(TokenizerParts, PreTokenizers) { ExpectEncodes("pre_tokenizers.json", "pre_tokenizer"); }

TEST(TokenizerParts, Decoders) {
  const Json golden = ReadGolden("tokenizer_parts/decoders.json");
  ASSERT_GT(golden["cases"].size(), 10u);
  for (const Json& one : golden["cases"]) {
    const auto tokenizer = With(golden["tokenizer"], "decoder", one["part"]);
    ASSERT_NE(tokenizer, nullptr);
    for (size_t i = 0; i < golden["ids"].size(); ++i) {
      const std::vector<Token> ids = Tokens(golden["ids"][i]);
      EXPECT_EQ(tokenizer->Decode(ids, false), Text(one["texts"][i]))
          << one["part"] << " of " << golden["ids"][i];
      Detokenizer stream(*tokenizer, false);
      std::string text;
      for (const Token id : ids) {
        const std::string piece = stream.Push(id);
        EXPECT_TRUE(IsValidUtf8(piece)) << one["part"];
        text += piece;
      }
      EXPECT_EQ(text + stream.Finish(), Text(one["texts"][i])) << one["part"] << ", streamed";
    }
  }
}

// Where a normalizer moves text, what is trusted moves along: "<s>" counts in the trusted piece
// alone.
TEST(TokenizerParts, TrustFollowsThroughEveryNormalizer) {
  const Json golden = ReadGolden("tokenizer_parts/normalizers.json");
  for (const Json& one : golden["cases"]) {
    Json tokenizer = golden["tokenizer"];
    tokenizer["added_tokens"] = Json::array({{{"id", 256},
                                              {"content", "<s>"},
                                              {"special", true},
                                              {"normalized", true},
                                              {"single_word", false},
                                              {"lstrip", false},
                                              {"rstrip", false}}});
    const auto loaded = With(tokenizer, "normalizer", one["part"]);
    ASSERT_NE(loaded, nullptr);
    // A normalizer that changes the token's own text apart from what stands around it finds none.
    const auto alone = loaded->Encode("<s>");
    const bool found = alone.size() == 1 && alone[0] == 256;
    const TextPiece pieces[] = {{"Caf\u00e9 <s> \u6f22 ", false},
                                {"<s>", true},
                                {" <s>e", false},
                                {"\u0301<s", true},
                                {">", false}};
    const auto ids = loaded->Encode(pieces, {.add_special_tokens = false});
    const auto count = std::count(ids.begin(), ids.end(), 256);
    EXPECT_TRUE(found) << one["part"];
    // A prefix is a part of the token's normalized text, and stands where the input begins.
    const bool prefixed = one["part"].dump().find("Prepend") != std::string::npos;
    EXPECT_EQ(count, prefixed ? 0 : 1) << one["part"];
  }
}

struct BadPart {
  const char* name;
  const char* section;
  const char* part;
  absl::StatusCode code;
  const char* message;
};

class BadTokenizerPart : public ::testing::TestWithParam<BadPart> {};

TEST_P(BadTokenizerPart, IsRefused) {
  Json tokenizer = ReadGolden("tokenizer_parts/decoders.json")["tokenizer"];
  tokenizer[GetParam().section] = Json::parse(GetParam().part);
  const auto loaded = LoadTokenizerText(tokenizer.dump());
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), GetParam().code) << loaded.status();
  EXPECT_NE(loaded.status().message().find(GetParam().message), std::string::npos)
      << loaded.status();
}

constexpr auto kBad = absl::StatusCode::kInvalidArgument;
constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
INSTANTIATE_TEST_SUITE_P(
    Parts, BadTokenizerPart,
    ::testing::Values(
        BadPart{"NormalizerType", "normalizer", R"({"type": "Rot13"})", kUnknown, "\"Rot13\""},
        BadPart{"NormalizerList", "normalizer", "[1]", kBad, "must be an object"},
        BadPart{"NormalizerSequence", "normalizer", R"({"type": "Sequence"})", kBad,
                "\"normalizers\""},
        BadPart{"ReplacePattern", "normalizer", R"({"type": "Replace", "content": "x"})", kBad,
                "\"pattern\""},
        BadPart{"ReplaceKind", "normalizer",
                R"({"type": "Replace", "pattern": {"Glob": "*"}, "content": "x"})", kBad,
                "\"Glob\""},
        BadPart{"ReplaceGrowth", "normalizer",
                R"({"type": "Sequence", "normalizers": [
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"},
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"},
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"},
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"},
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}]})",
                kBad, "65536 times"},
        BadPart{"DecoderGrowth", "decoder",
                R"({"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"},
                    {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaaa"}]})",
                kBad, "256 times"},
        BadPart{"Rewriting", "pre_tokenizer",
                R"({"type": "Sequence", "pretokenizers": [
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false},
                    {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false}]})",
                kBad, "7 steps"},
        BadPart{"CharsmapBase64", "normalizer",
                R"({"type": "Precompiled", "precompiled_charsmap": "!"})", kBad, "base64"},
        BadPart{"PreTokenizerType", "pre_tokenizer", R"({"type": "Emoji"})", kUnknown, "\"Emoji\""},
        BadPart{"PrependScheme", "pre_tokenizer",
                R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "often"})", kBad,
                "\"often\""},
        BadPart{"Replacement", "pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})",
                kBad, "one character"},
        BadPart{"Delimiter", "pre_tokenizer", R"({"type": "CharDelimiterSplit"})", kBad,
                "one character"},
        BadPart{"Length", "pre_tokenizer", R"({"type": "FixedLength", "length": 0})", kBad,
                "length"},
        BadPart{"Behavior", "pre_tokenizer", R"({"type": "Punctuation", "behavior": "Eaten"})",
                kBad, "\"Eaten\""},
        BadPart{"DecoderType", "decoder", R"({"type": "Morse"})", kUnknown, "\"Morse\""},
        BadPart{"StripContent", "decoder",
                R"({"type": "Strip", "content": "ab", "start": 1, "stop": 0})", kBad,
                "one character"},
        BadPart{"StripCount", "decoder",
                R"({"type": "Strip", "content": "a", "start": -1, "stop": 0})", kBad, "start"},
        BadPart{"DecoderSequence", "decoder", R"({"type": "Sequence", "decoders": 1})", kBad,
                "\"decoders\""}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace fairlead
