// SPDX-License-Identifier: Apache-2.0
#include "models/score_bpe.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

constexpr int32_t kNone = -1;

absl::Status Refuse(Token id, std::string_view why) {
  return absl::InvalidArgumentError(StrCat("vocabulary: token ", id, " ", why));
}

}  // namespace

absl::StatusOr<ScoreBpe> ScoreBpe::Create(absl::Span<const Piece> piece, bool merges) {
  ScoreBpe bpe;
  bpe.merges_ = merges;
  std::vector<ByteTrie::Entry> whole;
  std::vector<float> scores;
  size_t bytes = 0;
  for (const Piece& p : piece) {
    if (!std::isfinite(p.score)) return Refuse(p.id, "has a score that is not a finite number");
    if (p.text.empty()) return Refuse(p.id, "has no text");
    if (!IsValidUtf8(p.text)) return Refuse(p.id, "is not valid UTF-8");
    if (p.whole) whole.push_back({p.text, 0});
    bytes += p.text.size();
    bpe.longest_ = std::max(bpe.longest_, p.text.size());
    scores.push_back(p.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  bpe.texts_.reserve(bytes);  // exact: views into it must not move
  bpe.known_.reserve(piece.size());
  for (const Piece& p : piece) {
    const size_t begin = bpe.texts_.size();
    bpe.texts_.insert(bpe.texts_.end(), p.text.begin(), p.text.end());
    const auto rank =
        std::lower_bound(scores.begin(), scores.end(), p.score, std::greater<>()) - scores.begin();
    bpe.known_[absl::string_view(bpe.texts_.data() + begin, p.text.size())] = {
        static_cast<uint32_t>(rank), p.id, p.unused};
  }
  bpe.whole_ = ByteTrie(whole);
  return bpe;
}

const ScoreBpe::Known* ScoreBpe::Find(std::string_view text) const {
  if (text.size() > longest_) return nullptr;
  const auto found = known_.find(AbslView(text));
  return found == known_.end() ? nullptr : &found->second;
}

void ScoreBpe::AddSymbols(std::string_view text, std::vector<Symbol>* symbol) const {
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const size_t whole = whole_.LongestPrefix(text, pos);
    if (whole > 0) {
      pos += whole;
    } else {
      DecodeUtf8(text, &pos);
    }
    const auto index = static_cast<int32_t>(symbol->size());
    if (index > 0) symbol->back().next = index;
    symbol->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(pos - begin), index - 1,
                       kNone, whole > 0});
  }
}

bool ScoreBpe::FindCandidate(std::string_view text, int32_t left, Work* work,
                             Candidate* found) const {
  if (left == kNone || work->symbol[left].next == kNone) return false;
  const Symbol& a = work->symbol[left];
  const Symbol& b = work->symbol[a.next];
  if (a.whole || b.whole) return false;
  const std::string_view joined = text.substr(a.begin, a.size + b.size);
  const Known* known = Find(joined);
  if (known == nullptr) return false;
  *found = {static_cast<uint64_t>(known->rank) << 32 | static_cast<uint32_t>(left),
            a.size + b.size};
  // The last pair seen counts, merged or not.
  if (known->unused) work->parts[AbslView(joined)] = a.size;
  return true;
}

void ScoreBpe::Merge(std::string_view text, const std::atomic<bool>* cancelled, Work* work) const {
  constexpr size_t kLookEvery = 4096;  // merges
  std::vector<Symbol>& symbol = work->symbol;
  std::vector<Candidate>& heap = work->heap;
  // std::*_heap keep the largest in front.
  const auto after = [](const Candidate& a, const Candidate& b) { return a.key > b.key; };
  const auto push = [&](int32_t left) {
    Candidate found;
    if (!FindCandidate(text, left, work, &found)) return;
    heap.push_back(found);
    std::push_heap(heap.begin(), heap.end(), after);
  };
  Candidate found;
  for (size_t i = 0; i < symbol.size(); ++i) {
    if (FindCandidate(text, static_cast<int32_t>(i), work, &found)) heap.push_back(found);
  }
  std::make_heap(heap.begin(), heap.end(), after);
  for (size_t n = 1; !heap.empty(); ++n) {
    if (n % kLookEvery == 0 && cancelled != nullptr && *cancelled) return;
    const Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), after);
    heap.pop_back();
    const auto left = static_cast<int32_t>(top.key & 0xFFFFFFFF);
    const int32_t right = symbol[left].next;
    // Symbols only grow, so the size tells whether the pair is still the one that was queued.
    if (symbol[left].size == 0 || right == kNone ||
        symbol[left].size + symbol[right].size != top.size) {
      continue;
    }
    symbol[left].size = top.size;
    symbol[left].next = symbol[right].next;
    symbol[right].size = 0;
    if (symbol[left].next != kNone) symbol[symbol[left].next].previous = left;
    push(symbol[left].previous);
    push(left);
  }
}

void ScoreBpe::Emit(std::string_view text, const Symbol& symbol, const Parts& parts,
                    std::vector<Segment>* out) const {
  std::vector<Segment> open = {{symbol.begin, symbol.begin + symbol.size, kUnknown}};
  while (!open.empty()) {
    Segment segment = open.back();
    open.pop_back();
    const std::string_view piece = text.substr(segment.begin, segment.end - segment.begin);
    const Known* known = Find(piece);
    if (known != nullptr && !known->unused) segment.id = known->id;
    if (known != nullptr && known->unused) {
      if (const auto part = parts.find(AbslView(piece)); part != parts.end()) {
        const size_t middle = segment.begin + part->second;
        open.push_back({middle, segment.end, kUnknown});
        open.push_back({segment.begin, middle, kUnknown});
        continue;
      }
    }
    out->push_back(segment);
  }
}

void ScoreBpe::Cut(std::string_view text, const std::atomic<bool>* cancelled,
                   std::vector<Segment>* out) const {
  FAIRLEAD_CHECK(text.size() < static_cast<size_t>(INT32_MAX));
  if (text.empty()) return;
  Work work;
  AddSymbols(text, &work.symbol);
  if (merges_) Merge(text, cancelled, &work);
  for (int32_t i = 0; i != kNone; i = work.symbol[i].next) {
    Emit(text, work.symbol[i], work.parts, out);
  }
}

}  // namespace fairlead
