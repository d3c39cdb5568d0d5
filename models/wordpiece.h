// SPDX-License-Identifier: Apache-2.0
// Models that look words up: WordPiece, the longest piece first (Wu et al. 2016, arXiv 1609.08144),
// and WordLevel, the whole word or nothing; with the rules of Hugging Face tokenizers 0.23.
// Immutable after creation: any thread; borrow the vocabulary.
#pragma once

#include <memory>
#include <string>

#include "models/token_model.h"
#include "models/vocabulary.h"

namespace fairlead {

struct WordPieceOptions {
  std::string unknown = "[UNK]";  // what a word becomes that cannot be pieced together
  std::string prefix = "##";      // of pieces within a word
  int max_characters = 100;       // of a word; a longer one is unknown
};

// Without the unknown token in the vocabulary, unknown words vanish.
std::unique_ptr<TokenModel> MakeWordPiece(const Vocabulary& vocabulary,
                                          const WordPieceOptions& options);
std::unique_ptr<TokenModel> MakeWordLevel(const Vocabulary& vocabulary, const std::string& unknown);

}  // namespace fairlead
