// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/config_parts.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

// Keys that change what the model computes: harmless where they hold a value that switches the
// feature off (null, false, 0, an empty list or `neutral`), or where the family has the feature.
struct FeatureKey {
  std::string_view key;
  std::string_view what;
  std::string_view feature = "";  // Family::features; empty: nobody has it
  double neutral = 0;
};
constexpr std::array kFeatureKeys = {
    FeatureKey{"num_local_experts", "mixture of experts", "experts"},
    FeatureKey{"num_experts", "mixture of experts", "experts"},
    FeatureKey{"n_routed_experts", "mixture of experts", "routed_experts"},
    FeatureKey{"num_experts_per_tok", "mixture of experts", "experts"},
    FeatureKey{"moe_intermediate_size", "mixture of experts", "experts"},
    FeatureKey{"shared_expert_intermediate_size", "shared experts", "shared_expert"},
    FeatureKey{"n_shared_experts", "shared experts", "routed_experts"},
    FeatureKey{"routed_scaling_factor", "scaled experts", "routed_experts", 1},
    FeatureKey{"first_k_dense_replace", "leading layers without experts", "routed_experts"},
    FeatureKey{"n_group", "groups of experts", "routed_experts", 1},
    FeatureKey{"moe_layer_freq", "experts in some layers only", "", 1},
    FeatureKey{"attn_logit_softcapping", "soft-capped attention logits", "attn_logit_softcapping"},
    FeatureKey{"final_logit_softcapping", "soft-capped logits", "final_logit_softcapping"},
    FeatureKey{"query_pre_attn_scalar", "a different attention scale", "query_pre_attn_scalar"},
    FeatureKey{"attention_multiplier", "a different attention scale", "multipliers"},
    FeatureKey{"embedding_multiplier", "scaled embeddings", "multipliers", 1},
    FeatureKey{"residual_multiplier", "scaled residuals", "multipliers", 1},
    FeatureKey{"logits_scaling", "scaled logits", "multipliers", 1},
    FeatureKey{"logit_scale", "scaled logits", "", 1},
    FeatureKey{"clip_qkv", "clipped q, k and v"},
    FeatureKey{"qk_norm", "norms of q and k"},
    FeatureKey{"use_qk_norm", "norms of q and k"},
    FeatureKey{"qk_layernorm", "norms of q and k"},
    FeatureKey{"alibi", "ALiBi positions"},
    FeatureKey{"swiglu_alpha", "another slope of the clamped SwiGLU", "", 1.702},
    FeatureKey{"use_parallel_residual", "parallel residuals"},
    FeatureKey{"no_rope_layers", "layers without RoPE", "no_rope_layers"},
    FeatureKey{"rope_interleave", "interleaved RoPE", "latent"},
    FeatureKey{"use_bidirectional_attention", "attention that is not causal"},
    FeatureKey{"llama_4_scaling_beta", "attention scaled by position"},
    FeatureKey{"kv_lora_rank", "latent attention", "latent"},
    FeatureKey{"is_encoder_decoder", "encoder-decoder models"},
    FeatureKey{"vision_config", "vision"},
    FeatureKey{"unsupported_metadata", "GGUF keys of unknown meaning"},
};

void RefuseUnsupported(const Family& family, ConfigReader& reader) {
  for (const FeatureKey& entry : kFeatureKeys) {
    const Json* value = reader.Find(entry.key);
    if (value == nullptr || IsNeutral(*value, entry.neutral)) continue;
    if (!entry.feature.empty() && HasFeature(family, entry.feature)) continue;
    reader.Fail(
        absl::UnimplementedError(StrCat("config key \"", entry.key, "\" is ", ShortDump(*value),
                                        ": not supported (", entry.what, ")")));
  }
  if (!reader.Bool("is_causal", true)) {
    reader.Fail(absl::UnimplementedError(
        "config key \"is_causal\" is false: not supported (attention that is not causal)"));
  }
}

void ReadHeadDim(ModelConfig& config, ConfigReader& reader) {
  const bool named = reader.Find("head_dim") != nullptr;
  if (!named && config.hidden % config.heads != 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"hidden_size\" is ", config.hidden, "; without head_dim it must be a ",
               "multiple of num_attention_heads (", config.heads, ")")));
  }
  config.head_dim = reader.Int("head_dim", 1, kMaxHidden, config.hidden / config.heads);
  if (config.head_dim % 2 != 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("head_dim is ", config.head_dim, "; RoPE needs an even one")));
  }
  if (config.head_dim > KvShape::kMaxHeadDim) {
    reader.Fail(
        absl::UnimplementedError(StrCat("head_dim ", config.head_dim, " is not supported; at most ",
                                        KvShape::kMaxHeadDim, " are")));
  }
  const int value_dim = reader.Int("v_head_dim", 1, kMaxHidden, config.head_dim);
  if (value_dim != config.head_dim) {
    reader.Fail(absl::UnimplementedError(
        StrCat("v_head_dim ", value_dim, " differs from head_dim ", config.head_dim,
               ": values of another size than keys are not supported")));
  }
}

void ReadShape(const Family& family, ModelConfig& config, ConfigReader& reader) {
  config.hidden = reader.Int("hidden_size", 1, kMaxHidden);
  config.layers = reader.Int("num_hidden_layers", 1, kMaxLayers);
  config.ffn = reader.Int("intermediate_size", 1, kMaxFfn);
  config.vocab = reader.Int("vocab_size", 1, kMaxVocab);
  config.max_positions = reader.Int("max_position_embeddings", 1, kMaxPositions, 2048);
  config.heads = reader.Int("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = reader.Int("num_key_value_heads", 1, kMaxHeads, config.heads);
  if (!reader.ok()) return;
  if (config.heads % config.kv_heads != 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"num_attention_heads\" is ", config.heads,
               "; it must be a multiple of num_key_value_heads (", config.kv_heads, ")")));
  }
  if (HasFeature(family, "latent")) return ReadLatent(config, reader);
  ReadHeadDim(config, reader);
}

struct ActivationName {
  std::string_view name;
  Activation activation;
};
constexpr std::array kActivations = {
    ActivationName{"silu", Activation::kSilu},
    ActivationName{"swish", Activation::kSilu},
    ActivationName{"gelu", Activation::kGelu},
    ActivationName{"gelu_pytorch_tanh", Activation::kGeluTanh},
    ActivationName{"gelu_new", Activation::kGeluTanh},
};

void ReadActivation(const Family& family, ModelConfig& config, ConfigReader& reader) {
  const std::string older = reader.String("hidden_act", "silu");
  const std::string name = reader.String("hidden_activation", older);
  std::string known;
  for (const ActivationName& each : kActivations) {
    if (each.name == name) {
      config.activation = each.activation;
      if (!family.clamped_silu) return;
    }
    StrAppend(&known, known.empty() ? "" : ", ", each.name);
  }
  if (family.clamped_silu && config.activation == Activation::kSilu && name == "silu") {
    config.activation = Activation::kClampedSilu;
    config.activation_limit = static_cast<float>(reader.Real("swiglu_limit", 1e-3, 1e6, 7));
    return;
  }
  reader.Fail(absl::UnimplementedError(
      StrCat("config key \"hidden_act\": activation ", ShortDump(Json(name)),
             " is not supported; known: ", family.clamped_silu ? "silu" : known)));
}

// What scales what, and the soft caps.
void ReadScales(const Family& family, ModelConfig& config, ConfigReader& reader) {
  constexpr double kLeast = 1e-6, kMost = 1e6;
  const auto real = [&](std::string_view key, double fallback) {
    return reader.Real(key, kLeast, kMost, fallback);
  };
  const auto cap = [&](std::string_view key) {
    return static_cast<float>(reader.Real(key, 0, kMost, 0));
  };
  const double scalar = real("query_pre_attn_scalar", config.head_dim);
  config.attention_scale = static_cast<float>(1 / std::sqrt(scalar));
  config.attention_soft_cap = cap("attn_logit_softcapping");
  config.logit_soft_cap = cap("final_logit_softcapping");
  if (family.scaled_embeddings)
    config.embedding_scale = std::sqrt(static_cast<float>(config.hidden));
  if (!HasFeature(family, "multipliers")) return;
  config.attention_scale =
      static_cast<float>(real("attention_multiplier", double{config.attention_scale}));
  config.embedding_scale = static_cast<float>(real("embedding_multiplier", 1));
  config.residual_scale = static_cast<float>(real("residual_multiplier", 1));
  config.logit_scale = static_cast<float>(1 / real("logits_scaling", 1));
}

}  // namespace

bool HasFeature(const Family& family, std::string_view word) {
  for (std::string_view rest = family.features; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (rest.substr(0, end) == word) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

absl::StatusOr<ModelConfig> ParseConfig(const Json& json, const Family& family) {
  ConfigReader reader(json);
  if (!reader.ok()) return reader.status();
  RefuseUnsupported(family, reader);
  ModelConfig config;
  ReadShape(family, config, reader);
  if (!reader.ok()) return reader.status();
  config.norms = family.norms;
  config.norm_kind = family.norm_kind;
  config.norm_offset = family.norm_offset;
  config.qk_norm = family.qk_norm;
  config.sinks = family.sinks;
  ReadActivation(family, config, reader);
  ReadScales(family, config, reader);
  ReadExperts(family, config, reader);
  const bool rms = family.norm_kind == NormKind::kRms;
  config.rms_epsilon = static_cast<float>(
      reader.Real(rms ? "rms_norm_eps" : "layer_norm_eps", 1e-30, 1, rms ? 1e-6 : 1e-5));
  config.tied_head = reader.Bool("tie_word_embeddings", false);
  const bool attention_bias = reader.Bool("attention_bias", false);
  config.qkv_bias = reader.Bool("attention_qkv_bias", reader.Bool("qkv_bias", attention_bias));
  config.attention_out_bias = reader.Bool("attention_out_bias", attention_bias);
  config.mlp_bias = reader.Bool("mlp_bias", false);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<std::vector<RopeConfig>> ropes = ParseRopes(json, config.rope_dim());
  if (!ropes.ok()) return ropes.status();
  config.ropes = *std::move(ropes);
  if (const RopeConfig& rope = config.ropes[0]; rope.scaling == RopeScaling::kYarn) {
    // Where the file still says the length before it was stretched (Qwen2.5's recipe).
    const double longest = rope.original_positions * rope.factor;
    config.max_positions =
        static_cast<int>(std::clamp<double>(longest, config.max_positions, kMaxPositions));
  }
  if (config.is_latent()) {
    const double factor = config.ropes[0].softmax_factor;
    config.attention_scale = static_cast<float>(config.attention_scale * factor);
  }
  if (absl::Status status = ReadLayers(json, family, config); !status.ok()) return status;
  return config;
}

}  // namespace fairlead
