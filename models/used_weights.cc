// SPDX-License-Identifier: Apache-2.0
#include "models/used_weights.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace fairlead {
namespace {

// Tables that follow from the config, heads that a model may do without, and what other parts of a
// checkpoint (images, sound) are called.
constexpr std::array<std::string_view, 11> kKnown = {"rotary_emb.inv_freq",
                                                     "position_ids",
                                                     "pooler.",
                                                     "cls.",
                                                     "lm_head.",
                                                     "vision",
                                                     "visual",
                                                     "multi_modal",
                                                     "audio",
                                                     "rope_freqs",
                                                     "rope_factors"};

bool IsKnown(std::string_view name) {
  return std::any_of(kKnown.begin(), kKnown.end(), [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  });
}

// Of the layers behind the last that predict further tokens (DeepSeek-V3).
bool IsOfNextTokens(const Json& config, std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.";
  int64_t layer = 0;
  if (!name.starts_with(kLayers) || config.value("num_nextn_predict_layers", Json()) == nullptr)
    return false;
  name.remove_prefix(kLayers.size());
  if (std::from_chars(name.data(), name.data() + name.size(), layer).ec != std::errc())
    return false;
  const auto layers = config.find("num_hidden_layers");
  return layers != config.end() && layers->is_number_integer() && layer >= *layers;
}

}  // namespace

std::vector<std::string> UsedWeights::Unused() const {
  std::vector<std::string> names;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const WeightInfo& tensor : tensors()) {
    if (asked_.contains(tensor.name) || IsKnown(tensor.name) ||
        IsOfNextTokens(config(), tensor.name))
      continue;
    names.push_back(tensor.file_name);
  }
  for (const SkippedTensor& tensor : skipped()) {
    if (!IsKnown(tensor.name)) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace fairlead
