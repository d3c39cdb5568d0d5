// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder: the input up to the first zero byte is config.json, what follows
// model.safetensors. It is refused, or its config has sizes that fit each other; weights that the
// config says are quantised are made within their bytes.
#include "models/config.h"

#include "models/fused_experts.h"
#include "models/mapped_weights.h"
#include "models/quantized_tensors.h"
#include "models/safetensors.h"
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const std::vector<std::string_view> parts = SplitInput(data, size, 2);
  auto config = ParseJson(parts[0]);
  if (!config.ok() || !config->is_object()) return 0;
  const auto bytes = OwnBytes(parts[1]);
  CheckpointContents contents;
  contents.format = WeightFormat::kSafetensors;
  contents.path = "input";
  contents.config = *std::move(config);
  // Without weights the config alone is read.
  if (auto table = ParseSafetensors(bytes, "input"); table.ok()) {
    contents.tensors = std::move(table->tensors);
    contents.skipped = std::move(table->skipped);
  }
  if (!ResolveQuantizedTensors(contents).ok()) return 0;
  auto source = MakeMappedWeights(std::move(contents));
  if (!source.ok()) return 0;
  source = SplitFusedExperts(*std::move(source));
  if (source.ok()) CheckWeights(**source);
  return 0;
}
