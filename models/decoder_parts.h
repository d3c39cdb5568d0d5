// SPDX-License-Identifier: Apache-2.0
// Which tensors a decoder of some config has, by the names that checkpoints give them. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/parameters.h"
#include "models/weights.h"

namespace fairlead {

struct VectorSpec {
  std::string name;
  int64_t size = 0;
  bool norm = false;  // ModelConfig::norm_offset is added
};

// The linear layers of layer `index` and, without experts, of its MLP.
struct LayerLinears {
  ParameterLoader::LinearSpec qkv, attention_out;
  ParameterLoader::LinearSpec gate_up, down;  // without modules where there are experts
  ParameterLoader::LinearSpec router;         // without modules where there are none
};
// `source`: whether q, k and v, or gate and up, are one tensor in the file.
LayerLinears LinearsOf(const ModelConfig& config, int index, const WeightSource& source);

ParameterLoader::ExpertsSpec GateUpExpertsOf(const ModelConfig& config, int index);
ParameterLoader::ExpertsSpec DownExpertsOf(const ModelConfig& config, int index);

// Its vectors; without a name where the config has none.
struct LayerVectors {
  VectorSpec attention_norm, attention_out_norm, mlp_norm, mlp_out_norm, q_norm, k_norm, sinks;
};
LayerVectors VectorsOf(const ModelConfig& config, int index);

}  // namespace fairlead
