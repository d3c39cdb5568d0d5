// SPDX-License-Identifier: Apache-2.0
#include "models/wordpiece.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace fairlead {
namespace {

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

class WordPiece final : public TokenModel {
 public:
  WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options)
      : vocabulary_(vocabulary), options_(options), unknown_(vocabulary.Find(options.unknown)) {
    for (Token token = 0; token < vocabulary.end(); ++token)
      longest_ = std::max(longest_, vocabulary.Spelling(token).size());
  }

  void Encode(std::string_view word, Workspace* workspace, std::vector<Token>* out) const override {
    const auto characters =
        std::count_if(word.begin(), word.end(), [](char byte) { return !IsContinuation(byte); });
    if (characters > options_.max_characters) return AddUnknown(out);
    const size_t before = out->size();
    std::string piece;
    for (size_t begin = 0; begin < word.size();) {
      if (workspace->IsCancelled()) return;
      const size_t end = FindLongest(word, begin, &piece, out);
      if (end == begin) {
        out->resize(before);
        return AddUnknown(out);
      }
      begin = end;
    }
  }

 private:
  // Appends the longest piece that begins there; returns where it ends, `begin` if there is none.
  size_t FindLongest(std::string_view word, size_t begin, std::string* piece,
                     std::vector<Token>* out) const {
    const std::string_view prefix = begin > 0 ? std::string_view(options_.prefix) : "";
    size_t end = std::min(word.size(), begin + longest_);
    while (end < word.size() && IsContinuation(word[end])) --end;
    piece->assign(prefix);
    piece->append(word.substr(begin, end - begin));
    while (end > begin) {
      if (const std::optional<Token> id = vocabulary_.FindPlain(*piece)) {
        out->push_back(*id);
        return end;
      }
      do {
        --end;
      } while (IsContinuation(word[end]));
      piece->resize(prefix.size() + (end - begin));
    }
    return begin;
  }

  void AddUnknown(std::vector<Token>* out) const {
    if (unknown_) out->push_back(*unknown_);
  }

  const Vocabulary& vocabulary_;
  const WordPieceOptions options_;
  const std::optional<Token> unknown_;
  size_t longest_ = 0;  // bytes of a piece
};

class WordLevel final : public TokenModel {
 public:
  WordLevel(const Vocabulary& vocabulary, const std::string& unknown)
      : vocabulary_(vocabulary), unknown_(vocabulary.Find(unknown)) {}
  void Encode(std::string_view word, Workspace*, std::vector<Token>* out) const override {
    const std::optional<Token> known = vocabulary_.FindPlain(word);
    if (known || unknown_) out->push_back(known ? *known : *unknown_);
  }

 private:
  const Vocabulary& vocabulary_;
  const std::optional<Token> unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> MakeWordPiece(const Vocabulary& vocabulary,
                                          const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(vocabulary, options);
}

std::unique_ptr<TokenModel> MakeWordLevel(const Vocabulary& vocabulary,
                                          const std::string& unknown) {
  return std::make_unique<WordLevel>(vocabulary, unknown);
}

}  // namespace fairlead
