// SPDX-License-Identifier: Apache-2.0
// SentencePiece's byte-pair encoding: two neighbours merge if the vocabulary has their text, the
// pair whose piece has the highest score first, of equal ones the leftmost. Immutable: any thread.
// O(n log n) for n characters.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "models/byte_trie.h"
#include "models/tokenizer.h"
#include "models/unigram_lattice.h"

namespace fairlead {

class ScoreBpe {
 public:
  struct Piece {
    std::string_view text;
    Token id = 0;
    float score = 0;
    bool whole = false;   // user-defined: cut out of the text first, never part of a merge
    bool unused = false;  // takes part in merges, is then cut into what it was made of, or unknown
  };

  using Segment = UnigramLattice::Segment;
  static constexpr Token kUnknown = UnigramLattice::kUnknown;

  ScoreBpe() = default;  // no pieces
  // The texts are copied. Of pieces with the same text the last one counts. Without `merges` every
  // character stays alone: SentencePiece's model of characters. kInvalidArgument: a score that is
  // not finite, text that is empty or not UTF-8.
  static absl::StatusOr<ScoreBpe> Create(absl::Span<const Piece> piece, bool merges);

  // As UnigramLattice::Cut.
  void Cut(std::string_view text, const std::atomic<bool>* cancelled,
           std::vector<Segment>* out) const;

 private:
  struct Known {
    uint32_t rank;  // smaller merges first; equal for equal scores
    Token id;
    bool unused;
  };
  struct Symbol {
    uint32_t begin;
    uint32_t size;  // 0: merged away
    int32_t previous;
    int32_t next;
    bool whole;
  };
  struct Candidate {
    uint64_t key;   // rank << 32 | left symbol: the smallest goes first
    uint32_t size;  // of the merged text
  };
  // How the pieces in use no longer were made: by text, the size of the left part.
  using Parts = absl::flat_hash_map<absl::string_view, uint32_t>;
  struct Work {
    std::vector<Symbol> symbol;
    std::vector<Candidate> heap;
    Parts parts;
  };

  const Known* Find(std::string_view text) const;
  void AddSymbols(std::string_view text, std::vector<Symbol>* symbol) const;
  bool FindCandidate(std::string_view text, int32_t left, Work* work, Candidate* found) const;
  void Merge(std::string_view text, const std::atomic<bool>* cancelled, Work* work) const;
  void Emit(std::string_view text, const Symbol& symbol, const Parts& parts,
            std::vector<Segment>* out) const;

  std::vector<char> texts_;  // what known_ points to, moved or not
  absl::flat_hash_map<absl::string_view, Known> known_;
  size_t longest_ = 0;
  bool merges_ = true;
  ByteTrie whole_;
};

}  // namespace fairlead
