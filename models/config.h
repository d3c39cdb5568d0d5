// SPDX-License-Identifier: Apache-2.0
// What a decoder computes, as features and never as a model's name. Every number is bounded, so
// that products of three of them fit int64_t. Any thread; no state.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/json.h"
#include "models/rope.h"

namespace fairlead {

// Which norms a layer has: of the inputs of attention and MLP (Llama), of their outputs before
// these are added (OLMo 2, arXiv 2501.00656), or of both (Gemma 2, arXiv 2408.00118).
enum class NormPlacement { kInputs, kOutputs, kBoth };

// Norms of q and k before they rotate: each head's (Qwen3, arXiv 2505.09388), or of all heads
// together (OLMo 2).
enum class QkNorm { kNone, kHead, kProjection };

// How the file stores a layer's experts.
enum class ExpertNames {
  kQwen,     // mlp.gate, mlp.experts.<e>.{gate,up,down}_proj
  kMixtral,  // block_sparse_moe.gate, block_sparse_moe.experts.<e>.{w1,w3,w2}
  kStacked,  // mlp.gate, mlp.experts.{gate,up,down}_proj of [experts, n, k] (GGUF)
  kGptOss    // mlp.router, mlp.experts.{gate_up,down}_proj of [experts, k, n], rows taking turns
};

// What an architecture's name says and its config does not.
struct Family {
  NormPlacement norms = NormPlacement::kInputs;
  float norm_offset = 0;  // added to every norm's weights (Gemma: 1)
  QkNorm qk_norm = QkNorm::kNone;
  bool sinks = false;              // of attention, a logit a head
  bool scaled_embeddings = false;  // by sqrt(hidden)
  bool clamped_silu = false;       // Activation::kClampedSilu
  bool router_bias = false;        // and biases of the experts
  bool normalized_experts =
      false;  // the chosen experts' weights sum to 1, whatever the config says
  ExpertNames expert_names = ExpertNames::kQwen;
  // Config keys that mean something to this architecture, separated by spaces; others must be
  // neutral. "window" stands for those of sliding windows, "experts" for those of experts,
  // "multipliers" for Granite's.
  std::string_view features = "";
};

// Of a mixture of experts, all sizes of one expert.
struct ExpertsConfig {
  int count = 0, slots = 0, ffn = 0;
  bool normalize = false;  // RouteArgs::normalize
  bool bias = false;       // of the router and the experts
  ExpertNames names = ExpertNames::kQwen;
};

struct LayerConfig {
  static constexpr int kNoRope = -1;
  int window = 0;  // AttentionArgs::window
  int rope = 0;    // of ModelConfig::ropes, or kNoRope: q and k do not rotate
  bool experts = false;
};

struct ModelConfig {
  int hidden = 0;
  int layers = 0;
  int heads = 0;  // a multiple of kv_heads
  int kv_heads = 0;
  int head_dim = 0;  // even
  int ffn = 0;       // of a layer without experts
  int vocab = 0;
  int max_positions = 0;  // what the config promises; the server may be told to use less
  float rms_epsilon = 0;
  Activation activation = Activation::kSilu;  // of the gated MLP: down(activation(gate(x)) * up(x))
  float activation_limit = 0;                 // ActivateAndMulArgs::limit
  bool tied_head = false;                     // the head is the embedding table
  bool qkv_bias = false;                      // q_proj, k_proj and v_proj
  bool attention_out_bias = false;            // o_proj
  bool mlp_bias = false;                      // gate_proj, up_proj and down_proj

  NormPlacement norms = NormPlacement::kInputs;
  float norm_offset = 0;
  QkNorm qk_norm = QkNorm::kNone;
  bool sinks = false;
  float attention_scale = 0;
  float attention_soft_cap = 0;  // 0: none
  float logit_soft_cap = 0;      // 0: none
  float logit_scale = 1;         // logits = logit_scale * head(norm(x)), before the soft cap
  float embedding_scale = 1;
  float residual_scale = 1;  // of what attention and MLP add

  ExpertsConfig experts;
  std::vector<LayerConfig> layer;  // [layers]
  std::vector<RopeConfig> ropes;   // one, or a second one for the layers with a window
};

// Reads the keys of Hugging Face's config.json (GGUF metadata is translated to them). A key that is
// absent or null takes the default of transformers' LlamaConfig where it has one. What would change
// the arithmetic and is no feature of the family is refused by name (kUnimplemented: mixture of
// experts, a sliding window, soft caps, ...); a wrong type or a number out of range is
// kInvalidArgument with key, value and range.
absl::StatusOr<ModelConfig> ParseConfig(const Json& config, const Family& family = {});

// Reads layer_types, sliding windows, layers without RoPE or without experts into `config`, whose
// layers are known.
absl::Status ReadLayers(const Json& json, const Family& family, ModelConfig& config);

inline std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  return RopeInverseFrequencies(config.ropes[0], config.max_positions);
}

// Whether `features` (Family) has this word.
bool HasFeature(const Family& family, std::string_view word);

}  // namespace fairlead
