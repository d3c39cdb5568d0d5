// SPDX-License-Identifier: Apache-2.0
// What a well-formed GGUF file becomes: tensors, metadata, config.
#include "models/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/gguf_names.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

const std::string kGoldenFile = std::string(FAIRLEAD_GOLDEN_DIR) + "/gguf/tiny-llama.gguf";

Json ReadGoldenList(const std::string& name) {
  absl::StatusOr<Json> list =
      ParseJson(ReadWholeFile(std::string(FAIRLEAD_GOLDEN_DIR) + "/gguf/" + name));
  EXPECT_TRUE(list.ok()) << list.status();
  return list.ok() ? *list : Json::array();
}

uint32_t Checksum(const WeightInfo& tensor) {
  uint32_t sum = 0;
  for (size_t i = 0; i < tensor.bytes; ++i) {
    sum += static_cast<uint32_t>(i + 1) * std::to_integer<uint32_t>(tensor.data[i]);
  }
  return sum;
}

// The file and the list are the gguf package's (tests/golden/make/make_gguf.py).
void ExpectGoldenTensors(const WeightSource& source) {
  const Json expected = ReadGoldenList("tiny-llama.json");
  ASSERT_EQ(source.tensors().size(), expected.size());
  ASSERT_EQ(expected.size(), 21u);
  for (const Json& entry : expected) {
    const std::string name = entry["name"];
    const WeightInfo* tensor = source.Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->name, name);
    EXPECT_EQ(tensor->file_name, entry["file_name"]);
    EXPECT_EQ(Info(tensor->dtype).name, entry["dtype"].get<std::string>());
    EXPECT_EQ(tensor->dim, entry["dim"].get<std::vector<int64_t>>());
    EXPECT_EQ(tensor->bytes, entry["bytes"].get<size_t>());
    EXPECT_EQ(Checksum(*tensor), entry["checksum"].get<uint32_t>()) << name;
  }
}

TEST(GgufTest, ReadsEveryTensorOfTheGoldenFile) {
  const auto source = OpenWeights(kGoldenFile);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->format(), WeightFormat::kGguf);
  EXPECT_EQ((*source)->path(), kGoldenFile);
  ExpectGoldenTensors(**source);
  EXPECT_EQ((*source)->Find("blk.0.attn_q.weight"), nullptr);
  EXPECT_EQ((*source)->Find(""), nullptr);
}

TEST(GgufTest, ReadsVersion2Alike) {
  std::string file = ReadWholeFile(kGoldenFile);
  file[4] = 2;  // the layouts are the same
  const Bytes bytes = ToBytes(file);
  const auto source = OpenGgufBytes(bytes, "v2.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  ExpectGoldenTensors(**source);
}

TEST(GgufTest, ReadsMetadataOfEveryType) {
  const auto source = OpenGguf(kGoldenFile);
  ASSERT_TRUE(source.ok()) << source.status();
  const Json& metadata = (*source)->metadata();
  EXPECT_EQ(metadata.at("general.name"), "Tiny");
  EXPECT_EQ(metadata.at("test.u8"), 255);
  EXPECT_EQ(metadata.at("test.i8"), -128);
  EXPECT_EQ(metadata.at("test.u16"), 65535);
  EXPECT_EQ(metadata.at("test.i16"), -32768);
  EXPECT_EQ(metadata.at("test.i32"), -2147483648LL);
  EXPECT_EQ(metadata.at("test.u64"), UINT64_MAX);
  EXPECT_EQ(metadata.at("test.i64"), INT64_MIN);
  EXPECT_EQ(metadata.at("test.f64"), 0.1);
  EXPECT_EQ(metadata.at("llama.rope.freq_base"), 10000.0);
  EXPECT_EQ(metadata.at("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(metadata.at("tokenizer.ggml.tokens"), Json({"<s>", "a", "b", "ab", "\u00e9"}));
  EXPECT_EQ(metadata.at("tokenizer.ggml.token_type"), Json({3, 1, 1, 1, 1}));
  EXPECT_EQ(metadata.begin().key(), "general.architecture");  // the file's order
}

TEST(GgufTest, TranslatesTheConfig) {
  const auto source = OpenGguf(kGoldenFile);
  ASSERT_TRUE(source.ok()) << source.status();
  const Json& config = (*source)->config();
  EXPECT_EQ(config.at("model_type"), "llama");
  EXPECT_EQ(config.at("rope_pairing"), "adjacent");
  EXPECT_EQ(config.at("rotary_dim"), 16);
  EXPECT_EQ(config.at("rope_frequency_divisors"), Json({1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0}));
  EXPECT_EQ(config.at("tie_word_embeddings"), true);
  EXPECT_FALSE(config.contains("unsupported_metadata")) << config;
  const auto parsed = LoadModelConfig(**source);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->hidden, 64);
  EXPECT_EQ(parsed->ffn, 96);
  EXPECT_EQ(parsed->layers, 2);
  EXPECT_EQ(parsed->heads, 4);
  EXPECT_EQ(parsed->kv_heads, 2);
  EXPECT_EQ(parsed->head_dim, 16);
  EXPECT_EQ(parsed->vocab, 5);  // from the list of tokens
  EXPECT_EQ(parsed->max_positions, 128);
  EXPECT_EQ(parsed->rms_epsilon, 1e-5f);
  EXPECT_TRUE(parsed->tied_head);
  EXPECT_FALSE(parsed->qkv_bias);
  EXPECT_EQ(parsed->ropes[0].pairing, RopePairing::kAdjacent);
  // theta^(-2i/16) / divisor, theta = 10^4: 10^(-i/2).
  const std::vector<float> frequencies =
      RopeInverseFrequencies(parsed->ropes[0], parsed->max_positions);
  ASSERT_EQ(frequencies.size(), 8u);
  EXPECT_FLOAT_EQ(frequencies[0], 1.0f);
  EXPECT_FLOAT_EQ(frequencies[2], 0.1f / 1.5f);
  EXPECT_FLOAT_EQ(frequencies[6], 1e-3f / 8);
}

TEST(GgufTest, TranslatesTensorNames) {
  EXPECT_EQ(HfTensorName("output.weight"), "lm_head.weight");
  EXPECT_EQ(HfTensorName("blk.12.attn_output.bias"), "model.layers.12.self_attn.o_proj.bias");
  EXPECT_EQ(HfTensorName("blk.0.ffn_down.weight"), "model.layers.0.mlp.down_proj.weight");
  for (const char* unknown : {"rope_freqs.weight", "blk.0.ssm_in.weight", "blk..attn_q.weight",
                              "blk.0", "blk.x.attn_q.weight", "blk.-1.attn_q.weight", "blk.", "",
                              ".weight", "output_norm", "blk.0.attn_q.scale"}) {
    EXPECT_EQ(HfTensorName(unknown), unknown);
  }
}

Json ConfigOf(const GgufWriter& writer) {
  const Bytes bytes = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(bytes, "tiny.gguf");
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? (*source)->config() : Json::object();
}

TEST(GgufTest, UntiedHeadAndBiasesComeFromTheTensors) {
  GgufWriter writer = TinyLlama();
  writer.AddVector("output.weight", {1});
  writer.AddVector("blk.0.attn_q.bias", {1});
  EXPECT_EQ(ConfigOf(writer).at("tie_word_embeddings"), false);
  const auto config = ParseConfig(ConfigOf(writer));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->tied_head);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->attention_out_bias);
  EXPECT_FALSE(config->mlp_bias);
}

TEST(GgufTest, TranslatesRopeScaling) {
  GgufWriter linear = TinyLlama();
  linear.AddString("llama.rope.scaling.type", "linear");
  linear.AddF32("llama.rope.scaling.factor", 4);
  const auto config = ParseConfig(ConfigOf(linear));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->ropes[0].scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->ropes[0].factor, 4);

  GgufWriter older = TinyLlama();
  older.AddF32("llama.rope.scale_linear", 2);
  EXPECT_EQ(ConfigOf(older).at("rope_scaling"), Json({{"factor", 2.0}, {"rope_type", "linear"}}));

  GgufWriter none = TinyLlama();
  none.AddString("llama.rope.scaling.type", "none");
  none.AddF32("llama.rope.scaling.factor", 4);
  EXPECT_FALSE(ConfigOf(none).contains("rope_scaling"));

  GgufWriter yarn = TinyLlama();
  yarn.AddString("llama.rope.scaling.type", "yarn");
  yarn.AddF32("llama.rope.scaling.factor", 4);
  yarn.AddU32("llama.rope.scaling.original_context_length", 32);
  const auto scaled = ParseConfig(ConfigOf(yarn));
  ASSERT_TRUE(scaled.ok()) << scaled.status();
  EXPECT_EQ(scaled->ropes[0].scaling, RopeScaling::kYarn);
  EXPECT_EQ(scaled->ropes[0].factor, 4);
  EXPECT_EQ(scaled->ropes[0].original_positions, 32);
  EXPECT_FLOAT_EQ(scaled->ropes[0].attention_factor, 0.1 * std::log(4.0) + 1);
  EXPECT_EQ(scaled->max_positions, 128);  // of the file, which is not below 4 * 32

  // One more factor, where a config's attention_factor would stand in YaRN's place.
  yarn.AddF32("llama.rope.scaling.attn_factor", 2);
  const auto doubled = ParseConfig(ConfigOf(yarn));
  ASSERT_TRUE(doubled.ok()) << doubled.status();
  EXPECT_FLOAT_EQ(doubled->ropes[0].attention_factor, 2 * (0.1 * std::log(4.0) + 1));

  // llama.cpp takes 1 for an absent factor.
  GgufWriter bare = TinyLlama();
  bare.AddString("llama.rope.scaling.type", "linear");
  EXPECT_FALSE(ConfigOf(bare).contains("rope_scaling"));
}

TEST(GgufTest, FeaturesWeLackAreRefusedByName) {
  const auto refusal = [](std::string_view key, uint32_t value) {
    GgufWriter writer = TinyLlama();
    writer.AddU32(key, value);
    const auto config = ParseConfig(ConfigOf(writer));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << key;
    return std::string(config.status().message());
  };
  EXPECT_THAT(refusal("llama.expert_count", 8), HasSubstr("mixture of experts"));
  EXPECT_THAT(refusal("llama.attention.sliding_window", 32), HasSubstr("sliding_window"));
  EXPECT_THAT(refusal("llama.attention.value_length", 8), HasSubstr("v_head_dim 8"));
  EXPECT_THAT(refusal("llama.new_idea", 1), HasSubstr("llama.new_idea"));
  EXPECT_THAT(refusal("llama.rope.freq_base_swa", 500), HasSubstr("llama.rope.freq_base_swa"));
}

TEST(GgufTest, AFactorOfAttentionThatNothingUsesIsRefused) {
  GgufWriter writer = TinyLlama();
  writer.AddF32("llama.rope.scaling.attn_factor", 2);
  const Bytes bytes = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(bytes, "tiny.gguf");
  EXPECT_EQ(source.status().code(), absl::StatusCode::kUnimplemented) << source.status();
  EXPECT_THAT(source.status().message(), HasSubstr("llama.rope.scaling.attn_factor\" is 2"));
}

// The softmax scale of Gemma 2 27B; other keys that are absent must not matter.
TEST(GgufTest, GemmasLargestHasAScaleOfItsOwn) {
  GgufWriter writer;
  writer.AddString("general.architecture", "gemma2");
  writer.AddU32("gemma2.block_count", 46);
  EXPECT_FALSE(ConfigOf(writer).contains("query_pre_attn_scalar"));
  writer.AddU32("gemma2.embedding_length", 4608);
  writer.AddU32("gemma2.attention.head_count", 32);
  EXPECT_EQ(ConfigOf(writer).at("query_pre_attn_scalar"), 144);
}

TEST(GgufTest, OtherArchitecturesRotateHalves) {
  GgufWriter writer;
  writer.AddString("general.architecture", "qwen2");
  const Json config = ConfigOf(writer);
  EXPECT_EQ(config.at("model_type"), "qwen2");
  EXPECT_FALSE(config.contains("rope_pairing"));
}

TEST(GgufTest, EmptyVocabularyOnlyFileOpens) {
  const Json config = ConfigOf(TinyLlama());  // no tensors, and nothing behind the metadata
  EXPECT_EQ(config.at("vocab_size"), 3);
}

}  // namespace
}  // namespace fairlead
