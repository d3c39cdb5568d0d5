// SPDX-License-Identifier: Apache-2.0
// A tokenizer with SentencePiece's rules (equal to sentencepiece 0.2.3), put together from what a
// tokenizer.model or a GGUF file (tokenizer.ggml.model llama, t5) says. Around them, as Hugging
// Face's tokenizers for such models have it: added tokens are cut out of the text first, and each
// stretch between them is normalized and cut into pieces as a text of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/added_tokens.h"
#include "models/post_processor.h"
#include "models/sentencepiece_normalizer.h"
#include "models/tokenizer.h"

namespace fairlead {

enum class PieceType {  // the numbers of the files
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

enum class SegmentationModel { kUnigram, kBpe, kCharacters };

struct SentencePieceParts {
  struct Piece {
    std::string_view text;  // must live until MakeSentencePieceTokenizer returns
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> piece;  // by id
  SegmentationModel model = SegmentationModel::kUnigram;
  bool byte_fallback = false;  // an unknown character becomes the byte pieces of its UTF-8
  std::string unknown_surface = " \u2047 ";
  SentencePieceNormalizer normalizer;       // user_defined is filled from `piece`
  bool dummy_prefix_at_start_only = false;  // not behind added tokens
  // Cut out of the text by their own ids, which may lie behind the pieces. Ids that no piece and no
  // added token has are holes.
  std::vector<AddedToken> added;
  PostProcessor post_processor;
  std::optional<Token> bos;
  std::vector<Token> stop;
};

// kInvalidArgument: no piece, or more than Vocabulary::kMaxTokens; text that is empty or not UTF-8;
// a score that is not finite; several unknown pieces or none (but with all bytes there); a byte
// piece that is not <0x00>..<0xFF>, or byte_fallback without all 256; ids that no token has.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(SentencePieceParts parts);

}  // namespace fairlead
