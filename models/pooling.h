// SPDX-License-Identifier: Apache-2.0
// How a model's own files say that token vectors become one vector a text: the folder of Sentence
// Transformers (Reimers and Gurevych, arXiv 1908.10084), or a GGUF file's key. Any thread; no
// state.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "models/weights.h"

namespace fairlead {

struct PoolingConfig {
  Pooling pooling = Pooling::kMean;
  bool normalize = false;   // PoolArgs::normalize
  int max_tokens = 0;       // MaxTextTokens()
  std::string prompt = {};  // the name of one that is to stand before every text; "": none is
};

// A folder: modules.json, the pooling module's config.json, what MaxTextTokens() reads, and
// config_sentence_transformers.json; without modules.json, 1_Pooling/config.json. A GGUF file:
// {arch}.pooling_type, and vectors are normalized, since the format has no word for it and
// llama.cpp does so. None where the files say nothing of pooling. kUnimplemented names a module or
// a way of pooling that we lack, kInvalidArgument the file and key that are malformed.
absl::StatusOr<std::optional<PoolingConfig>> ReadPooling(const WeightSource& source);

// Tokens that a folder's files allow a text, special ones included: max_seq_length of
// sentence_bert_config.json, else model_max_length of tokenizer_config.json, as in Sentence
// Transformers. 0: they say nothing (a number above 2^28 means so).
absl::StatusOr<int> MaxTextTokens(const WeightSource& source);

}  // namespace fairlead
