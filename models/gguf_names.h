// SPDX-License-Identifier: Apache-2.0
// GGUF's names for tensors and metadata, translated to Hugging Face's. Key names: ggml's
// docs/gguf.md. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/json.h"
#include "models/weights.h"

namespace fairlead {

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". A name without a translation
// stays as it is, as "rope_freqs.weight" does. Some names depend on general.architecture.
std::string HfTensorName(std::string_view gguf_name, std::string_view architecture = "");

// The metadata under the keys of config.json, for any architecture: keys that the file lacks are
// left out. What config.json has no word for gets one of ours:
//   rope_pairing             "adjacent" where the converter has permuted the rows of q and k, else
//   absent rotary_dim               {arch}.rope.dimension_count rope_frequency_divisors  the values
//   of the tensor rope_freqs.weight attention_qkv_bias, attention_out_bias, mlp_bias   whether
//   layer 0 has such tensors unsupported_metadata     the {arch}.* keys whose meaning we do not
//   know
// Errors (kInvalidArgument) name the key: no general.architecture, a wrong type, a negative or
// non-finite number, per-layer values that differ.
absl::StatusOr<Json> HfConfig(const Json& metadata, absl::Span<const WeightInfo> tensors);

}  // namespace fairlead
