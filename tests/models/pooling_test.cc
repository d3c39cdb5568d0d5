// SPDX-License-Identifier: Apache-2.0
// Which files say how a model pools, in the forms that sentence-transformers writes them.
#include "models/pooling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "models/gguf.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kMean =
    R"({"word_embedding_dimension":384,"pooling_mode_cls_token":false,
    "pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":false})";
constexpr std::string_view kTransformer =
    R"({"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"})";
constexpr std::string_view kPoolingModule =
    R"({"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"})";
constexpr std::string_view kNormalize =
    R"({"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"})";

std::string List(std::initializer_list<std::string_view> modules) {
  std::string text;
  for (const std::string_view module : modules) {
    text += (text.empty() ? "[" : ",") + std::string(module);
  }
  return text + "]";
}

// A folder that has weights, and files by name.
using Files = std::vector<std::pair<std::string, std::string>>;
absl::StatusOr<std::optional<PoolingConfig>> Read(const Files& files) {
  const TemporaryFolder folder;
  folder.Write("config.json", R"({"architectures":["BertModel"]})");
  folder.Write("model.safetensors", SafetensorsFile("{}", ""));
  for (const auto& [name, text] : files) {
    std::filesystem::create_directories(
        std::filesystem::path(folder.path() + "/" + name).parent_path());
    folder.Write(name, text);
  }
  const auto source = OpenWeights(folder.path());
  EXPECT_TRUE(source.ok()) << source.status();
  return ReadPooling(**source);
}

TEST(PoolingTest, ReadsWhatSentenceTransformersWrites) {
  const auto all = Read({{"modules.json", List({kTransformer, kPoolingModule, kNormalize})},
                         {"1_Pooling/config.json", std::string(kMean)},
                         {"sentence_bert_config.json", R"({"max_seq_length":256})"}});
  ASSERT_TRUE(all.ok() && all->has_value()) << all.status();
  EXPECT_EQ((*all)->pooling, Pooling::kMean);
  EXPECT_TRUE((*all)->normalize);
  EXPECT_EQ((*all)->max_tokens, 256);
  const auto less = Read({{"modules.json", List({kTransformer, kPoolingModule})},
                          {"1_Pooling/config.json",
                           R"({"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false})"},
                          {"sentence_bert_config.json", R"({"max_seq_length":null})"}});
  ASSERT_TRUE(less.ok() && less->has_value()) << less.status();
  EXPECT_EQ((*less)->pooling, Pooling::kFirst);
  EXPECT_FALSE((*less)->normalize);
  EXPECT_EQ((*less)->max_tokens, 0);
  const auto bare = Read({});
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_FALSE(bare->has_value());
}

// As Sentence Transformers 5.7 (Transformer.__init__): without max_seq_length, the tokenizer's.
TEST(PoolingTest, TokensOfAText) {
  const auto tokens = [](const char* sentence, const char* tokenizer) {
    Files files = {{"1_Pooling/config.json", "{}"}};
    if (sentence != nullptr) files.emplace_back("sentence_bert_config.json", sentence);
    if (tokenizer != nullptr) files.emplace_back("tokenizer_config.json", tokenizer);
    const auto got = Read(files);
    EXPECT_TRUE(got.ok() && got->has_value()) << got.status();
    return got.ok() && got->has_value() ? (*got)->max_tokens : -1;
  };
  EXPECT_EQ(tokens(nullptr, R"({"model_max_length":512})"), 512);
  EXPECT_EQ(tokens("{}", R"({"model_max_length":512})"), 512);
  EXPECT_EQ(tokens(R"({"max_seq_length":256})", R"({"model_max_length":512})"), 256);
  EXPECT_EQ(tokens(R"({"max_seq_length":600})", R"({"model_max_length":512})"), 600);
  EXPECT_EQ(tokens(nullptr, R"({"model_max_length":1000000000000000019884624838656})"), 0);
  EXPECT_EQ(tokens(nullptr, R"({"model_max_length":null})"), 0);
  EXPECT_EQ(tokens(nullptr, nullptr), 0);
  const auto wrong = Read({{"1_Pooling/config.json", "{}"}, {"tokenizer_config.json", "[]"}});
  EXPECT_THAT(std::string(wrong.status().message()), HasSubstr("tokenizer_config.json"));
}

TEST(PoolingTest, APromptThatTheModelExpectsIsNamed) {
  const auto prompt = [](const char* config) {
    const auto got =
        Read({{"1_Pooling/config.json", "{}"}, {"config_sentence_transformers.json", config}});
    EXPECT_TRUE(got.ok() && got->has_value()) << got.status();
    return got.ok() && got->has_value() ? (*got)->prompt : "?";
  };
  EXPECT_EQ(prompt(R"({"prompts":{"query":"q: "},"default_prompt_name":"query"})"), "query");
  EXPECT_EQ(prompt(R"({"prompts":{"query":""},"default_prompt_name":"query"})"), "");
  EXPECT_EQ(prompt(R"({"prompts":{"query":"q: "},"default_prompt_name":null})"), "");
  EXPECT_EQ(prompt(R"({"prompts":{},"default_prompt_name":"query"})"), "");
  EXPECT_EQ(prompt("{}"), "");
  const auto wrong = Read({{"1_Pooling/config.json", "{}"},
                           {"config_sentence_transformers.json", R"({"default_prompt_name":5})"}});
  EXPECT_THAT(std::string(wrong.status().message()),
              HasSubstr("config_sentence_transformers.json"));
}

TEST(PoolingTest, OneModeOfThree) {
  const auto mode = [](const char* config) { return Read({{"1_Pooling/config.json", config}}); };
  struct Known {
    const char* config;
    Pooling pooling;
  };
  for (const Known& known : {
           Known{R"({"pooling_mode_lasttoken":true,"pooling_mode_mean_tokens":false})",
                 Pooling::kLast},
           Known{R"({"pooling_mode":"lasttoken"})", Pooling::kLast},
           Known{R"({"pooling_mode":"cls"})", Pooling::kFirst},
           Known{R"({"pooling_mode":"mean","include_prompt":true})", Pooling::kMean},
           Known{"{}", Pooling::kMean},
       }) {
    const auto got = mode(known.config);
    ASSERT_TRUE(got.ok() && got->has_value()) << known.config << got.status();
    EXPECT_EQ((*got)->pooling, known.pooling) << known.config;
  }
  for (const auto& [config, said] : {
           std::pair{R"({"pooling_mode_max_tokens":true,"pooling_mode_mean_tokens":false})",
                     "max_tokens"},
           std::pair{R"({"pooling_mode_max_tokens":true,"pooling_mode_mean_tokens":true})",
                     "2 ways"},
           std::pair{R"({"pooling_mode_cls_token":true})", "2 ways"},
           std::pair{R"({"pooling_mode_mean_tokens":false})", "0 ways"},
           std::pair{R"({"pooling_mode":"weightedmean"})", "weightedmean"},
       }) {
    const auto got = mode(config);
    EXPECT_EQ(got.status().code(), absl::StatusCode::kUnimplemented) << config;
    EXPECT_THAT(std::string(got.status().message()), HasSubstr(said));
    EXPECT_THAT(std::string(got.status().message()), HasSubstr("1_Pooling/config.json"));
  }
  EXPECT_EQ(mode(R"({"pooling_mode_mean_tokens":1})").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(mode("[]").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PoolingTest, OtherModulesAreRefusedByName) {
  constexpr std::string_view kDense =
      R"({"idx":2,"path":"2_Dense","type":"sentence_transformers.models.Dense"})";
  struct Case {
    std::string modules;
    absl::StatusCode code;
    const char* said;
  };
  constexpr auto kLacks = absl::StatusCode::kUnimplemented;
  constexpr auto kWrong = absl::StatusCode::kInvalidArgument;
  for (const Case& each : {
           Case{List({kTransformer, kPoolingModule, kDense}), kLacks, "models.Dense"},
           Case{List({kTransformer, kPoolingModule, kNormalize, kNormalize}), kLacks, "module 3"},
           Case{List({kTransformer}), kLacks, "no module that pools"},
           Case{List({kPoolingModule}), kLacks, "module 0"},
           Case{"[]", kLacks, "no module that pools"},
           Case{"{}", kWrong, "not a list"},
           Case{"[1, 2]", kWrong, "module 0"},
           Case{R"([{"type":3}])", kWrong, "module 0.type"},
           Case{"[", kWrong, "modules.json"},
           Case{List({R"({"path":"x","type":"Transformer"})"}), kLacks, "\"x\""},
           Case{List({kTransformer, R"({"path":"../1_Pooling","type":"Pooling"})"}), kWrong,
                "../1_Pooling"},
           Case{List({kTransformer, R"({"path":"","type":"Pooling"})"}), kWrong,
                "name of a folder"},
           Case{List({kTransformer, R"({"path":"..","type":"Pooling"})"}), kWrong, "\"..\""},
       }) {
    const auto got =
        Read({{"modules.json", each.modules}, {"1_Pooling/config.json", std::string(kMean)}});
    EXPECT_EQ(got.status().code(), each.code) << each.modules << got.status();
    EXPECT_THAT(std::string(got.status().message()), HasSubstr(each.said)) << each.modules;
  }
  const auto missing = Read({{"modules.json", List({kTransformer, kPoolingModule})}});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("1_Pooling/config.json"));
}

TEST(PoolingTest, GgufHasAKey) {
  const auto read = [](std::optional<uint32_t> type) {
    GgufWriter writer = TinyLlama();
    if (type) writer.AddU32("llama.pooling_type", *type);
    const Bytes bytes = ToBytes(writer.Build());
    const auto source = OpenGgufBytes(bytes, "x.gguf");
    EXPECT_TRUE(source.ok()) << source.status();
    return ReadPooling(**source);
  };
  EXPECT_FALSE(read(std::nullopt)->has_value());
  EXPECT_FALSE(read(0)->has_value());
  for (const auto& [type, pooling] : {std::pair{1u, Pooling::kMean}, std::pair{2u, Pooling::kFirst},
                                      std::pair{3u, Pooling::kLast}}) {
    const auto got = read(type);
    ASSERT_TRUE(got.ok() && got->has_value()) << got.status();
    EXPECT_EQ((*got)->pooling, pooling);
    EXPECT_TRUE((*got)->normalize);
  }
  const auto rank = read(4);
  EXPECT_EQ(rank.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(rank.status().message()), HasSubstr("llama.pooling_type"));
}

}  // namespace
}  // namespace fairlead
