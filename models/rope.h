// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding as a checkpoint's config describes it, and its frequencies. Any thread;
// no state.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/json.h"

namespace fairlead {

enum class RopeScaling { kNone, kLinear, kLlama3 };

struct RopeConfig {
  double theta = 10000;  // >= 1
  int rotary_dim = 0;    // even, at most head_dim: the leading elements of a head that rotate
  RopePairing pairing = RopePairing::kHalves;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;                // kLinear, kLlama3: >= 1
  double low_frequency_factor = 1;  // kLlama3: below high_frequency_factor
  double high_frequency_factor = 4;
  int original_positions = 0;  // kLlama3: the context of pre-training
  // Either empty or [rotary_dim / 2], each > 0: what the frequencies are divided by after
  // `scaling`. GGUF files carry llama3 scaling that way, as the tensor rope_freqs.weight.
  std::vector<float> divisors;
};

// Reads rope_theta with rope_scaling (`type` or `rope_type`), or the newer rope_parameters, and the
// keys of ours that GGUF files are translated to: rope_pairing ("halves", "adjacent"), rotary_dim,
// rope_frequency_divisors. kUnimplemented names a scaling type or parameter we lack;
// kInvalidArgument a value out of range.
absl::StatusOr<RopeConfig> ParseRope(const Json& config, int head_dim);

// Radians a position, [rotary_dim / 2], in the float32 arithmetic of Hugging Face transformers.
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope);

}  // namespace fairlead
