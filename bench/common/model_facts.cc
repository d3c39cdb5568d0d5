// SPDX-License-Identifier: Apache-2.0
#include "bench/common/model_facts.h"

#include <algorithm>
#include <map>
#include <string>

#include "models/registry.h"

namespace fairlead::bench {

absl::StatusOr<Json> ModelFacts(const WeightSource& source) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::string> architecture = ArchitectureName(source);
  if (!architecture.ok()) return architecture.status();
  constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
  int64_t layer_parameters = 0;
  size_t decode_bytes = 0;
  std::map<DType, size_t> bytes_of_dtype;
  for (const WeightInfo& tensor : source.tensors()) {
    if (tensor.name == kEmbedding && !config->tied_head) continue;
    decode_bytes += tensor.bytes;
    if (tensor.dim.size() != 2 || !tensor.name.starts_with("model.layers.")) continue;
    layer_parameters += tensor.dim[0] * tensor.dim[1];
    bytes_of_dtype[tensor.dtype] += tensor.bytes;
  }
  const auto most =
      std::max_element(bytes_of_dtype.begin(), bytes_of_dtype.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return Json{
      {"architecture", *architecture},
      {"layers", config->layers},
      {"hidden", config->hidden},
      {"vocab", config->vocab},
      {"heads", config->heads},
      {"kv_heads", config->kv_heads},
      {"head_dim", config->head_dim},
      {"matrix_dtype", most == bytes_of_dtype.end() ? "" : Info(most->first).name},
      {"layer_parameters", layer_parameters},
      {"head_parameters", int64_t{config->vocab} * config->hidden},
      {"decode_weight_bytes", decode_bytes},
      {"kv_values_per_token", int64_t{2} * config->layers * config->kv_heads * config->head_dim}};
}

}  // namespace fairlead::bench
