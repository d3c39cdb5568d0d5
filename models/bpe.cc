// SPDX-License-Identifier: Apache-2.0
#include "models/bpe.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

constexpr int32_t kNone = -1;
constexpr Token kMergedAway = -1;

uint64_t PairKey(Token left, Token right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// std::*_heap keep the largest in front.
bool After(const BpeModel::Workspace::Candidate& a, const BpeModel::Workspace::Candidate& b) {
  return a.key > b.key;
}

// Of two parts of a word, the second one has the prefix.
std::string_view WithoutPrefix(std::string_view right, std::string_view prefix) {
  return right.substr(std::min(prefix.size(), right.size()));
}

void AddSymbol(Token id, std::vector<BpeModel::Workspace::Symbol>* symbol) {
  const auto index = static_cast<int32_t>(symbol->size());
  if (index > 0) symbol->back().next = index;
  symbol->push_back({id, index - 1, kNone});
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary, const Options& options)
    : vocabulary_(vocabulary), options_(options) {
  for (char32_t c = 0; c < kDirectEnd; ++c) {
    std::string text;
    AppendUtf8(c, &text);
    character_[c] = vocabulary.Find(text);
  }
  for (int byte = 0; byte < 256; ++byte)
    fallback_[byte] = vocabulary.Find(absl::StrFormat("<0x%02X>", byte));
}

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(const Vocabulary& vocabulary,
                                                           absl::Span<const Rule> rule,
                                                           const Options& options) {
  auto model = std::unique_ptr<BpeModel>(new BpeModel(vocabulary, options));
  model->merge_.reserve(rule.size());
  std::string joined;
  for (size_t i = 0; i < rule.size(); ++i) {
    joined.assign(rule[i].left);
    joined.append(WithoutPrefix(rule[i].right, options.subword_prefix));
    const std::optional<Token> left = vocabulary.Find(rule[i].left);
    const std::optional<Token> right = vocabulary.Find(rule[i].right);
    const std::optional<Token> merged = vocabulary.Find(joined);
    if (!left || !right || !merged) {
      constexpr size_t kShown = 80;  // bytes that the error repeats
      const std::string_view missing = !left ? rule[i].left : !right ? rule[i].right : joined;
      return absl::InvalidArgumentError(
          StrCat("merge ", i, ": \"", absl::CHexEscape(AbslView(missing.substr(0, kShown))),
                 missing.size() > kShown ? "...\"" : "\"", " is not in the vocabulary"));
    }
    // Text is no special token by its letters: where it is trusted, it has been matched before.
    if (vocabulary.IsSpecial(*merged)) continue;
    // A pair that is listed twice has the later rank, as in the reference.
    model->merge_[PairKey(*left, *right)] = {static_cast<uint32_t>(i), *merged};
  }
  return model;
}

const BpeModel::Merge* BpeModel::FindMerge(Token left, Token right) const {
  const auto found = merge_.find(PairKey(left, right));
  return found == merge_.end() ? nullptr : &found->second;
}

void BpeModel::Encode(std::string_view word, TokenModel::Workspace* base,
                      std::vector<Token>* out) const {
  auto* const workspace = static_cast<Workspace*>(base);
  FAIRLEAD_CHECK(word.size() < static_cast<size_t>(INT32_MAX));
  if (options_.ignore_merges) {
    if (const std::optional<Token> whole = vocabulary_.FindPlain(word)) {
      out->push_back(*whole);
      return;
    }
  }
  workspace->symbol.clear();
  AddCharacters(word, &workspace->symbol);
  MergeSymbols(workspace);
  for (const Workspace::Symbol& symbol : workspace->symbol) {
    if (symbol.id != kMergedAway) out->push_back(symbol.id);
  }
}

std::optional<Token> BpeModel::FindCharacter(std::string_view word, size_t begin,
                                             size_t end) const {
  const std::string_view character = word.substr(begin, end - begin);
  const bool has_prefix = begin > 0 && !options_.subword_prefix.empty();
  const bool has_suffix = end == word.size() && !options_.word_suffix.empty();
  if (has_prefix || has_suffix) {
    return vocabulary_.Find(StrCat(has_prefix ? options_.subword_prefix : "", character,
                                   has_suffix ? options_.word_suffix : ""));
  }
  const char32_t c = DecodeUtf8(word, &begin);
  return c < kDirectEnd ? character_[c] : vocabulary_.Find(character);
}

void BpeModel::AddCharacters(std::string_view word, std::vector<Workspace::Symbol>* symbol) const {
  bool unknown_pending = false;  // bytes of a fallback go before it: the reference's order
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    DecodeUtf8(word, &pos);
    const std::string_view character = word.substr(begin, pos - begin);
    const std::optional<Token> id = FindCharacter(word, begin, pos);
    if (id) {
      if (unknown_pending) AddSymbol(*options_.unknown, symbol);
      unknown_pending = false;
      AddSymbol(*id, symbol);
    } else if (options_.byte_fallback && AddFallbackBytes(character, symbol)) {
      continue;
    } else if (options_.unknown) {
      if (unknown_pending && !options_.fuse_unknown) AddSymbol(*options_.unknown, symbol);
      unknown_pending = true;
    }
  }
  if (unknown_pending) AddSymbol(*options_.unknown, symbol);
}

bool BpeModel::AddFallbackBytes(std::string_view character,
                                std::vector<Workspace::Symbol>* symbol) const {
  const auto token = [this](char byte) { return fallback_[static_cast<unsigned char>(byte)]; };
  if (!std::all_of(character.begin(), character.end(),
                   [&](char byte) { return token(byte).has_value(); })) {
    return false;
  }
  for (const char byte : character) AddSymbol(*token(byte), symbol);
  return true;
}

void BpeModel::MergeSymbols(Workspace* workspace) const {
  std::vector<Workspace::Symbol>& symbol = workspace->symbol;
  std::vector<Workspace::Candidate>& heap = workspace->heap;
  heap.clear();
  const auto candidate = [&](int32_t left) -> std::optional<Workspace::Candidate> {
    const Merge* merge = FindMerge(symbol[left].id, symbol[symbol[left].next].id);
    if (merge == nullptr) return std::nullopt;
    return Workspace::Candidate{
        static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left), merge->merged};
  };
  const auto push = [&](int32_t left) {
    if (const auto found = candidate(left)) {
      heap.push_back(*found);
      std::push_heap(heap.begin(), heap.end(), After);
    }
  };
  for (size_t i = 0; i + 1 < symbol.size(); ++i) {
    if (const auto found = candidate(static_cast<int32_t>(i))) heap.push_back(*found);
  }
  std::make_heap(heap.begin(), heap.end(), After);
  constexpr size_t kLookEvery = 4096;  // merges
  for (size_t n = 1; !heap.empty(); ++n) {
    if (n % kLookEvery == 0 && workspace->IsCancelled()) return;
    const Workspace::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), After);
    heap.pop_back();
    const auto left = static_cast<int32_t>(top.key & 0xFFFFFFFF);
    const int32_t right = symbol[left].next;
    if (symbol[left].id == kMergedAway || right == kNone) continue;
    // The pair may have changed since it was queued; it still counts if it gives the same token.
    const Merge* merge = FindMerge(symbol[left].id, symbol[right].id);
    if (merge == nullptr || merge->merged != top.merged) continue;
    symbol[left].id = top.merged;
    symbol[left].next = symbol[right].next;
    symbol[right].id = kMergedAway;
    if (symbol[left].next != kNone) symbol[symbol[left].next].previous = left;
    if (symbol[left].previous != kNone) push(symbol[left].previous);
    if (symbol[left].next != kNone) push(left);
  }
}

}  // namespace fairlead
