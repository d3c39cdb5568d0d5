// SPDX-License-Identifier: Apache-2.0
#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/config_parts.h"

namespace fairlead {

void ReadLatent(ModelConfig& config, ConfigReader& reader) {
  LatentConfig& latent = config.latent;
  latent.kv_rank = reader.Int("kv_lora_rank", 1, kMaxHidden);
  latent.q_rank = reader.Int("q_lora_rank", 0, kMaxHidden, 0);
  latent.rope_dim = reader.Int("qk_rope_head_dim", 2, kMaxHidden);
  latent.nope_dim = reader.Int("qk_nope_head_dim", 1, kMaxHidden);
  latent.value_dim = reader.Int("v_head_dim", 1, kMaxHidden);
  if (!reader.ok()) return;
  config.head_dim = latent.rope_dim + latent.nope_dim;  // whatever head_dim says: it has no say
  if (config.kv_heads != config.heads) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"num_key_value_heads\" is ", config.kv_heads,
               "; latent attention has as many as num_attention_heads (", config.heads, ")")));
  }
  if (latent.rope_dim % 2 != 0 || config.head_dim % 2 != 0) {
    reader.Fail(absl::InvalidArgumentError(StrCat("config keys \"qk_rope_head_dim\" (",
                                                  latent.rope_dim, ") and \"qk_nope_head_dim\" (",
                                                  latent.nope_dim, ") must be even")));
  }
  if (config.head_dim > KvShape::kMaxHeadDim) {
    reader.Fail(absl::UnimplementedError(
        StrCat("config keys \"qk_rope_head_dim\" and \"qk_nope_head_dim\" make heads of ",
               config.head_dim, " elements; at most ", KvShape::kMaxHeadDim, " are supported")));
  }
  if (latent.value_dim > config.head_dim) {
    reader.Fail(absl::UnimplementedError(StrCat("config key \"v_head_dim\" is ", latent.value_dim,
                                                ": values of more elements than keys (",
                                                config.head_dim, ") are not supported")));
  }
  // What is made of kv_b_proj and o_proj (latent_attention.h) grows by as much; published models by
  // less than 2.
  constexpr int64_t kMaxGrowth = 8;
  const int64_t made = 2 * int64_t{config.head_dim} * (latent.kv_rank + latent.rope_dim);
  const int64_t stored = int64_t{latent.nope_dim + latent.value_dim} * latent.kv_rank;
  if (made > kMaxGrowth * stored || config.head_dim > kMaxGrowth * latent.value_dim) {
    reader.Fail(absl::UnimplementedError(
        StrCat("config keys \"kv_lora_rank\" (", latent.kv_rank, ") and \"v_head_dim\" (",
               latent.value_dim, ") are too small for heads of ", config.head_dim, " elements")));
  }
}

}  // namespace fairlead
