// SPDX-License-Identifier: Apache-2.0
// Reads SentencePiece's tokenizer.model (proto/sentencepiece/model.proto).
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/sentencepiece_tokenizer.h"

namespace fairlead {

struct SentencePieceFile {
  SentencePieceParts parts;  // views into `text`; without added tokens, bos, stop, post-processor
  std::deque<std::string> text;
  // The pieces of these names, if they are there as control pieces.
  std::optional<Token> bos;
  std::optional<Token> eos;
};

// Memory: about 100 bytes a piece, of which there are at most Vocabulary::kMaxTokens.
// kInvalidArgument: no valid message, a piece type or a size that is not allowed. kUnimplemented: a
// model of words, rules for decoded text.
absl::StatusOr<SentencePieceFile> ParseSentencePieceModel(std::string_view bytes);

}  // namespace fairlead
