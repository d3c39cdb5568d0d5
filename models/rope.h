// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding as a checkpoint's config describes it, and its frequencies. Any thread;
// no state.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/json.h"

namespace fairlead {

enum class RopeScaling { kNone, kLinear, kLlama3, kYarn, kLongRope };

struct RopeConfig {
  double theta = 10000;  // >= 1
  int rotary_dim = 0;    // even, at most head_dim: the leading elements of a head that rotate
  double attention_factor = 1;  // cosines and sines are multiplied by it (YaRN, LongRoPE)
  // kYarn: what latent attention multiplies the softmax's scale by, for the elements that do not
  // rotate (DeepSeek-V2's mscale_all_dim; transformers' yarn_apply_mscale).
  double softmax_factor = 1;
  RopePairing pairing = RopePairing::kHalves;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;                // kLinear, kLlama3, kYarn: >= 1
  double low_frequency_factor = 1;  // kLlama3: below high_frequency_factor
  double high_frequency_factor = 4;
  int original_positions = 0;            // kLlama3, kYarn, kLongRope: the context of pre-training
  double beta_fast = 32, beta_slow = 1;  // kYarn: rotations over it, where mixing ends and begins
  bool truncate = true;                  // kYarn: that range is rounded outwards
  // kLongRope (arXiv 2402.13753): [rotary_dim / 2] each, what the frequencies are divided by where
  // the server's longest context is at most original_positions, and where it is longer.
  std::vector<float> short_factors = {}, long_factors = {};
  // Either empty or [rotary_dim / 2], each > 0: what the frequencies are divided by after
  // `scaling`. GGUF files carry llama3 scaling that way, as the tensor rope_freqs.weight.
  std::vector<float> divisors = {};
};

// Reads rope_theta with rope_scaling (`type` or `rope_type`), or the newer rope_parameters, and the
// keys of ours that GGUF files are translated to: rope_pairing ("halves", "adjacent";
// rope_interleave says the latter), rotary_dim, rope_frequency_divisors. kUnimplemented names a
// scaling type or parameter we lack; kInvalidArgument a value out of range.
absl::StatusOr<RopeConfig> ParseRope(const Json& config, int head_dim);

// That, and a second one where layers with a window rotate otherwise: by rope_local_base_freq and
// without scaling, or by rope_parameters' own entry for them (Gemma 3).
absl::StatusOr<std::vector<RopeConfig>> ParseRopes(const Json& config, int head_dim);

// Radians a position, [rotary_dim / 2], in the float32 arithmetic of Hugging Face transformers, for
// a server whose longest context is max_positions. It decides which of LongRoPE's factors hold for
// all positions; transformers takes the long ones as soon as a sequence is longer than
// original_positions.
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int max_positions = 0);

// RopeAndWriteKvArgs::cos_sin, [max_positions, rotary_dim].
std::vector<float> RopeTable(const RopeConfig& rope, int max_positions);

}  // namespace fairlead
