// SPDX-License-Identifier: Apache-2.0
// Parts of ParseConfig that have a file of their own. Each reads its keys into `config`, whose
// hidden, ffn, layers and heads are known; what is wrong goes to `reader`. Any thread; no state.
#pragma once

#include "models/config.h"
#include "models/config_reader.h"

namespace fairlead {

// Far above any published model, low enough that layers * ffn * hidden * 4 bytes fits int64_t.
inline constexpr int kMaxHidden = 1 << 20;
inline constexpr int kMaxFfn = 1 << 22;
inline constexpr int kMaxLayers = 1 << 12;
inline constexpr int kMaxHeads = 1 << 14;
inline constexpr int kMaxVocab = 1 << 24;
inline constexpr int kMaxPositions = 1 << 28;

// kv_heads, head_dim and latent, of a family with latent attention.
void ReadLatent(ModelConfig& config, ConfigReader& reader);

// experts; none where the config has none.
void ReadExperts(const Family& family, ModelConfig& config, ConfigReader& reader);

}  // namespace fairlead
