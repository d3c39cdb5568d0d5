// SPDX-License-Identifier: Apache-2.0
// Which tensors a decoder of some config has, by the names that checkpoints give them. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "models/config.h"
#include "models/parameters.h"
#include "models/weights.h"

namespace fairlead {

// "model.layers.<index>."
std::string LayerPrefix(int index);

struct VectorSpec {
  std::string name;
  int64_t size = 0;
  bool norm = false;  // ModelConfig::norm_offset is added
  float factor = 1;   // of what is then there
};

// The linear layers of layer `index` and, without experts, of its MLP.
struct LayerLinears {
  ParameterLoader::LinearSpec qkv, attention_out;
  ParameterLoader::LinearSpec gate_up, down;  // without modules where there are experts
  ParameterLoader::LinearSpec router;         // without modules where there are none
  // The expert that every token takes, and the logit of its gate.
  ParameterLoader::LinearSpec shared_gate_up, shared_down, shared_router;
  // Of latent attention, whose qkv is q alone (latent_attention.h).
  ParameterLoader::LinearSpec q_down, kv_down, kv;

  auto all() const {
    return std::array{&qkv,         &attention_out, &gate_up, &down,    &router, &shared_gate_up,
                      &shared_down, &shared_router, &q_down,  &kv_down, &kv};
  }
};
// `source`: whether q, k and v, or gate and up, are one tensor in the file.
LayerLinears LinearsOf(const ModelConfig& config, int index, const WeightSource& source);

ParameterLoader::ExpertsSpec GateUpExpertsOf(const ModelConfig& config, int index);
ParameterLoader::ExpertsSpec DownExpertsOf(const ModelConfig& config, int index);

// Its vectors; without a name where the config has none.
struct LayerVectors {
  VectorSpec attention_norm, attention_out_norm, mlp_norm, mlp_out_norm, q_norm, k_norm, sinks;
  VectorSpec router_bias, q_down_norm, kv_down_norm;

  auto all() const {
    return std::array{
        &attention_norm, &attention_out_norm, &mlp_norm,    &mlp_out_norm, &q_norm, &k_norm,
        &sinks,          &router_bias,        &q_down_norm, &kv_down_norm};
  }
};
LayerVectors VectorsOf(const ModelConfig& config, int index);
VectorSpec FinalNormOf(const ModelConfig& config);

// How many values all its vectors have, the biases of linear layers and experts included.
int64_t VectorValuesOf(const ModelConfig& config, int index, const WeightSource& source);

}  // namespace fairlead
