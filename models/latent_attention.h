// SPDX-License-Identifier: Apache-2.0
// The matrices of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in a
// form that ordinary attention takes. Files have, of each layer's self_attn: q_proj, or q_a_proj
// and q_b_proj with a norm between them; kv_a_proj_with_mqa, whose outputs are the latent vector c,
// which is normed, and k_r, the elements of k that rotate; kv_b_proj, which makes of c each head's
// other elements of k and its v (GGUF files: k_b_proj and v_b_proj); o_proj. Made of them, with
// head_dim = rope_dim + nope_dim:
// - self_attn.q_heads: q's rows, of each head those that rotate first, as RopeAndWriteKv wants;
// - self_attn.kv_heads, [2 heads * head_dim, kv_rank + rope_dim]: k and v of all heads from [c,
// k_r]
//   in one product; ones take k_r to each head, zeros fill v up where value_dim is below head_dim;
// - self_attn.o_heads: o_proj with columns of zeros for those.
// So the cache holds 2 heads * head_dim elements a token, as without latent attention, and not the
// kv_rank + rope_dim that the architecture would let it. Any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/config.h"
#include "models/decoder_parts.h"
#include "models/weights.h"

namespace fairlead {

// qkv (q alone), q_down, kv_down, kv and attention_out of layer `index`.
void SetLatentLinears(const ModelConfig& config, int index, LayerLinears& linears);

// What files have instead of these.
struct LatentMatrix {
  std::string module;  // "model.layers.0.self_attn.kv_b_proj"
  int64_t rows = 0, cols = 0;
};
std::vector<LatentMatrix> LatentMatricesOf(const ModelConfig& config, int index);

// `source`, which must outlive it, with the made matrices in place of those that they are made of,
// in the file's dtype; q_heads apart, f16 where that is quantised. What --weight-dtype has
// converted is made of the file's values and then converted, where its rows are whole blocks.
// kInvalidArgument names a tensor that is missing or has a
// wrong shape, kUnimplemented one whose dtype cannot be read back.
absl::StatusOr<std::unique_ptr<WeightSource>> ExpandLatentWeights(const WeightSource& source,
                                                                  const ModelConfig& config);

}  // namespace fairlead
