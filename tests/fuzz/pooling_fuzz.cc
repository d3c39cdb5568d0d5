// SPDX-License-Identifier: Apache-2.0
// The files of Sentence Transformers, one after another with zero bytes between: modules.json, the
// pooling's config.json, sentence_bert_config.json. They are refused, or say how to pool.
#include "models/pooling.h"

#include "kernels/check.h"
#include "models/mapped_weights.h"
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const std::vector<std::string_view> parts = SplitInput(data, size, 3);
  WriteScratch("modules.json", parts[0]);
  WriteScratch("1_Pooling/config.json", parts[1]);
  WriteScratch("sentence_bert_config.json", parts[2]);
  CheckpointContents contents;
  contents.format = WeightFormat::kSafetensors;
  contents.path = ScratchFolder();
  contents.config = Json::object();
  const auto source = MakeMappedWeights(std::move(contents));
  FAIRLEAD_CHECK(source.ok());
  const auto pooling = ReadPooling(**source);
  if (pooling.ok() && *pooling) FAIRLEAD_CHECK((*pooling)->max_tokens >= 0);
  return 0;
}
