// SPDX-License-Identifier: Apache-2.0
// What a decoder computes, as features and never as a model's name. Every number is bounded, so
// that products of three of them fit int64_t. Any thread; no state.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/json.h"
#include "models/rope.h"

namespace fairlead {

struct ModelConfig {
  int hidden = 0;
  int layers = 0;
  int heads = 0;  // a multiple of kv_heads
  int kv_heads = 0;
  int head_dim = 0;  // even
  int ffn = 0;
  int vocab = 0;
  int max_positions = 0;  // what the config promises; the server may be told to use less
  float rms_epsilon = 0;
  Activation activation = Activation::kSilu;  // of the gated MLP: down(activation(gate(x)) * up(x))
  bool tied_head = false;                     // the head is the embedding table
  bool qkv_bias = false;                      // q_proj, k_proj and v_proj
  bool attention_out_bias = false;            // o_proj
  bool mlp_bias = false;                      // gate_proj, up_proj and down_proj
  RopeConfig rope;
};

// Reads the keys of Hugging Face's config.json (GGUF metadata is translated to them). A key that is
// absent or null takes the default of transformers' LlamaConfig where it has one. What would change
// the arithmetic and is not among our features is refused by name (kUnimplemented: mixture of
// experts, quantization_config, an active sliding window, soft caps, ...); a wrong type or a number
// out of range is kInvalidArgument with key, value and range.
absl::StatusOr<ModelConfig> ParseConfig(const Json& config);

inline std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  return RopeInverseFrequencies(config.rope);
}

}  // namespace fairlead
