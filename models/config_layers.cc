// SPDX-License-Identifier: Apache-2.0
// What differs from layer to layer: windows, rotation, experts.
#include <algorithm>
#include <string>
#include <string_view>

#include "kernels/strings.h"
#include "models/config.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

constexpr int kMaxWindow = 1 << 28;

// One entry a layer, each of `kind` (as Json::is_*); null if the key is absent.
const Json* LayerList(std::string_view key, const ModelConfig& config, bool (Json::*kind)() const,
                      ConfigReader& reader) {
  const Json* list = reader.Find(key);
  if (list == nullptr || !list->is_array() || list->empty()) return nullptr;
  bool right = list->size() == static_cast<size_t>(config.layers);
  for (const Json& entry : *list) right = right && (entry.*kind)();
  if (right) return list;
  reader.Fail(absl::InvalidArgumentError(StrCat("config key \"", key, "\" is ", ShortDump(*list),
                                                "; it must have one entry for each of the ",
                                                config.layers, " layers")));
  return nullptr;
}

// Those of layer_types, or else those that do not rotate (SmolLM3), or every layer but each
// sliding_window_pattern-th, or those from max_window_layers on, or all; none where
// use_sliding_window is false or null.
std::vector<bool> LayersWithWindow(const Family& family, const ModelConfig& config,
                                   ConfigReader& reader) {
  const std::vector<bool> none(static_cast<size_t>(config.layers));
  std::vector<bool> window = none;
  const Json* types = LayerList("layer_types", config, &Json::is_string, reader);
  for (size_t i = 0; types != nullptr && i < window.size(); ++i) {
    window[i] = (*types)[i] == "sliding_attention";
    if (window[i] || (*types)[i] == "full_attention") continue;
    reader.Fail(
        absl::UnimplementedError(StrCat("config key \"layer_types\" names ", ShortDump((*types)[i]),
                                        "; known: full_attention, sliding_attention")));
  }
  if (!reader.Bool("use_sliding_window", !reader.IsNull("use_sliding_window"))) return none;
  if (types != nullptr) return window;
  if (const Json* pattern = reader.Find("sliding_window_pattern"); pattern && pattern->is_array()) {
    const Json* list = LayerList("sliding_window_pattern", config, &Json::is_boolean, reader);
    for (size_t i = 0; list != nullptr && i < window.size(); ++i)
      window[i] = (*list)[i].get<bool>();
    return window;
  }
  const int pattern = reader.Int("sliding_window_pattern", 0, kMaxWindow, 0);
  const int first = HasFeature(family, "max_window_layers")
                        ? reader.Int("max_window_layers", 0, kMaxWindow, 0)
                        : 0;
  const bool follows_rope = HasFeature(family, "no_rope_layers");
  for (int i = 0; i < config.layers; ++i) {
    window[i] = follows_rope  ? config.layer[i].rope == LayerConfig::kNoRope
                : pattern > 0 ? (i + 1) % pattern != 0
                              : i >= first;
  }
  return window;
}

void ReadWindows(const Family& family, ModelConfig& config, ConfigReader& reader) {
  const std::vector<bool> has_window = LayersWithWindow(family, config, reader);
  const int window = reader.Int("sliding_window", 0, kMaxWindow, 0);
  const bool any = std::find(has_window.begin(), has_window.end(), true) != has_window.end();
  for (int i = 0; i < config.layers; ++i) {
    if (!has_window[i]) continue;
    config.layer[i].window = window;
    if (config.ropes.size() > 1) config.layer[i].rope = 1;
  }
  // A window is fine anywhere where it never cuts a context off.
  if (!any || window == 0 || window >= config.max_positions || HasFeature(family, "window")) return;
  reader.Fail(absl::UnimplementedError(
      StrCat("config key \"sliding_window\" is ", window, ", below max_position_embeddings (",
             config.max_positions, "): this architecture has no sliding windows")));
}

// no_rope_layers has a 1 for each layer that rotates; without it, each no_rope_layer_interval-th
// does not.
void ReadLayersWithoutRope(const Family& family, ModelConfig& config, ConfigReader& reader) {
  if (!HasFeature(family, "no_rope_layers")) return;
  const Json* list = LayerList("no_rope_layers", config, &Json::is_number_integer, reader);
  const int interval = reader.Int("no_rope_layer_interval", 1, kMaxWindow, 4);
  for (int i = 0; i < config.layers; ++i) {
    const bool rotates = list != nullptr ? (*list)[i] != 0 : (i + 1) % interval != 0;
    if (!rotates) config.layer[i].rope = LayerConfig::kNoRope;
  }
}

void ReadLayersWithExperts(const Family& family, ModelConfig& config, ConfigReader& reader) {
  if (config.experts.count == 0) return;
  const int step = reader.Int("decoder_sparse_step", 1, kMaxWindow, 1);
  const int first = HasFeature(family, "routed_experts")
                        ? reader.Int("first_k_dense_replace", 0, kMaxWindow, 0)
                        : 0;
  for (int i = 0; i < config.layers; ++i) {
    config.layer[i].experts = i >= first && (i + 1) % step == 0;
  }
  const Json* dense = reader.Find("mlp_only_layers");
  if (dense == nullptr) return;
  bool right = dense->is_array();
  for (size_t i = 0; right && i < dense->size(); ++i) {
    const Json& layer = (*dense)[i];
    right = layer.is_number_unsigned() && layer.get<uint64_t>() < config.layer.size();
    if (right) config.layer[layer.get<size_t>()].experts = false;
  }
  if (right) return;
  reader.Fail(
      absl::InvalidArgumentError(StrCat("config key \"mlp_only_layers\" is ", ShortDump(*dense),
                                        "; it must list layers from 0 to ", config.layers - 1)));
}

}  // namespace

absl::Status ReadLayers(const Json& json, const Family& family, ModelConfig& config) {
  ConfigReader reader(json);
  config.layer.assign(static_cast<size_t>(config.layers), {});
  ReadLayersWithoutRope(family, config, reader);
  ReadWindows(family, config, reader);
  ReadLayersWithExperts(family, config, reader);
  return reader.status();
}

}  // namespace fairlead
