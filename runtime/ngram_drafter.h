// SPDX-License-Identifier: Apache-2.0
// Prompt lookup (Saxena, "Prompt Lookup Decoding", 2023): guesses what follows a sequence's tokens
// by what followed the same words earlier in it, prompt or output. One a sequence; made by the
// submitter's thread, then engine thread only. Memory is linear in the tokens it was made for, and
// all of it is reserved at once.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/tokenizer.h"

namespace fairlead {

class NgramDrafter {
 public:
  // An earlier place matches with at least kMinMatch tokens before it; more than kMaxMatch are not
  // compared.
  static constexpr int kMinMatch = 2;
  static constexpr int kMaxMatch = 8;

  // For a sequence that begins with `prompt` and has at most max_tokens tokens in the end.
  NgramDrafter(absl::Span<const Token> prompt, int max_tokens);

  // `tokens` is the whole sequence, one token longer than at the last call (or than the prompt).
  // Allocates nothing.
  void Append(absl::Span<const Token> tokens);

  // Writes the guess for the tokens after `tokens`, which are those of the last Append. The text
  // since the match repeats itself where it is shorter than `out`. Returns out.size(), or 0 without
  // a match.
  int Draft(absl::Span<const Token> tokens, absl::Span<Token> out) const;
  bool has_match() const { return match_ >= 0; }

  // Before anything is known of a sequence. Measured on chats: a quarter of the first tokens after
  // a match are right.
  static constexpr double kFirstMean = 0.25;

  // How likely the first drafted token is the right one, when those before it are. Learned from
  // every token of the output, whether its draft was verified or not, so that it costs no
  // computing.
  double acceptance() const;

 private:
  // So many places of a pair are looked at, the latest first: a frequent one must not make a step
  // slow.
  static constexpr int kMaxCandidates = 64;

  int32_t& BucketOf(Token before_last, Token last);
  void Index(absl::Span<const Token> tokens, int position);
  int32_t Find(absl::Span<const Token> tokens);

  // Positions that follow a pair of tokens, the latest of each bucket and from each to the one
  // before.
  std::vector<int32_t> latest_;    // a power of two
  std::vector<int32_t> previous_;  // one a position
  int32_t match_ = -1;             // the position whose token is expected next
  int hits_ = 0;                   // in a row, of this match
  double mean_ = kFirstMean;       // of hits, over the matches of this sequence
};

}  // namespace fairlead
