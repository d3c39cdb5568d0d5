// SPDX-License-Identifier: Apache-2.0
// What tokenizer files say, and what is wrong with some of them: GGUF metadata, tokenizer.json and
// the configs beside it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "models/tokenizer.h"
#include "tests/models/tokenizer_testing.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

// a b c ab <bos> <eos> <eot> <eom> <tool>
Json GgufMetadata() {
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "gpt-2"},
          {"tokenizer.ggml.tokens",
           {"a", "b", "c", "ab", "<bos>", "<eos>", "<eot>", "<eom>", "<tool>"}},
          {"tokenizer.ggml.token_type", {1, 1, 1, 1, 3, 3, 3, 3, 4}},
          {"tokenizer.ggml.merges", {"a b"}},
          {"tokenizer.ggml.bos_token_id", 4},
          {"tokenizer.ggml.eos_token_id", 5}};
}

TEST(Gguf, TokensTypesAndStops) {
  Json metadata = GgufMetadata();
  metadata["tokenizer.ggml.eot_token_id"] = 6;
  metadata["tokenizer.ggml.eom_token_id"] = 7;
  const auto tokenizer = LoadGguf(metadata);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.vocab_size(), 9);
  EXPECT_EQ(t.bos(), 4);
  EXPECT_THAT(t.stop_tokens(), ElementsAre(5, 6, 7));
  EXPECT_THAT(t.Encode("abc<eos><tool>a"), ElementsAre(3, 2, 5, 8, 0));
  EXPECT_TRUE(t.IsSpecial(4));
  EXPECT_FALSE(t.IsSpecial(8));
  EXPECT_THAT(t.Encode("<tool>", {.add_special_tokens = false, .parse_special = false}),
              ElementsAre(8));
  const std::vector<Token> ids = {4, 3, 8, 5};
  EXPECT_EQ(t.Decode(ids, true), "ab<tool>");
}

TEST(Gguf, AddsBosAndEos) {
  Json metadata = GgufMetadata();
  metadata["tokenizer.ggml.add_bos_token"] = true;
  metadata["tokenizer.ggml.add_eos_token"] = true;
  const auto tokenizer = LoadGguf(metadata);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("a"), ElementsAre(4, 0, 5));
  EXPECT_THAT((*tokenizer)->Encode("a", WithoutSpecial()), ElementsAre(0));
}

TEST(Gguf, Llama3AddsBosUnlessToldOtherwise) {
  Json metadata = GgufMetadata();
  metadata["tokenizer.ggml.pre"] = "llama-bpe";
  EXPECT_THAT((*LoadGguf(metadata))->Encode("a"), ElementsAre(4, 0));
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_THAT((*LoadGguf(metadata))->Encode("a"), ElementsAre(0));
}

// The words of "123 I'M": what tells the splits apart.
TEST(Gguf, PreTokenizersSplitDigitsAsTheirModelsDo) {
  Json metadata = GgufMetadata();
  metadata["tokenizer.ggml.tokens"] = {"1", "11", "111", "1111"};
  metadata["tokenizer.ggml.merges"] = {"1 1", "11 1", "11 11"};
  metadata.erase("tokenizer.ggml.token_type");
  metadata.erase("tokenizer.ggml.bos_token_id");
  metadata.erase("tokenizer.ggml.eos_token_id");
  const auto encode = [&](const char* pre) {
    metadata["tokenizer.ggml.pre"] = pre;
    const auto tokenizer = LoadGguf(metadata);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->Encode("1111") : std::vector<Token>();
  };
  EXPECT_THAT(encode("gpt-2"), ElementsAre(3));
  EXPECT_THAT(encode("smollm"), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(encode("qwen2"), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(encode("llama-bpe"), ElementsAre(2, 0));
  EXPECT_THAT(encode("gpt-4o"), ElementsAre(2, 0));
  EXPECT_THAT(encode("deepseek-v3"), ElementsAre(2, 0));
  EXPECT_THAT(encode("tekken"), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(encode("falcon"), ElementsAre(2, 0));
  EXPECT_THAT(encode("deepseek-coder"), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(encode("bloom"), ElementsAre(3));
  EXPECT_THAT(encode("viking"), ElementsAre(0, 0, 0, 0));
}

TEST(Gguf, UnknownNamesAreListed) {
  Json metadata = GgufMetadata();
  metadata["tokenizer.ggml.pre"] = "klingon";
  absl::Status status = LoadGguf(metadata).status();
  EXPECT_EQ(status.code(), kUnimplemented);
  EXPECT_THAT(status.ToString(), AllOf(HasSubstr("klingon"), HasSubstr("smollm"),
                                       HasSubstr("llama-bpe"), HasSubstr("model.gguf")));
  metadata["tokenizer.ggml.model"] = "rwkv";
  status = LoadGguf(metadata).status();
  EXPECT_EQ(status.code(), kUnimplemented);
  EXPECT_THAT(status.ToString(), AllOf(HasSubstr("\"rwkv\""), HasSubstr("gpt2"), HasSubstr("t5")));
}

struct BadFile {
  const char* name;
  std::function<void(Json&)> spoil;
  absl::StatusCode code;
  const char* message;
};

std::string BadFileName(const ::testing::TestParamInfo<BadFile>& info) { return info.param.name; }

class BadGguf : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadGguf, IsRefused) {
  Json metadata = GgufMetadata();
  GetParam().spoil(metadata);
  const absl::Status status = LoadGguf(metadata).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Metadata, BadGguf,
    ::testing::Values(
        BadFile{"NoTokens", [](Json& m) { m.erase("tokenizer.ggml.tokens"); }, kInvalid,
                "tokens is missing"},
        BadFile{"NoMerges", [](Json& m) { m.erase("tokenizer.ggml.merges"); }, kInvalid,
                "merges is missing"},
        BadFile{"TokensNoArray", [](Json& m) { m["tokenizer.ggml.tokens"] = 7; }, kInvalid,
                "tokens must be an array"},
        BadFile{"TokenNoText", [](Json& m) { m["tokenizer.ggml.tokens"][2] = 7; }, kInvalid,
                "entry 2"},
        BadFile{"TwiceTheSame", [](Json& m) { m["tokenizer.ggml.tokens"][2] = "a"; }, kInvalid,
                "ids 0 and 2"},
        BadFile{"NotUtf8", [](Json& m) { m["tokenizer.ggml.tokens"][2] = "\xFF"; }, kInvalid,
                "token 2 is not valid UTF-8"},
        BadFile{"TypesTooFew", [](Json& m) { m["tokenizer.ggml.token_type"] = {1}; }, kInvalid,
                "1 entries for 9"},
        BadFile{"TypeNoNumber", [](Json& m) { m["tokenizer.ggml.token_type"][1] = "x"; }, kInvalid,
                "entry 1"},
        BadFile{"MergeUnknown",
                [](Json& m) {
                  m["tokenizer.ggml.merges"] = {"a b", "b c"};
                },
                kInvalid, "merge 1: \"bc\""},
        BadFile{"MergeOnePart", [](Json& m) { m["tokenizer.ggml.merges"] = {"ab"}; }, kInvalid,
                "entry 0"},
        BadFile{"MergeThreeParts", [](Json& m) { m["tokenizer.ggml.merges"] = {"a b c"}; },
                kInvalid, "entry 0"},
        BadFile{"MergeNoText", [](Json& m) { m["tokenizer.ggml.merges"] = {1}; }, kInvalid,
                "entry 0"},
        BadFile{"EosOutside", [](Json& m) { m["tokenizer.ggml.eos_token_id"] = 9; }, kInvalid,
                "eos_token_id"},
        BadFile{"BosNegative", [](Json& m) { m["tokenizer.ggml.bos_token_id"] = -1; }, kInvalid,
                "bos_token_id"},
        BadFile{"BosNoNumber", [](Json& m) { m["tokenizer.ggml.bos_token_id"] = "x"; }, kInvalid,
                "bos_token_id"},
        BadFile{"AddBosWithout",
                [](Json& m) {
                  m["tokenizer.ggml.add_bos_token"] = true;
                  m.erase("tokenizer.ggml.bos_token_id");
                },
                kInvalid, "add_bos_token"}),
    BadFileName);

// A byte-level tokenizer.json: a b c ab.
Json JsonFile() {
  return {
      {"version", "1.0"},
      {"added_tokens", Json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}}},
        {"merges", Json::array({Json::array({"a", "b"})})}}}};
}

TEST(TokenizerJson, MergesInBothForms) {
  for (const Json& merges : {Json::array({Json::array({"a", "b"})}), Json::array({"a b"}),
                             Json::array({"#version: 0.2", "a b"})}) {
    Json file = JsonFile();
    file["model"]["merges"] = merges;
    const auto tokenizer = LoadTokenizerText(DumpJson(file));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_THAT((*tokenizer)->Encode("abc"), ElementsAre(3, 2));
  }
}

TEST(TokenizerJson, IdsOfAddedTokensFollowTheVocabulary) {
  Json file = JsonFile();
  file["added_tokens"] = Json::array({{{"id", 77}, {"content", "<x>"}, {"special", true}},
                                      {{"id", 78}, {"content", "b"}, {"special", false}},
                                      {{"id", 79}, {"content", "<y>"}}});
  const auto tokenizer = LoadTokenizerText(DumpJson(file));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("<x>ab<y>"), ElementsAre(4, 0, 1, 5));
  EXPECT_EQ((*tokenizer)->vocab_size(), 6);
}

TEST(TokenizerJson, GapsInTheVocabularyAreIdsWithoutAToken) {
  Json file = JsonFile();
  file["model"]["vocab"]["c"] = 9;
  const auto tokenizer = LoadTokenizerText(DumpJson(file));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 10);
  EXPECT_EQ((*tokenizer)->Spelling(5), "");
  EXPECT_THAT((*tokenizer)->Encode("c"), ElementsAre(9));
}

class BadTokenizerJson : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizerJson, IsRefused) {
  Json file = JsonFile();
  GetParam().spoil(file);
  const absl::Status status = LoadTokenizerText(DumpJson(file)).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(status.ToString(), HasSubstr(GetParam().message));
}

Json AddedTokens(const char* text) {
  return Json::array({{{"id", 4}, {"content", text}, {"normalized", false}}});
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadTokenizerJson,
    ::testing::Values(
        BadFile{"Model", [](Json& f) { f["model"]["type"] = "Odd"; }, kUnimplemented,
                "\"Odd\" is unknown; known: BPE"},
        BadFile{"NoPieces",
                [](Json& f) {
                  f["model"] = {{"type", "Unigram"}, {"vocab", Json::array()}};
                },
                kInvalid, "model.vocab of a Unigram must be a list"},
        BadFile{"Normalizer",
                [](Json& f) {
                  f["normalizer"] = {{"type", "OddNormalizer"}};
                },
                kUnimplemented, "\"OddNormalizer\""},
        BadFile{"PreTokenizer",
                [](Json& f) {
                  f["pre_tokenizer"] = {{"type", "OddSplit"}};
                },
                kUnimplemented, "\"OddSplit\""},
        BadFile{"PostProcessor",
                [](Json& f) {
                  f["post_processor"] = {{"type", "Odd"}};
                },
                kUnimplemented, "\"Odd\""},
        BadFile{"Decoder",
                [](Json& f) {
                  f["decoder"] = {{"type", "OddDecoder"}};
                },
                kUnimplemented, "\"OddDecoder\""},
        BadFile{"Dropout", [](Json& f) { f["model"]["dropout"] = 0.1; }, kUnimplemented, "dropout"},
        BadFile{"NegativeId", [](Json& f) { f["model"]["vocab"]["a"] = -1; }, kInvalid,
                "has id -1"},
        BadFile{"HugeId", [](Json& f) { f["model"]["vocab"]["a"] = 4000000000u; }, kInvalid,
                "has id 4000000000"},
        BadFile{"HugerId", [](Json& f) { f["model"]["vocab"]["a"] = UINT64_MAX; }, kInvalid,
                "ids are from 0"},
        BadFile{"SharedId", [](Json& f) { f["model"]["vocab"]["b"] = 0; }, kInvalid,
                "both \"a\" and \"b\""},
        BadFile{"IdNoNumber", [](Json& f) { f["model"]["vocab"]["b"] = "x"; }, kInvalid,
                "no integer"},
        BadFile{"IdList", [](Json& f) { f["model"]["vocab"]["b"] = Json::array({1}); }, kInvalid,
                "list among tokens"},
        BadFile{"NoVocab", [](Json& f) { f["model"].erase("vocab"); }, kInvalid,
                "model.vocab is missing"},
        BadFile{"NoModel", [](Json& f) { f.erase("model"); }, kInvalid, "must be an object"},
        BadFile{"MergeUnknown", [](Json& f) { f["model"]["merges"] = Json::array({"b z"}); },
                kInvalid, "\"z\""},
        BadFile{"MergeThree",
                [](Json& f) {
                  f["model"]["merges"][0] = {"a", "b", "c"};
                },
                kInvalid, "two parts"},
        BadFile{"MergeNumber", [](Json& f) { f["model"]["merges"][0] = 3; }, kInvalid,
                "merge that is no text"},
        BadFile{"AddedNegative",
                [](Json& f) {
                  f["added_tokens"] = Json::array({{{"id", -4}, {"content", "x"}}});
                },
                kInvalid, "added_tokens.id"},
        BadFile{"AddedNoList", [](Json& f) { f["added_tokens"] = 3; }, kInvalid, "added_tokens"},
        BadFile{"AddedLong",
                [](Json& f) { f["added_tokens"] = AddedTokens(std::string(1025, 'x').c_str()); },
                kInvalid, "longer than 1024"},
        BadFile{"Regex",
                [](Json& f) {
                  f["pre_tokenizer"] = {
                      {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
                },
                kInvalid, "\"(a\" at offset 2"},
        BadFile{"Behavior",
                [](Json& f) {
                  f["pre_tokenizer"] = {
                      {"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}};
                },
                kInvalid, "\"Odd\""},
        BadFile{"Template",
                [](Json& f) {
                  f["post_processor"] = {
                      {"type", "TemplateProcessing"},
                      {"single", Json::array({{{"SpecialToken", {{"id", "<s>"}}}}})},
                      {"special_tokens", Json::object()}};
                },
                kInvalid, "\"<s>\", which has no ids"}),
    BadFileName);

TEST(TokenizerJson, HostileSyntaxIsRefused) {
  for (const std::string& text :
       {std::string("{"), std::string(), std::string("[]"),
        std::string("{\"model\": {\"vocab\": {\"a\""), std::string(100000, '['),
        std::string("{\"a\": 1} x"), std::string("{\"\xFF\": 1}")}) {
    const absl::Status status = LoadTokenizerText(text).status();
    EXPECT_EQ(status.code(), kInvalid) << text.substr(0, 20) << ": " << status;
  }
}

// Paths.
class Folder : public ::testing::Test {
 protected:
  Folder() {
    Json file = JsonFile();
    file["added_tokens"] = Json::array({{{"id", 4}, {"content", "<eos>"}, {"special", true}},
                                        {{"id", 5}, {"content", "<bos>"}, {"special", true}}});
    folder_.Write("tokenizer.json", DumpJson(file));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load() {
    return LoadTokenizerFromPath(folder_.path());
  }

  const TemporaryFolder folder_;
};

TEST_F(Folder, StopTokensComeFromAllConfigs) {
  folder_.Write("config.json", R"({"eos_token_id": 1, "bos_token_id": 0})");
  folder_.Write("generation_config.json", R"({"eos_token_id": [2, 1]})");
  folder_.Write("tokenizer_config.json",
                R"({"eos_token": {"content": "<eos>"}, "bos_token": "<bos>"})");
  const auto tokenizer = Load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->stop_tokens(), ElementsAre(1, 2, 4));
  EXPECT_EQ((*tokenizer)->bos(), 5);
}

TEST_F(Folder, ConfigsMayBeMissingOrSayNothing) {
  EXPECT_THAT((*Load())->stop_tokens(), IsEmpty());
  EXPECT_EQ((*Load())->bos(), std::nullopt);
  folder_.Write("config.json", R"({"eos_token_id": null, "bos_token_id": 0})");
  folder_.Write("generation_config.json", R"({"eos_token_id": -1})");
  EXPECT_THAT((*Load())->stop_tokens(), IsEmpty());
  EXPECT_EQ((*Load())->bos(), 0);
  folder_.Write("tokenizer_config.json", R"({"eos_token": null, "bos_token": null})");
  EXPECT_EQ((*Load())->bos(), std::nullopt);
}

TEST_F(Folder, MalformedConfigsAreNamed) {
  folder_.Write("generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(Load().status().ToString(),
              AllOf(HasSubstr("generation_config.json"), HasSubstr("\"x\"")));
  folder_.Write("generation_config.json", "[");
  EXPECT_EQ(Load().status().code(), kInvalid);
}

// As Sentence Transformers 5.7 has it: a Lowercase before the normalizer, which never sees special
// tokens.
TEST_F(Folder, SentenceTransformersMayAskForLowerCase) {
  const auto encode = [this](const char* sentence, const Json& normalizer) {
    Json file = *ParseJson(ReadWholeFile(folder_.path() + "/tokenizer.json"));
    file["added_tokens"].push_back({{"id", 6}, {"content", "<EOT>"}, {"special", true}});
    file["normalizer"] = normalizer;
    const TemporaryFolder folder;
    folder.Write("tokenizer.json", DumpJson(file));
    folder.Write("sentence_bert_config.json", sentence);
    const auto tokenizer = LoadTokenizerFromPath(folder.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->Encode("aBC<EOT>") : std::vector<Token>();
  };
  constexpr const char* kYes = R"({"do_lower_case":true})";
  const Json lower = {{"type", "Lowercase"}}, nfc = {{"type", "NFC"}};
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", "C"}}}, {"content", "a"}};  // comes too late
  for (const Json& normalizer :
       {Json(), nfc, lower, replace, Json({{"type", "Sequence"}, {"normalizers", {nfc, replace}}}),
        Json({{"type", "Sequence"}, {"normalizers", {nfc, lower}}})}) {
    EXPECT_THAT(encode(kYes, normalizer), ElementsAre(3, 2, 6)) << normalizer;
  }
  EXPECT_THAT(encode(R"({"do_lower_case":false})", replace), ElementsAre(0, 0, 6));
  folder_.Write("sentence_bert_config.json", R"({"do_lower_case":"yes"})");
  EXPECT_THAT(std::string(Load().status().message()),
              AllOf(HasSubstr("sentence_bert_config.json: "), HasSubstr("\"yes\"")));
  std::filesystem::remove(folder_.path() + "/tokenizer.json");
  folder_.Write("tokenizer.model", "x");
  folder_.Write("sentence_bert_config.json", kYes);
  EXPECT_EQ(Load().status().code(), kUnimplemented);
}

TEST_F(Folder, WithoutATokenizerFileIsNotFound) {
  std::filesystem::remove(folder_.path() + "/tokenizer.json");
  EXPECT_EQ(Load().status().code(), absl::StatusCode::kNotFound);
  folder_.Write("tokenizer.model", "x");
  EXPECT_EQ(Load().status().code(), kInvalid);
  EXPECT_EQ(LoadTokenizerFromPath(folder_.path() + "/absent.json").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace fairlead
