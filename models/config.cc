// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <array>
#include <string>
#include <string_view>

#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

// Far above any published model, low enough that layers * ffn * hidden * 4 bytes fits int64_t.
constexpr int kMaxHidden = 1 << 20;
constexpr int kMaxFfn = 1 << 22;
constexpr int kMaxLayers = 1 << 12;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxPositions = 1 << 28;

// Keys that change what the model computes and that no feature of ours expresses. Harmless where
// they hold a value that switches the feature off: null, false, 0, an empty list or `neutral`.
struct UnsupportedKey {
  std::string_view key;
  std::string_view what;
  double neutral = 0;
};
constexpr std::array kUnsupported = {
    UnsupportedKey{"quantization_config", "quantised safetensors"},
    UnsupportedKey{"num_local_experts", "mixture of experts"},
    UnsupportedKey{"num_experts", "mixture of experts"},
    UnsupportedKey{"n_routed_experts", "mixture of experts"},
    UnsupportedKey{"num_experts_per_tok", "mixture of experts"},
    UnsupportedKey{"moe_intermediate_size", "mixture of experts"},
    UnsupportedKey{"attn_logit_softcapping", "soft-capped attention logits"},
    UnsupportedKey{"final_logit_softcapping", "soft-capped logits"},
    UnsupportedKey{"query_pre_attn_scalar", "a different attention scale"},
    UnsupportedKey{"attention_multiplier", "a different attention scale"},
    UnsupportedKey{"embedding_multiplier", "scaled embeddings", 1},
    UnsupportedKey{"residual_multiplier", "scaled residuals", 1},
    UnsupportedKey{"logits_scaling", "scaled logits", 1},
    UnsupportedKey{"logit_scale", "scaled logits", 1},
    UnsupportedKey{"clip_qkv", "clipped q, k and v"},
    UnsupportedKey{"qk_norm", "norms of q and k"},
    UnsupportedKey{"use_qk_norm", "norms of q and k"},
    UnsupportedKey{"qk_layernorm", "norms of q and k"},
    UnsupportedKey{"alibi", "ALiBi positions"},
    UnsupportedKey{"use_parallel_residual", "parallel residuals"},
    UnsupportedKey{"no_rope_layers", "layers without RoPE"},
    UnsupportedKey{"rope_interleave", "interleaved RoPE"},
    UnsupportedKey{"is_encoder_decoder", "encoder-decoder models"},
    UnsupportedKey{"vision_config", "vision"},
    UnsupportedKey{"unsupported_metadata", "GGUF keys of unknown meaning"},
};

bool IsNeutral(const Json& value, double neutral) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0 || value.get<double>() == neutral;
  return value.is_structured() && value.empty();
}

void RefuseUnsupported(ConfigReader& reader) {
  for (const UnsupportedKey& entry : kUnsupported) {
    const Json* value = reader.Find(entry.key);
    if (value == nullptr || IsNeutral(*value, entry.neutral)) continue;
    reader.Fail(
        absl::UnimplementedError(StrCat("config key \"", entry.key, "\" is ", ShortDump(*value),
                                        ": not supported (", entry.what, ")")));
  }
}

// Attention is causal over everything: a window is fine only where it never cuts a context off.
void RefuseActiveWindow(int max_positions, ConfigReader& reader) {
  const Json* layer_types = reader.Find("layer_types");
  bool any_window = layer_types == nullptr;
  if (layer_types != nullptr && layer_types->is_array()) {
    for (const Json& type : *layer_types) {
      if (type == "sliding_attention") {
        any_window = true;
      } else if (type != "full_attention") {
        reader.Fail(
            absl::UnimplementedError(StrCat("config key \"layer_types\" names ", ShortDump(type),
                                            "; known: full_attention, sliding_attention")));
      }
    }
  }
  if (!reader.Bool("use_sliding_window", true) || !any_window) return;
  const int window = reader.Int("sliding_window", 0, kMaxPositions, 0);
  if (window > 0 && window < max_positions) {
    reader.Fail(absl::UnimplementedError(StrCat(
        "config key \"sliding_window\" is ", window, ", below max_position_embeddings (",
        max_positions, "): sliding windows are not supported where a context can outgrow them")));
  }
}

void ReadShape(ModelConfig& config, ConfigReader& reader) {
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

Activation ReadActivation(ConfigReader& reader) {
  const std::string name = reader.String("hidden_act", "silu");
  if (name != "silu") {
    reader.Fail(
        absl::UnimplementedError(StrCat("config key \"hidden_act\": activation ",
                                        ShortDump(Json(name)), " is not supported; known: silu")));
  }
  return Activation::kSilu;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseConfig(const Json& json) {
  ConfigReader reader(json);
  if (!reader.ok()) return reader.status();
  RefuseUnsupported(reader);
  ModelConfig config;
  ReadShape(config, reader);
  if (!reader.ok()) return reader.status();
  RefuseActiveWindow(config.max_positions, reader);
  config.activation = ReadActivation(reader);
  config.rms_epsilon = static_cast<float>(reader.Real("rms_norm_eps", 1e-30, 1, 1e-6));
  config.tied_head = reader.Bool("tie_word_embeddings", false);
  const bool attention_bias = reader.Bool("attention_bias", false);
  config.qkv_bias = reader.Bool("attention_qkv_bias", attention_bias);
  config.attention_out_bias = reader.Bool("attention_out_bias", attention_bias);
  config.mlp_bias = reader.Bool("mlp_bias", false);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<RopeConfig> rope = ParseRope(json, config.head_dim);
  if (!rope.ok()) return rope.status();
  config.rope = *std::move(rope);
  return config;
}

}  // namespace fairlead
