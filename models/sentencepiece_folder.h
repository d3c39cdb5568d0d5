// SPDX-License-Identifier: Apache-2.0
// A tokenizer from SentencePiece's tokenizer.model.
// The file alone follows sentencepiece: text never spells a control piece ("<s>"), and nothing is
// put around a text. Beside a model's own configs it follows Hugging Face's tokenizers: control
// and unknown pieces and what the configs list are added tokens, and bos is put first unless they
// say otherwise.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/tokenizer.h"

namespace fairlead {

// Errors: ParseSentencePieceModel's and MakeSentencePieceTokenizer's, with the path before them.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceFile(const std::string& path);

// tokenizer.model with tokenizer_config.json, special_tokens_map.json, added_tokens.json,
// config.json and generation_config.json, as far as they are there.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceFolder(
    const std::filesystem::path& folder);

}  // namespace fairlead
