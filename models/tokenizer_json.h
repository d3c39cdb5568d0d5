// SPDX-License-Identifier: Apache-2.0
// Reads Hugging Face's tokenizer.json. The vocabulary and the merges, nearly all of the file, go
// straight into flat lists: a Json tree of them would take longer to build than the tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/pipeline_tokenizer.h"

namespace fairlead {

struct TokenizerFile {
  Json rest;  // everything but model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocabulary;
  std::vector<std::pair<std::string, double>> pieces;  // of a list: text and score, ids in order
  std::vector<std::pair<std::string, std::string>> merges;
};

// kInvalidArgument with the byte offset: syntax, nesting, a vocabulary value that is no integer, a
// piece that is not [text, score], a merge that is neither "left right" nor ["left", "right"].
absl::StatusOr<TokenizerFile> ParseTokenizerFile(std::string_view text);

// The parts of a tokenizer; views into `file`. Truncation and padding settings are
// left out: they belong to batch preparation and would lose text. kUnimplemented names a model,
// normalizer, pre-tokenizer, post-processor or decoder that is not known.
absl::StatusOr<TokenizerParts> DescribeTokenizerFile(const TokenizerFile& file);

}  // namespace fairlead
