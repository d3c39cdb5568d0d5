// SPDX-License-Identifier: Apache-2.0
#include "models/unigram_lattice.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

// The best way to cut the text up to some byte: its sum of scores and its last segment.
struct Best {
  double score = 0;
  int32_t begin = -1;  // -1: no way ends here
  Token id = UnigramLattice::kUnknown;
};

}  // namespace

absl::StatusOr<UnigramLattice> UnigramLattice::Create(absl::Span<const Piece> piece,
                                                      const Options& options) {
  UnigramLattice lattice;
  lattice.options_ = options;
  std::vector<ByteTrie::Entry> entry;
  entry.reserve(piece.size());
  lattice.scored_.reserve(piece.size());
  for (const Piece& p : piece) {
    if (!std::isfinite(p.score)) {
      return absl::InvalidArgumentError(
          StrCat("vocabulary: the score of token ", p.id, " is not a finite number"));
    }
    if (!IsValidUtf8(p.text)) {
      return absl::InvalidArgumentError(StrCat("vocabulary: token ", p.id, " is not valid UTF-8"));
    }
    entry.push_back({p.text, static_cast<int32_t>(lattice.scored_.size())});
    lattice.scored_.push_back({p.score, p.id});
  }
  lattice.trie_ = ByteTrie(entry);
  return lattice;
}

void UnigramLattice::Cut(std::string_view text, const std::atomic<bool>* cancelled,
                         std::vector<Segment>* out) const {
  FAIRLEAD_CHECK(text.size() < static_cast<size_t>(INT32_MAX));
  constexpr size_t kLookEvery = 4096;  // characters
  std::vector<Best> best(text.size() + 1);
  best[0].begin = 0;
  // Ties keep the segment that begins first.
  const auto offer = [&](size_t begin, size_t end, double score, Token id) {
    Best& target = best[end];
    if (options_.single_precision) score = static_cast<float>(score);
    if (target.begin >= 0 && !(score > target.score)) return;
    target.score = score;
    target.begin = static_cast<int32_t>(begin);
    target.id = id;
  };
  size_t count = 0;
  for (size_t pos = 0; pos < text.size();) {
    if (++count % kLookEvery == 0 && cancelled != nullptr && *cancelled) return;
    const size_t begin = pos;
    DecodeUtf8(text, &pos);
    const double score = best[begin].score;
    bool covered = false;
    trie_.ForEachPrefix(text, begin, [&](size_t length, int32_t index) {
      offer(begin, begin + length, score + scored_[index].score, scored_[index].id);
      covered |= begin + length == pos;
    });
    if (covered) continue;
    offer(begin, pos, score + options_.unknown_score, kUnknown);
  }
  const size_t first = out->size();
  for (size_t end = text.size(); end > 0; end = static_cast<size_t>(best[end].begin)) {
    out->push_back({static_cast<size_t>(best[end].begin), end, best[end].id});
  }
  std::reverse(out->begin() + static_cast<ptrdiff_t>(first), out->end());
}

std::optional<unsigned char> SpelledByte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return std::nullopt;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'A' && c <= 'F')) return std::nullopt;
    value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<unsigned char>(value);
}

}  // namespace fairlead
