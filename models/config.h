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

// RMS norms, or layer norms without weights and biases (OLMo, arXiv 2402.00838).
enum class NormKind { kRms, kPlainLayer };

// Norms of q and k before they rotate: each head's (Qwen3, arXiv 2505.09388), or of all heads
// together (OLMo 2).
enum class QkNorm { kNone, kHead, kProjection };

// How the file stores a layer's experts.
enum class ExpertNames {
  kQwen,      // mlp.gate, mlp.experts.<e>.{gate,up,down}_proj, mlp.shared_expert, its own _gate
  kDeepSeek,  // the same, but mlp.shared_experts
  kMixtral,   // block_sparse_moe.gate, block_sparse_moe.experts.<e>.{w1,w3,w2}
  kStacked,   // mlp.gate, mlp.experts.{gate,up,down}_proj of [experts, n, k] (GGUF)
  kGptOss     // mlp.router, mlp.experts.{gate_up,down}_proj of [experts, k, n], rows taking turns
};

// What an architecture's name says and its config does not.
struct Family {
  NormPlacement norms = NormPlacement::kInputs;
  NormKind norm_kind = NormKind::kRms;
  float norm_offset = 0;  // added to every norm's weights (Gemma: 1)
  QkNorm qk_norm = QkNorm::kNone;
  bool sinks = false;              // of attention, a logit a head
  bool scaled_embeddings = false;  // by sqrt(hidden)
  bool clamped_silu = false;       // Activation::kClampedSilu
  bool router_bias = false;        // and biases of the experts
  bool sigmoid_router = false;     // scoring_func is "sigmoid"
  bool normalized_experts =
      false;  // the chosen experts' weights sum to 1, whatever the config says
  ExpertNames expert_names = ExpertNames::kQwen;
  // Config keys that mean something to this architecture, separated by spaces; others must be
  // neutral. "window" stands for those of sliding windows, "experts" for those of experts,
  // "shared_expert" for one beside them with a gate, "routed_experts" for DeepSeek's of both,
  // "latent" for those of latent attention, which then has to be there, "multipliers" for
  // Granite's.
  std::string_view features = "";
};

// Of a mixture of experts, all sizes of one expert.
struct ExpertsConfig {
  int count = 0, slots = 0, ffn = 0;
  bool bias = false;  // of the router and the experts
  ExpertNames names = ExpertNames::kQwen;

  // RouteArgs, by their names; choice_bias is its bias.
  bool normalize = false;
  RouteArgs::Scores scores = RouteArgs::Scores::kSoftmax;
  bool choice_bias = false;
  int groups = 1, chosen_groups = 1, group_scores = 1;
  float scale = 1;

  // The expert that every token takes beside its chosen ones; 0: none. With a gate, its output is
  // multiplied by the sigmoid of a logit (Qwen2-MoE, arXiv 2407.10671).
  int shared_ffn = 0;
  bool shared_gate = false;
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1). Keys and values are
// cached decompressed, a head_dim a head each (latent_attention.h).
struct LatentConfig {
  // Of the norms of the latent vectors, whatever rms_norm_eps is (transformers' DeepseekV2RMSNorm).
  static constexpr float kNormEpsilon = 1e-6f;

  int kv_rank = 0;  // of the vector that keys and values are made of; 0: no latent attention
  int q_rank = 0;   // of the one that queries are made of; 0: of none
  // A head's q and k are nope_dim elements that do not rotate and rope_dim that do, the latter of k
  // the same for all heads; value_dim is at most their sum, head_dim.
  int rope_dim = 0, nope_dim = 0, value_dim = 0;
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
  float rms_epsilon = 0;  // of layer norms too
  Activation activation = Activation::kSilu;  // of the gated MLP: down(activation(gate(x)) * up(x))
  float activation_limit = 0;                 // ActivateAndMulArgs::limit
  bool tied_head = false;                     // the head is the embedding table
  bool qkv_bias = false;                      // q_proj, k_proj and v_proj
  bool attention_out_bias = false;            // o_proj
  bool mlp_bias = false;                      // gate_proj, up_proj and down_proj

  NormPlacement norms = NormPlacement::kInputs;
  NormKind norm_kind = NormKind::kRms;
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
  LatentConfig latent;
  std::vector<LayerConfig> layer;  // [layers]
  std::vector<RopeConfig> ropes;   // one, or a second one for the layers with a window

  bool is_latent() const { return latent.kv_rank > 0; }
  // The elements of a head that may rotate.
  int rope_dim() const { return is_latent() ? latent.rope_dim : head_dim; }
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

// Whether `features` (Family) has this word.
bool HasFeature(const Family& family, std::string_view word);

}  // namespace fairlead
