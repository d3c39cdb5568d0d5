// SPDX-License-Identifier: Apache-2.0
// Configs with shared and grouped experts, latent attention or other norms: what is read, and what
// is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "models/gguf.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// As published, but for the sizes.
Json DeepSeekV2(const std::string& changes = "{}") {
  Json config = Json::parse(R"({"architectures":["DeepseekV2ForCausalLM"],"hidden_size":64,
      "intermediate_size":128,"num_hidden_layers":4,"num_attention_heads":4,"vocab_size":256,
      "num_key_value_heads":4,"max_position_embeddings":1024,"kv_lora_rank":32,"q_lora_rank":48,
      "qk_nope_head_dim":16,"qk_rope_head_dim":8,"v_head_dim":16,"n_routed_experts":16,
      "num_experts_per_tok":3,"n_shared_experts":2,"moe_intermediate_size":24,
      "first_k_dense_replace":1,"moe_layer_freq":1,"topk_method":"group_limited_greedy","n_group":4,
      "topk_group":2,"norm_topk_prob":false,"scoring_func":"softmax","routed_scaling_factor":16.0,
      "ep_size":1,"seq_aux":true,"aux_loss_alpha":0.001,"pretraining_tp":1})");
  config.update(Json::parse(changes));
  return config;
}
Json DeepSeekV3(const std::string& changes = "{}") {
  Json config = DeepSeekV2(R"({"architectures":["DeepseekV3ForCausalLM"],"topk_method":"noaux_tc",
      "scoring_func":"sigmoid","norm_topk_prob":true,"routed_scaling_factor":2.5,
      "num_nextn_predict_layers":1})");
  config.update(Json::parse(changes));
  return config;
}
Json Qwen2Moe(const std::string& changes = "{}") {
  Json config = Json::parse(R"({"architectures":["Qwen2MoeForCausalLM"],"hidden_size":64,
      "intermediate_size":128,"num_hidden_layers":4,"num_attention_heads":4,"vocab_size":256,
      "num_key_value_heads":2,"max_position_embeddings":8192,"num_experts":6,
      "num_experts_per_tok":2,"moe_intermediate_size":24,"shared_expert_intermediate_size":40,
      "norm_topk_prob":false,"use_sliding_window":false,"sliding_window":4096})");
  config.update(Json::parse(changes));
  return config;
}

Json Olmo(const std::string& changes = "{}") {
  Json config = Json::parse(R"({"architectures":["OlmoForCausalLM"],"hidden_size":64,
      "intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":256,
      "clip_qkv":null})");
  config.update(Json::parse(changes));
  return config;
}

absl::StatusOr<ModelConfig> Load(const Json& config) {
  const TemporaryFolder folder;
  folder.Write("config.json", config.dump());
  folder.Write("model.safetensors", SafetensorsFile("{}", ""));
  const auto source = OpenWeights(folder.path());
  if (!source.ok()) return source.status();
  return LoadModelConfig(**source);
}

TEST(LatentConfigTest, HeadsAreOfBothKindsOfElements) {
  // transformers writes head_dim as the part that rotates.
  const auto config = Load(DeepSeekV2(R"({"head_dim":8})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->is_latent());
  EXPECT_EQ(config->head_dim, 24);
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->latent.kv_rank, 32);
  EXPECT_EQ(config->latent.q_rank, 48);
  EXPECT_EQ(config->latent.value_dim, 16);
  EXPECT_EQ(config->ropes[0].rotary_dim, 8);
  EXPECT_EQ(config->ropes[0].pairing, RopePairing::kAdjacent);
  EXPECT_FLOAT_EQ(config->attention_scale, static_cast<float>(1 / std::sqrt(24.0)));
}

TEST(LatentConfigTest, QueriesMayHaveNoLatentVector) {
  const auto config = Load(DeepSeekV2(R"({"q_lora_rank":null})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->latent.q_rank, 0);
}

TEST(LatentConfigTest, HalvesRotateWhereTheConfigSaysSo) {
  const auto config = Load(DeepSeekV3(R"({"rope_interleave":false})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->ropes[0].pairing, RopePairing::kHalves);
}

// yarn_apply_mscale and _compute_yarn_parameters of transformers, for DeepSeek-V2's 40 and 0.707.
TEST(LatentConfigTest, YarnScalesTheSoftmax) {
  const auto config = Load(DeepSeekV2(
      R"({"rope_scaling":{"type":"yarn","factor":40,"original_max_position_embeddings":4096,
          "beta_fast":32,"beta_slow":1,"mscale":1.0,"mscale_all_dim":0.707}})"));
  ASSERT_TRUE(config.ok()) << config.status();
  const double all_dim = 0.1 * 0.707 * std::log(40.0) + 1, mscale = 0.1 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(config->attention_scale, static_cast<float>(all_dim * all_dim / std::sqrt(24.0)));
  EXPECT_DOUBLE_EQ(config->ropes[0].attention_factor, mscale / all_dim);
}

TEST(ExpertsConfigTest, DeepSeekV2ComparesGroupsByTheirBestExpert) {
  const auto config = Load(DeepSeekV2());
  ASSERT_TRUE(config.ok()) << config.status();
  const ExpertsConfig& experts = config->experts;
  EXPECT_EQ(experts.count, 16);
  EXPECT_EQ(experts.slots, 3);
  EXPECT_EQ(experts.ffn, 24);
  EXPECT_EQ(experts.shared_ffn, 48);
  EXPECT_FALSE(experts.shared_gate || experts.normalize || experts.choice_bias);
  EXPECT_EQ(experts.scores, RouteArgs::Scores::kSoftmax);
  EXPECT_EQ(experts.groups, 4);
  EXPECT_EQ(experts.chosen_groups, 2);
  EXPECT_EQ(experts.group_scores, 1);
  EXPECT_EQ(experts.scale, 16);
  EXPECT_FALSE(config->layer[0].experts);
  EXPECT_TRUE(config->layer[1].experts && config->layer[3].experts);
}

TEST(ExpertsConfigTest, GreedyLooksAtAllGroups) {
  const auto config = Load(DeepSeekV2(R"({"topk_method":"greedy","n_group":null})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->experts.groups, 1);
  EXPECT_EQ(config->experts.chosen_groups, 1);
}

TEST(ExpertsConfigTest, DeepSeekV3HasSigmoidsAndBiases) {
  const auto config = Load(DeepSeekV3());
  ASSERT_TRUE(config.ok()) << config.status();
  const ExpertsConfig& experts = config->experts;
  EXPECT_EQ(experts.scores, RouteArgs::Scores::kSigmoid);
  EXPECT_TRUE(experts.choice_bias && experts.normalize);
  EXPECT_EQ(experts.group_scores, 2);
  EXPECT_EQ(experts.scale, 2.5f);
  // One group has nothing to be compared by.
  const auto one = Load(DeepSeekV3(R"({"n_routed_experts":1,"num_experts_per_tok":1,"n_group":1,
                                       "topk_group":1})"));
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->experts.group_scores, 1);
}

TEST(ExpertsConfigTest, Qwen2MoeHasASharedExpertWithAGate) {
  const auto config = Load(Qwen2Moe());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->experts.shared_ffn, 40);
  EXPECT_TRUE(config->experts.shared_gate && config->qkv_bias);
  EXPECT_FALSE(config->experts.normalize || config->attention_out_bias);
  const auto bare = Load(Qwen2Moe(R"({"qkv_bias":false})"));
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_FALSE(bare->qkv_bias);
}

TEST(NormsConfigTest, OlmoHasLayerNormsWithoutWeights) {
  const auto config = Load(Olmo());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->norm_kind, NormKind::kPlainLayer);
  EXPECT_EQ(config->rms_epsilon, 1e-5f);  // OlmoLayerNorm of transformers
}

// As llama.cpp's converter writes DeepSeek-V2: the sizes of the compressed cache, and in _mla those
// of the heads.
std::map<std::string, uint32_t> GgufDeepSeek(const std::map<std::string, uint32_t>& changes = {}) {
  std::map<std::string, uint32_t> keys = {{"block_count", 4},
                                          {"context_length", 1024},
                                          {"embedding_length", 64},
                                          {"feed_forward_length", 128},
                                          {"vocab_size", 256},
                                          {"attention.head_count", 4},
                                          {"attention.head_count_kv", 1},
                                          {"attention.q_lora_rank", 48},
                                          {"attention.kv_lora_rank", 32},
                                          {"attention.key_length", 40},
                                          {"attention.value_length", 32},
                                          {"attention.key_length_mla", 24},
                                          {"attention.value_length_mla", 16},
                                          {"rope.dimension_count", 8},
                                          {"leading_dense_block_count", 1},
                                          {"expert_count", 16},
                                          {"expert_used_count", 3},
                                          {"expert_feed_forward_length", 24},
                                          {"expert_shared_count", 2},
                                          {"expert_gating_func", 2},
                                          {"expert_group_count", 4},
                                          {"expert_group_used_count", 2}};
  for (const auto& [key, value] : changes) keys[key] = value;
  return keys;
}

absl::StatusOr<ModelConfig> LoadGguf(const std::map<std::string, uint32_t>& keys) {
  GgufWriter writer;
  writer.AddString("general.architecture", "deepseek2");
  for (const auto& [key, value] : keys) writer.AddU32("deepseek2." + key, value);
  const Bytes bytes = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(bytes, "m.gguf");
  if (!source.ok()) return source.status();
  return LoadModelConfig(**source);
}

TEST(GgufLatentTest, HeadsAreThoseOfTheKeysThatSayMla) {
  const auto config = LoadGguf(GgufDeepSeek());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 24);
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->latent.rope_dim, 8);
  EXPECT_EQ(config->latent.nope_dim, 16);
  EXPECT_EQ(config->latent.value_dim, 16);
  EXPECT_EQ(config->ropes[0].pairing, RopePairing::kAdjacent);
  EXPECT_EQ(config->experts.scores, RouteArgs::Scores::kSigmoid);
  EXPECT_EQ(config->experts.groups, 4);
  EXPECT_FALSE(config->experts.normalize);
}

TEST(GgufLatentTest, OlderFilesHaveTheSizesUnderTheirOldKeys) {
  auto keys = GgufDeepSeek({{"attention.head_count_kv", 4},
                            {"attention.key_length", 24},
                            {"attention.value_length", 16},
                            {"attention.q_lora_rank", 0}});
  for (const char* newer : {"attention.key_length_mla", "attention.value_length_mla",
                            "expert_gating_func", "expert_group_count", "expert_group_used_count"})
    keys.erase(newer);
  const auto config = LoadGguf(keys);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->latent.nope_dim, 16);
  EXPECT_EQ(config->latent.value_dim, 16);
  EXPECT_EQ(config->latent.q_rank, 0);
  EXPECT_EQ(config->experts.scores, RouteArgs::Scores::kSoftmax);
  EXPECT_EQ(config->experts.groups, 1);
}

TEST(GgufLatentTest, WrongKeysAreNamed) {
  const auto said = [](const std::map<std::string, uint32_t>& changes) {
    return std::string(LoadGguf(GgufDeepSeek(changes)).status().message());
  };
  EXPECT_THAT(said({{"expert_gating_func", 3}}), HasSubstr("deepseek2.expert_gating_func"));
  EXPECT_THAT(said({{"attention.key_length_mla", 8}}), HasSubstr("above rope.dimension_count (8)"));
  EXPECT_THAT(said({{"rope.dimension_count", 0}}), HasSubstr("qk_rope_head_dim"));
  EXPECT_THAT(said({{"rope.dimension_count", 4000000000u}}), HasSubstr("key_length_mla"));
  EXPECT_THAT(said({{"expert_group_count", 3}}), HasSubstr("\"n_group\" is 3"));
  EXPECT_THAT(said({{"attention.something_new", 1}}), HasSubstr("attention.something_new"));
}

struct Refusal {
  Json (*config)(const std::string& changes);
  std::string changes;
  absl::StatusCode code;
  std::string said;
};
class ExpertsRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ExpertsRefusal, NamesTheKey) {
  const auto config = Load(GetParam().config(GetParam().changes));
  EXPECT_EQ(config.status().code(), GetParam().code) << GetParam().changes;
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().said))
      << GetParam().changes;
}

constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
constexpr auto kWrong = absl::StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    Latent, ExpertsRefusal,
    ::testing::Values(
        Refusal{DeepSeekV2, R"({"num_key_value_heads":2})", kWrong,
                "\"num_key_value_heads\" is 2; latent attention has as many as"},
        Refusal{DeepSeekV2, R"({"qk_rope_head_dim":7})", kWrong, "\"qk_rope_head_dim\" (7)"},
        Refusal{DeepSeekV2, R"({"qk_nope_head_dim":15})", kWrong, "\"qk_nope_head_dim\" (15)"},
        Refusal{DeepSeekV2, R"({"qk_nope_head_dim":256})", kUnknown, "heads of 264 elements"},
        Refusal{DeepSeekV2, R"({"v_head_dim":32})", kUnknown,
                "\"v_head_dim\" is 32: values of more elements than keys (24)"},
        Refusal{DeepSeekV2, R"({"v_head_dim":1})", kUnknown, "too small for heads of 24"},
        Refusal{DeepSeekV2, R"({"kv_lora_rank":1})", kUnknown, "\"kv_lora_rank\" (1)"},
        Refusal{DeepSeekV2, R"({"kv_lora_rank":null})", kWrong, "kv_lora_rank"},
        Refusal{DeepSeekV2, R"({"kv_lora_rank":0})", kWrong, "kv_lora_rank"},
        Refusal{DeepSeekV2, R"({"q_lora_rank":-1})", kWrong, "q_lora_rank"},
        Refusal{DeepSeekV2, R"({"attention_bias":true})", kUnknown, "attention biases"},
        Refusal{DeepSeekV2, R"({"partial_rotary_factor":0.5})", kUnknown, "a part of each head"},
        Refusal{DeepSeekV2, R"({"sliding_window":16})", kUnknown, "\"sliding_window\" is 16"},
        Refusal{Olmo, R"({"clip_qkv":8.0})", kUnknown, "\"clip_qkv\" is 8.0"},
        Refusal{Qwen2Moe, R"({"kv_lora_rank":32})", kUnknown, "latent attention"},
        Refusal{Qwen2Moe, R"({"rope_interleave":true})", kUnknown, "interleaved RoPE"}));

INSTANTIATE_TEST_SUITE_P(
    Experts, ExpertsRefusal,
    ::testing::Values(
        Refusal{DeepSeekV2, R"({"topk_method":"noaux_tc"})", kUnknown,
                "\"topk_method\" is \"noaux_tc\": not supported; known here: greedy, "
                "group_limited_greedy"},
        Refusal{DeepSeekV3, R"({"topk_method":"greedy"})", kUnknown, "known here: noaux_tc"},
        Refusal{DeepSeekV2, R"({"scoring_func":"sigmoid"})", kUnknown, "\"scoring_func\""},
        Refusal{DeepSeekV3, R"({"scoring_func":"softmax"})", kUnknown, "known here: sigmoid"},
        Refusal{DeepSeekV2, R"({"norm_topk_prob":true})", kUnknown, "\"norm_topk_prob\" is true"},
        Refusal{DeepSeekV2, R"({"moe_layer_freq":2})", kUnknown, "\"moe_layer_freq\" is 2"},
        Refusal{DeepSeekV2, R"({"n_group":3})", kWrong, "\"n_group\" is 3"},
        Refusal{DeepSeekV2, R"({"n_group":64})", kWrong, "\"n_group\" is 64"},
        Refusal{DeepSeekV2, R"({"topk_group":5})", kWrong, "\"topk_group\" is 5"},
        // 2 groups of 4 have 8; the best two of a group are more than the one that it has.
        Refusal{DeepSeekV2, R"({"num_experts_per_tok":9})", kWrong, "have 9 experts"},
        Refusal{DeepSeekV3, R"({"n_group":16,"topk_group":4})", kWrong, "\"n_group\" is 16"},
        Refusal{DeepSeekV2, R"({"n_shared_experts":1000000})", kWrong, "n_shared_experts"},
        Refusal{DeepSeekV2, R"({"moe_intermediate_size":1000000})", kWrong,
                "moe_intermediate_size"},
        Refusal{DeepSeekV2, R"({"routed_scaling_factor":0})", kWrong, "routed_scaling_factor"},
        Refusal{DeepSeekV2, R"({"first_k_dense_replace":-1})", kWrong, "first_k_dense_replace"},
        Refusal{Qwen2Moe, R"({"n_shared_experts":1})", kUnknown, "shared experts"},
        Refusal{Qwen2Moe, R"({"routed_scaling_factor":2})", kUnknown, "scaled experts"},
        Refusal{Qwen2Moe, R"({"first_k_dense_replace":1})", kUnknown, "leading layers"},
        Refusal{Qwen2Moe, R"({"use_sliding_window":true,"max_window_layers":0})", kUnknown,
                "\"sliding_window\" is 4096"},
        Refusal{Qwen2Moe, R"({"shared_expert_intermediate_size":-1})", kWrong,
                "shared_expert_intermediate_size"}));

}  // namespace
}  // namespace fairlead
