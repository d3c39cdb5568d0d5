// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/gguf.h"
#include "models/registry.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A config that parses, with `changes` merged over it; a null removes nothing, it is the value
// null.
Json SmallConfig(const std::string& changes = "{}") {
  Json config = Json::parse(R"({"hidden_size":64,"intermediate_size":144,"num_hidden_layers":3,
      "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":512,"max_position_embeddings":256,
      "rms_norm_eps":1e-5,"architectures":["LlamaForCausalLM"],"torch_dtype":"bfloat16"})");
  config.update(Json::parse(changes));
  return config;
}

TEST(ConfigTest, ReadsAPlainLlama) {
  const auto config = ParseConfig(SmallConfig());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden, 64);
  EXPECT_EQ(config->ffn, 144);
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->heads, 4);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->vocab, 512);
  EXPECT_EQ(config->max_positions, 256);
  EXPECT_EQ(config->rms_epsilon, 1e-5f);
  EXPECT_EQ(config->activation, Activation::kSilu);
  EXPECT_FALSE(config->tied_head || config->qkv_bias || config->attention_out_bias ||
               config->mlp_bias);
  EXPECT_EQ(config->ropes[0].rotary_dim, 16);
}

// LlamaConfig of transformers: what a key that is left out means.
TEST(ConfigTest, DefaultsAreThoseOfLlamaConfig) {
  const auto config = ParseConfig(Json::parse(
      R"({"hidden_size":64,"intermediate_size":144,"num_hidden_layers":3,"num_attention_heads":4,"vocab_size":512})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 4);
  EXPECT_EQ(config->max_positions, 2048);
  EXPECT_EQ(config->rms_epsilon, 1e-6f);
  EXPECT_EQ(config->ropes[0].theta, 10000);
}

TEST(ConfigTest, ReadsBiasesAndTiedHeads) {
  const auto config = ParseConfig(SmallConfig(
      R"({"attention_bias":true,"mlp_bias":true,"tie_word_embeddings":true,"head_dim":32})"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->qkv_bias && config->attention_out_bias && config->mlp_bias &&
              config->tied_head);
  EXPECT_EQ(config->head_dim, 32);
}

TEST(ConfigTest, FeaturesThatAreSwitchedOffAreNoReasonToRefuse) {
  for (
      const char* changes :
      {R"({"sliding_window":null})", R"({"sliding_window":256})",
       R"({"sliding_window":8,"use_sliding_window":false})",
       R"({"sliding_window":8,"layer_types":["full_attention","full_attention","full_attention"]})",
       R"({"quantization_config":null,"num_local_experts":0,"attn_logit_softcapping":null})",
       R"({"logits_scaling":1.0,"residual_multiplier":1,"clip_qkv":false,"head_dim":null,"rope_scaling":null})"}) {
    const auto config = ParseConfig(SmallConfig(changes));
    EXPECT_TRUE(config.ok()) << changes << config.status();
  }
}

struct Refusal {
  std::string changes;
  absl::StatusCode code;
  std::string said;
};

class ConfigRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefusal, NamesTheKey) {
  const auto config = ParseConfig(SmallConfig(GetParam().changes));
  EXPECT_EQ(config.status().code(), GetParam().code) << GetParam().changes;
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().said))
      << GetParam().changes;
}

constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
constexpr auto kWrong = absl::StatusCode::kInvalidArgument;

INSTANTIATE_TEST_SUITE_P(
    Features, ConfigRefusal,
    ::testing::Values(
        Refusal{R"({"sliding_window":8})", kUnknown,
                "\"sliding_window\" is 8, below max_position_embeddings (256)"},
        Refusal{
            R"({"sliding_window":8,"layer_types":["full_attention","sliding_attention","full_attention"]})",
            kUnknown, "\"sliding_window\" is 8"},
        Refusal{R"({"layer_types":["full_attention","linear_attention","full_attention"]})",
                kUnknown, "\"linear_attention\""},
        Refusal{R"({"use_sliding_window":false,"layer_types":["foo","full_attention","foo"]})",
                kUnknown, "\"foo\""},
        Refusal{R"({"num_local_experts":8})", kUnknown,
                "\"num_local_experts\" is 8: not supported (mixture of experts)"},
        Refusal{R"({"n_routed_experts":64})", kUnknown, "n_routed_experts"},
        Refusal{R"({"attn_logit_softcapping":50.0})", kUnknown, "attn_logit_softcapping"},
        Refusal{R"({"final_logit_softcapping":30.0})", kUnknown, "final_logit_softcapping"},
        Refusal{R"({"residual_multiplier":0.22})", kUnknown, "residual_multiplier"},
        Refusal{R"({"use_qk_norm":true})", kUnknown, "use_qk_norm"},
        Refusal{R"({"is_causal":false})", kUnknown, "\"is_causal\" is false: not supported"},
        Refusal{R"({"use_bidirectional_attention":true})", kUnknown, "use_bidirectional_attention"},
        Refusal{R"({"hidden_act":"relu2"})", kUnknown,
                "activation \"relu2\" is not supported; known: silu, swish, gelu"},
        Refusal{R"({"v_head_dim":32})", kUnknown, "v_head_dim 32 differs from head_dim 16"},
        Refusal{R"({"rope_scaling":{"rope_type":"dynamic"}})", kUnknown, "\"dynamic\""}));

INSTANTIATE_TEST_SUITE_P(
    Numbers, ConfigRefusal,
    ::testing::Values(
        Refusal{R"({"hidden_size":null})", kWrong, "\"hidden_size\" is missing"},
        Refusal{R"({"hidden_size":0})", kWrong,
                "\"hidden_size\" is 0; it must be an integer from 1 to 1048576"},
        Refusal{R"({"hidden_size":-64})", kWrong, "\"hidden_size\" is -64"},
        Refusal{R"({"hidden_size":64.0})", kWrong, "\"hidden_size\" is 64.0"},
        Refusal{R"({"hidden_size":"64"})", kWrong, "\"hidden_size\" is \"64\""},
        Refusal{R"({"hidden_size":18446744073709551615})", kWrong, "18446744073709551615"},
        Refusal{R"({"hidden_size":4294967360})", kWrong, "4294967360"},
        Refusal{R"({"num_hidden_layers":1000000})", kWrong, "num_hidden_layers"},
        Refusal{R"({"vocab_size":0})", kWrong, "vocab_size"},
        Refusal{R"({"intermediate_size":[144,144]})", kWrong, "\"intermediate_size\" is [144,144]"},
        Refusal{R"({"num_key_value_heads":3})", kWrong,
                "must be a multiple of num_key_value_heads (3)"},
        Refusal{R"({"num_key_value_heads":0})", kWrong, "num_key_value_heads"},
        Refusal{R"({"hidden_size":66})", kWrong, "\"hidden_size\" is 66"},
        Refusal{R"({"head_dim":15})", kWrong, "head_dim is 15; RoPE needs an even one"},
        Refusal{R"({"head_dim":0})", kWrong, "\"head_dim\" is 0"},
        Refusal{R"({"head_dim":258})", kUnknown, "head_dim 258 is not supported; at most 256"},
        Refusal{R"({"hidden_size":1048576})", kUnknown, "head_dim 262144"},
        Refusal{R"({"rms_norm_eps":-1e-5})", kWrong, "rms_norm_eps"},
        Refusal{R"({"rms_norm_eps":"x"})", kWrong, "\"rms_norm_eps\" is \"x\""},
        Refusal{R"({"sliding_window":"x"})", kWrong, "\"sliding_window\" is \"x\""},
        Refusal{R"({"layer_types":["full_attention"]})", kWrong,
                "must have one entry for each of the 3 layers"},
        Refusal{R"({"tie_word_embeddings":1})", kWrong, "\"tie_word_embeddings\" is 1"},
        Refusal{R"({"hidden_act":7})", kWrong, "\"hidden_act\" is 7"}));

TEST(ConfigTest, WhatIsNoObjectIsRefused) {
  for (const Json& json : {Json(), Json(1), Json::array(), Json("x")}) {
    EXPECT_EQ(ParseConfig(json).status().code(), kWrong);
  }
  Json not_a_number = SmallConfig();
  not_a_number["rope_theta"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(ParseConfig(not_a_number).status().code(), kWrong);
}

class FolderOf {
 public:
  explicit FolderOf(const Json& config) {
    folder_.Write("config.json", config.dump());
    folder_.Write("model.safetensors", SafetensorsFile("{}", ""));
  }
  absl::StatusOr<ModelConfig> Load() const {
    const auto source = OpenWeights(folder_.path());
    if (!source.ok()) return source.status();
    return LoadModelConfig(**source);
  }
  const std::string& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

void ExpectRefused(const Json& config, absl::StatusCode code, const std::string& said) {
  const FolderOf folder(config);
  const auto loaded = folder.Load();
  EXPECT_EQ(loaded.status().code(), code) << loaded.status();
  EXPECT_THAT(std::string(loaded.status().message()),
              AllOf(HasSubstr(said), HasSubstr(folder.path() + "/config.json: ")));
}

TEST(RegistryTest, UnknownArchitecturesAreNamed) {
  ExpectRefused(SmallConfig(R"({"architectures":["MambaForCausalLM"]})"), kUnknown,
                "architecture \"MambaForCausalLM\" is not supported; known: LlamaForCausalLM, "
                "MistralForCausalLM");
  // GGUF's name is not a folder's.
  ExpectRefused(SmallConfig(R"({"architectures":["llama"]})"), kUnknown, "architecture \"llama\"");
  for (const char* none : {"null", "[]", "[3]", "\"LlamaForCausalLM\"", "{}"}) {
    ExpectRefused(SmallConfig(std::string("{\"architectures\":") + none + "}"), kWrong,
                  "names no architecture");
  }
  GgufWriter writer;
  writer.AddString("general.architecture", "mamba");
  const Bytes bytes = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(bytes, "m.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT(
      LoadModelConfig(**source).status().message(),
      HasSubstr("m.gguf: architecture \"mamba\" is not supported; known: llama, qwen2, qwen3"));
}

TEST(RegistryTest, MistralIsALlamaWithAWindow) {
  const FolderOf open(
      SmallConfig(R"({"architectures":["MistralForCausalLM"],"sliding_window":null})"));
  const auto config = open.Load();
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 2);
  const FolderOf wide(SmallConfig(
      R"({"architectures":["MistralForCausalLM"]})"));  // the default, 4096, exceeds 256
  EXPECT_TRUE(wide.Load().ok()) << wide.Load().status();
  const FolderOf longer(
      SmallConfig(R"({"architectures":["MistralForCausalLM"],"max_position_embeddings":32768})"));
  const auto windowed = longer.Load();
  ASSERT_TRUE(windowed.ok()) << windowed.status();
  for (const LayerConfig& layer : windowed->layer) EXPECT_EQ(layer.window, 4096);
  ExpectRefused(SmallConfig(R"({"architectures":["MistralForCausalLM"],"attention_bias":true})"),
                kUnknown, "MistralForCausalLM with attention biases");
  ExpectRefused(SmallConfig(R"({"architectures":["MistralForCausalLM"],"mlp_bias":true})"),
                kUnknown, "MLP biases");
}

TEST(RegistryTest, PartialRotaryIsNotLlamas) {
  ExpectRefused(SmallConfig(R"({"partial_rotary_factor":0.5})"), kUnknown,
                "RoPE over a part of each head");
}

TEST(RegistryTest, EveryRowsDefaultsAreAnObject) {
  for (const Architecture& row : Architectures()) {
    const auto defaults = ParseJson(row.defaults);
    ASSERT_TRUE(defaults.ok()) << row.name;
    EXPECT_TRUE(defaults->is_object()) << row.name;
  }
}

}  // namespace
}  // namespace fairlead
