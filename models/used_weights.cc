// SPDX-License-Identifier: Apache-2.0
#include "models/used_weights.h"

#include <algorithm>
#include <array>

namespace fairlead {
namespace {

// Tables that follow from the config, the heads of encoders, and what other parts of a checkpoint
// (images, sound) are called.
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

}  // namespace

std::vector<std::string> UsedWeights::Unused() const {
  std::vector<std::string> names;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const WeightInfo& tensor : tensors()) {
    if (!asked_.contains(tensor.name) && !IsKnown(tensor.name)) names.push_back(tensor.file_name);
  }
  for (const SkippedTensor& tensor : skipped()) {
    if (!IsKnown(tensor.name)) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace fairlead
