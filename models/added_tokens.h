// SPDX-License-Identifier: Apache-2.0
// Added tokens: texts that are cut out of the input before anything else looks at it, with the
// flags and the matching of Hugging Face tokenizers 0.23 (leftmost, then longest, left to right
// without overlap). Immutable after construction: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/regex.h"
#include "models/tokenizer.h"

namespace fairlead {

struct AddedToken {
  std::string text;
  Token id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // ... and behind it
  bool normalized = false;   // matched in normalized text
  bool special =
      false;  // matched in trusted text only; skipped when decoding without special tokens
};

// The parts of a text in which special tokens count: sorted, disjoint, not touching.
class TrustedSpans {
 public:
  // [begin, end) is trusted; begin is at or behind the end of the last call's.
  void Add(size_t begin, size_t end);
  bool Contains(size_t begin, size_t end) const;
  // The same spans for the part [begin, end) of the text, counted from its begin.
  TrustedSpans Slice(size_t begin, size_t end) const;
  const std::vector<TextSpan>& spans() const { return span_; }

 private:
  std::vector<TextSpan> span_;
};

// Pieces as one text of valid UTF-8.
struct JoinedText {
  std::string text;
  TrustedSpans trusted;
};
// parse_special: EncodeOptions::parse_special; without it nothing is trusted.
JoinedText JoinPieces(absl::Span<const TextPiece> pieces, bool parse_special);

// A part of the input: an added token, or text for the next stage.
struct Segment {
  TextSpan span;
  std::optional<Token> token;
};

// Finds one kind of added tokens: the normalized ones, or the others.
class AddedTokenMatcher {
 public:
  // Longer texts would make matching slow on hostile input.
  static constexpr size_t kMaxTextBytes = 1024;

  // `text` is what to look for: token.text, or its normalized form. kInvalidArgument: empty, too
  // long, or already there.
  absl::Status Add(const AddedToken& token, std::string_view text);

  bool Has(std::string_view text) const;

  // Appends the parts of `text`, in order. A special token is matched only if the text it is looked
  // for by lies in trusted text as a whole; elsewhere it is no token at all, so it cannot hide
  // another.
  void Split(std::string_view text, const TrustedSpans& trusted, std::vector<Segment>* out) const;

 private:
  struct Match {
    const AddedToken* token = nullptr;  // null: none
    size_t end = 0;
  };
  Match LongestAt(std::string_view text, size_t pos, const TrustedSpans& trusted) const;
  int32_t Child(int32_t node, unsigned char byte) const;

  std::vector<AddedToken> token_;
  // A trie; node 0 is the root. Most bytes of a text start no token: those are seen in first_
  // alone.
  std::array<int32_t, 256> first_{};
  absl::flat_hash_map<uint64_t, int32_t> edge_;  // node << 8 | byte
  std::vector<int32_t> token_at_ = {-1};         // node -> index into token_, or -1
};

}  // namespace fairlead
