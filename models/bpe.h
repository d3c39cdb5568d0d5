// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word (Sennrich et al. 2016, "Neural Machine Translation of Rare Words
// with Subword Units"), with the order of merges and the options of Hugging Face tokenizers 0.23's
// BPE model. Immutable after creation: any thread; borrows the vocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/token_model.h"
#include "models/tokenizer.h"
#include "models/vocabulary.h"

namespace fairlead {

class BpeModel final : public TokenModel {
 public:
  // Merging `left` with `right` gives the token spelled left + right; earlier rules go first.
  struct Rule {
    std::string_view left;
    std::string_view right;
  };

  struct Options {
    bool ignore_merges = false;  // a word that is in the vocabulary is that one token
    bool byte_fallback =
        false;  // an unknown character becomes its bytes' tokens <0x00>..<0xFF>, if all exist
    bool fuse_unknown = false;     // unknown characters in a row become one unknown token
    std::optional<Token> unknown;  // without it unknown characters vanish
    std::string subword_prefix;    // of every character of a word but the first
    std::string word_suffix;       // of a word's last character
  };

  struct Workspace final : TokenModel::Workspace {
    struct Symbol {
      Token id;
      int32_t previous;
      int32_t next;
    };
    struct Candidate {
      uint64_t key;  // rank << 32 | position: the smallest goes first
      Token merged;
    };
    std::vector<Symbol> symbol;
    std::vector<Candidate> heap;
  };

  // kInvalidArgument: a rule whose parts or whose result is not in the vocabulary.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(const Vocabulary& vocabulary,
                                                          absl::Span<const Rule> rule,
                                                          const Options& options);

  std::unique_ptr<TokenModel::Workspace> NewWorkspace() const override {
    return std::make_unique<Workspace>();
  }
  // O(n log n) for n characters.
  void Encode(std::string_view word, TokenModel::Workspace* workspace,
              std::vector<Token>* out) const override;
  // But for characters that no token spells.
  bool keeps_all() const override {
    return options_.subword_prefix.empty() && options_.word_suffix.empty();
  }

 private:
  struct Merge {
    uint32_t rank;
    Token merged;
  };
  static constexpr char32_t kDirectEnd = 512;  // the byte-level alphabet and what surrounds it

  BpeModel(const Vocabulary& vocabulary, const Options& options);
  void AddCharacters(std::string_view word, std::vector<Workspace::Symbol>* symbol) const;
  std::optional<Token> FindCharacter(std::string_view word, size_t begin, size_t end) const;
  bool AddFallbackBytes(std::string_view character, std::vector<Workspace::Symbol>* symbol) const;
  void MergeSymbols(Workspace* workspace) const;
  const Merge* FindMerge(Token left, Token right) const;

  const Vocabulary& vocabulary_;
  const Options options_;
  absl::flat_hash_map<uint64_t, Merge> merge_;              // left << 32 | right
  std::array<std::optional<Token>, kDirectEnd> character_;  // tokens of single characters
  std::array<std::optional<Token>, 256> fallback_;          // <0x00>..<0xFF>
};

}  // namespace fairlead
