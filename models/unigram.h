// SPDX-License-Identifier: Apache-2.0
// tokenizer.json's "Unigram" model, as Hugging Face tokenizers 0.23 has it.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/token_model.h"
#include "models/unigram_lattice.h"

namespace fairlead {

class Unigram : public TokenModel {
 public:
  struct Piece {  // ids are indices
    std::string_view text;
    double score = 0;
  };

  struct Options {
    std::optional<Token> unknown;  // without it unknown characters vanish
    bool byte_fallback = false;    // unknown text becomes its bytes' tokens, if all exist
    // Tokens that no text becomes here: the special ones, which text that is not trusted must not
    // spell.
    std::vector<Token> left_out = {};
  };

  // The texts are copied. kInvalidArgument: a score that is not finite, text that is not UTF-8, an
  // unknown token that is no piece.
  static absl::StatusOr<std::unique_ptr<TokenModel>> Create(absl::Span<const Piece> piece,
                                                            const Options& options);

  // Unknown characters in a row are one unknown token. O(n * longest piece).
  void Encode(std::string_view word, Workspace* workspace, std::vector<Token>* out) const override;
  bool keeps_all() const override { return false; }

 private:
  void AddUnknown(std::string_view text, std::vector<Token>* out) const;

  UnigramLattice lattice_;
  std::optional<Token> unknown_;
  std::vector<std::optional<Token>> byte_;  // <0x00>..<0xFF>; empty without byte_fallback
};

}  // namespace fairlead
