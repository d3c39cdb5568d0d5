// SPDX-License-Identifier: Apache-2.0
// The rows of the registry. Defaults are those of transformers' config classes, and what llama.cpp
// implies where a GGUF file's metadata says nothing.
#include <array>

#include "models/registry.h"

namespace fairlead {
namespace {

constexpr Family kQwen3 = {.qk_norm = QkNorm::kHead, .features = "window"};
constexpr Family kQwen3Moe = {.qk_norm = QkNorm::kHead, .features = "window experts"};
constexpr Family kGraniteFamily = {.features = "multipliers"};
constexpr Family kSmolLm3 = {.features = "window no_rope_layers"};
constexpr Family kPhi3 = {.features = "window partial_rotary_factor"};
constexpr Family kOlmo = {.norm_kind = NormKind::kPlainLayer};
constexpr Family kOlmo2 = {.norms = NormPlacement::kOutputs, .qk_norm = QkNorm::kProjection};

constexpr Family Gemma(QkNorm qk_norm, float norm_offset) {
  return {
      .norms = NormPlacement::kBoth,
      .norm_offset = norm_offset,
      .qk_norm = qk_norm,
      .scaled_embeddings = true,
      .features = "window attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar"};
}
constexpr Family GptOss(ExpertNames names) {
  return {.sinks = true,
          .clamped_silu = true,
          .router_bias = true,
          .normalized_experts = true,
          .expert_names = names,
          .features = "window experts"};
}
constexpr Family DeepSeek(bool sigmoid_router) {
  return {.sigmoid_router = sigmoid_router,
          .expert_names = ExpertNames::kDeepSeek,
          .features = "latent experts routed_experts"};
}
constexpr Family Mixtral(ExpertNames names) {
  return {.normalized_experts = true, .expert_names = names, .features = "window experts"};
}

constexpr auto kHf = WeightFormat::kSafetensors;
constexpr std::array kHfRows = {
    Architecture{.name = "LlamaForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .allows_mlp_bias = true},
    // A window of 4096 unless the file says null.
    Architecture{.name = "MistralForCausalLM",
                 .format = kHf,
                 .family = {.features = "window"},
                 .defaults = R"({"sliding_window": 4096, "num_key_value_heads": 8,
                                 "max_position_embeddings": 131072})"},
    Architecture{.name = "MixtralForCausalLM",
                 .format = kHf,
                 .family = Mixtral(ExpertNames::kMixtral),
                 .defaults = R"({"num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                                 "max_position_embeddings": 131072, "default_rope_theta": 1e6,
                                 "num_local_experts": 8, "num_experts_per_tok": 2})"},
    Architecture{
        .name = "Qwen2ForCausalLM",
        .format = kHf,
        .allows_attention_bias = true,
        .family = {.features = "window max_window_layers"},
        .defaults =
            R"({"attention_qkv_bias": true, "attention_out_bias": false, "use_sliding_window": false,
                                 "sliding_window": 4096, "max_window_layers": 28,
                                 "max_position_embeddings": 32768})"},
    Architecture{.name = "Qwen3ForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = {.qk_norm = QkNorm::kHead, .features = "window max_window_layers"},
                 .defaults = R"({"head_dim": 128, "use_sliding_window": false,
                                 "sliding_window": 4096, "max_window_layers": 28,
                                 "max_position_embeddings": 32768})"},
    Architecture{.name = "Qwen3MoeForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = kQwen3Moe,
                 .defaults = R"({"num_experts": 128, "num_experts_per_tok": 8,
                                 "moe_intermediate_size": 768, "use_sliding_window": false,
                                 "sliding_window": 4096,
                                 "max_position_embeddings": 32768})"},
    // Its windows would not be on the layers that Qwen2's are on.
    Architecture{
        .name = "Qwen2MoeForCausalLM",
        .format = kHf,
        .allows_attention_bias = true,
        .family = {.features = "experts shared_expert"},
        .defaults =
            R"({"qkv_bias": true, "attention_out_bias": false, "num_key_value_heads": 16, "num_experts": 60,
                                 "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
                                 "shared_expert_intermediate_size": 5632,
                                 "use_sliding_window": false, "sliding_window": 4096,
                                 "max_position_embeddings": 32768})"},
    Architecture{.name = "DeepseekV2ForCausalLM",
                 .format = kHf,
                 .family = DeepSeek(false),
                 .defaults = R"({"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
                                 "qk_nope_head_dim": 128, "v_head_dim": 128,
                                 "rope_interleave": true, "n_routed_experts": 64,
                                 "n_shared_experts": 2, "moe_intermediate_size": 1407})"},
    Architecture{.name = "DeepseekV3ForCausalLM",
                 .format = kHf,
                 .family = DeepSeek(true),
                 .defaults = R"({"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
                                 "qk_nope_head_dim": 128, "v_head_dim": 128,
                                 "rope_interleave": true, "n_routed_experts": 256,
                                 "num_experts_per_tok": 8, "n_shared_experts": 1, "n_group": 8,
                                 "topk_group": 4, "moe_intermediate_size": 2048,
                                 "norm_topk_prob": true, "routed_scaling_factor": 2.5,
                                 "first_k_dense_replace": 3, "max_position_embeddings": 4096})"},
    Architecture{.name = "Gemma2ForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = Gemma(QkNorm::kNone, 1),
                 .defaults = R"({"head_dim": 256, "tie_word_embeddings": true,
                                 "hidden_activation": "gelu_pytorch_tanh",
                                 "sliding_window": 4096, "sliding_window_pattern": 2,
                                 "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50,
                                 "final_logit_softcapping": 30,
                                 "max_position_embeddings": 8192})"},
    Architecture{.name = "Gemma3ForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = Gemma(QkNorm::kHead, 1),
                 .defaults = R"({"head_dim": 256, "tie_word_embeddings": true,
                                 "hidden_activation": "gelu_pytorch_tanh",
                                 "sliding_window": 4096, "sliding_window_pattern": 6,
                                 "query_pre_attn_scalar": 256, "default_rope_theta": 1e6,
                                 "rope_local_base_freq": 10000,
                                 "num_attention_heads": 8, "num_key_value_heads": 4,
                                 "vocab_size": 262208, "max_position_embeddings": 131072})"},
    Architecture{.name = "Phi3ForCausalLM",
                 .format = kHf,
                 .family = kPhi3,
                 .defaults = R"({"rms_norm_eps": 1e-5, "max_position_embeddings": 4096})"},
    Architecture{
        .name = "OlmoForCausalLM", .format = kHf, .allows_attention_bias = true, .family = kOlmo},
    Architecture{.name = "Olmo2ForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = kOlmo2,
                 .defaults = R"({"rms_norm_eps": 1e-5})"},
    Architecture{.name = "GraniteForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .allows_mlp_bias = true,
                 .family = kGraniteFamily,
                 .defaults = R"({"attention_multiplier": 1})"},
    Architecture{
        .name = "SmolLM3ForCausalLM",
        .format = kHf,
        .allows_attention_bias = true,
        .allows_mlp_bias = true,
        .family = kSmolLm3,
        .defaults =
            R"({"default_rope_theta": 2e6, "num_key_value_heads": 4, "tie_word_embeddings": true,
                                 "use_sliding_window": false, "max_position_embeddings": 32768})"},
    Architecture{.name = "GptOssForCausalLM",
                 .format = kHf,
                 .allows_attention_bias = true,
                 .family = GptOss(ExpertNames::kGptOss),
                 .defaults = R"({"attention_bias": true, "sliding_window": 128,
                                 "sliding_window_pattern": 2, "num_local_experts": 128,
                                 "num_experts_per_tok": 4, "default_rope_theta": 150000,
                                 "head_dim": 64, "rms_norm_eps": 1e-5,
 "rope_scaling": {"rope_type": "yarn", "factor": 32, "beta_fast": 32, "beta_slow": 1, "truncate": false, "original_max_position_embeddings": 4096},
                                 "max_position_embeddings": 131072})"},
};

constexpr auto kGguf = WeightFormat::kGguf;
constexpr std::array kGgufRows = {
    Architecture{.name = "llama",
                 .format = kGguf,
                 .allows_attention_bias = true,
                 .allows_mlp_bias = true,
                 .family = Mixtral(ExpertNames::kStacked)},
    Architecture{.name = "qwen2", .format = kGguf, .allows_attention_bias = true},
    Architecture{.name = "qwen3", .format = kGguf, .allows_attention_bias = true, .family = kQwen3},
    Architecture{.name = "qwen3moe",
                 .format = kGguf,
                 .allows_attention_bias = true,
                 .family = {.qk_norm = QkNorm::kHead,
                            .normalized_experts = true,
                            .expert_names = ExpertNames::kStacked,
                            .features = "window experts"}},
    Architecture{
        .name = "qwen2moe",
        .format = kGguf,
        .allows_attention_bias = true,
        .family = {.expert_names = ExpertNames::kStacked, .features = "experts shared_expert"}},
    Architecture{.name = "deepseek2",
                 .format = kGguf,
                 .family = {.expert_names = ExpertNames::kStacked,
                            .features = "latent experts routed_experts scoring_func"}},
    Architecture{.name = "gemma2",
                 .format = kGguf,
                 .family = Gemma(QkNorm::kNone, 0),
                 .defaults = R"({"hidden_act": "gelu_pytorch_tanh", "sliding_window": 4096,
                                 "sliding_window_pattern": 2, "attn_logit_softcapping": 50,
                                 "final_logit_softcapping": 30})"},
    Architecture{.name = "gemma3",
                 .format = kGguf,
                 .family = Gemma(QkNorm::kHead, 0),
                 .defaults = R"({"hidden_act": "gelu_pytorch_tanh", "default_rope_theta": 1e6,
                                 "sliding_window_pattern": 6, "rope_local_base_freq": 10000})"},
    Architecture{.name = "phi3", .format = kGguf, .family = kPhi3},
    Architecture{.name = "olmo", .format = kGguf, .family = kOlmo},
    Architecture{.name = "olmo2", .format = kGguf, .family = kOlmo2},
    Architecture{.name = "granite",
                 .format = kGguf,
                 .allows_attention_bias = true,
                 .allows_mlp_bias = true,
                 .family = kGraniteFamily},
    Architecture{.name = "smollm3",
                 .format = kGguf,
                 .allows_attention_bias = true,
                 .allows_mlp_bias = true,
                 .family = kSmolLm3,
                 .defaults = R"({"no_rope_layer_interval": 4})"},
    Architecture{.name = "gpt-oss",
                 .format = kGguf,
                 .allows_attention_bias = true,
                 .family = GptOss(ExpertNames::kStacked),
                 .defaults = R"({"sliding_window_pattern": 2})"},
};

constexpr auto Joined() {
  std::array<Architecture, kHfRows.size() + kGgufRows.size()> all = {};
  size_t i = 0;
  for (const Architecture& row : kHfRows) all[i++] = row;
  for (const Architecture& row : kGgufRows) all[i++] = row;
  return all;
}
constexpr auto kAll = Joined();

}  // namespace

absl::Span<const Architecture> Architectures() { return kAll; }

}  // namespace fairlead
