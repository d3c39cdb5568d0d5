// SPDX-License-Identifier: Apache-2.0
// Segments text by a unigram language model: of all ways to cut it into pieces of the vocabulary
// the one with the largest sum of scores (Kudo 2018, "Subword Regularization"), by a Viterbi search
// from left to right. Immutable: any thread. O(n * longest piece) time, 24 bytes of memory a byte
// of text.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/byte_trie.h"
#include "models/tokenizer.h"

namespace fairlead {

class UnigramLattice {
 public:
  struct Piece {
    std::string_view text;
    Token id = 0;
    double score = 0;
  };

  struct Options {
    // Of a character that no piece covers.
    double unknown_score = 0;
    // Sums are kept in float32, as SentencePiece keeps them, not in float64, as Hugging Face does:
    // near-ties fall differently.
    bool single_precision = false;
  };

  // What both libraries take off the lowest score of the vocabulary for a character no piece
  // covers.
  static constexpr double kUnknownPenalty = 10;

  // A stretch of the text and its piece, kUnknown for a single character that no piece covers.
  static constexpr Token kUnknown = -1;
  struct Segment {
    size_t begin;
    size_t end;
    Token id;
  };

  UnigramLattice() = default;  // no pieces
  // The texts are copied. Of pieces with the same text the last one counts. kInvalidArgument: a
  // score that is not finite, text that is not UTF-8.
  static absl::StatusOr<UnigramLattice> Create(absl::Span<const Piece> piece,
                                               const Options& options);

  // Appends the segments of `text` (valid UTF-8, under 2 GiB) in order. Once `cancelled` (may be
  // null) is true, what is appended is of no use.
  void Cut(std::string_view text, const std::atomic<bool>* cancelled,
           std::vector<Segment>* out) const;

 private:
  ByteTrie trie_;  // values are indices into scored_
  struct Scored {
    double score;
    Token id;
  };
  std::vector<Scored> scored_;
  Options options_;
};

// The byte that <0x00>..<0xFF> spells: what vocabularies with byte fallback call their bytes.
std::optional<unsigned char> SpelledByte(std::string_view text);

}  // namespace fairlead
