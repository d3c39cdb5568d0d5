// SPDX-License-Identifier: Apache-2.0
// How a model's own files say that token vectors become one vector a text: the folder of Sentence
// Transformers (Reimers and Gurevych, arXiv 1908.10084), or a GGUF file's key. Any thread; no
// state.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/weights.h"

namespace fairlead {

struct PoolingConfig {
  Pooling pooling = Pooling::kMean;
  bool normalize = false;  // PoolArgs::normalize
  int max_tokens = 0;  // of a text, special tokens included (max_seq_length); 0: nothing is said
};

// A folder: modules.json, the pooling module's config.json and sentence_bert_config.json; without
// modules.json, 1_Pooling/config.json. A GGUF file: {arch}.pooling_type, and vectors are
// normalized, since the format has no word for it and llama.cpp does so. None where the files say
// nothing of pooling. kUnimplemented names a module or a way of pooling that we lack,
// kInvalidArgument the file and key that are malformed.
absl::StatusOr<std::optional<PoolingConfig>> ReadPooling(const WeightSource& source);

}  // namespace fairlead
