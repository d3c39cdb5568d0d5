// SPDX-License-Identifier: Apache-2.0
#include "models/wordpiece.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/strings/escaping.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

class WordPiece final : public TokenModel {
 public:
  WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options, Token unknown)
      : vocabulary_(vocabulary), options_(options), unknown_(unknown) {
    for (Token token = 0; token < vocabulary.end(); ++token)
      longest_ = std::max(longest_, vocabulary.Spelling(token).size());
  }

  void Encode(std::string_view word, Workspace* workspace, std::vector<Token>* out) const override {
    const auto characters =
        std::count_if(word.begin(), word.end(), [](char byte) { return !IsContinuation(byte); });
    if (characters > options_.max_characters) return out->push_back(unknown_);
    const size_t before = out->size();
    std::string piece;
    for (size_t begin = 0; begin < word.size();) {
      if (workspace->IsCancelled()) return;
      const size_t end = FindLongest(word, begin, &piece, out);
      if (end == begin) {
        out->resize(before);
        return out->push_back(unknown_);
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

  const Vocabulary& vocabulary_;
  const WordPieceOptions options_;
  const Token unknown_;
  size_t longest_ = 0;  // bytes of a piece
};

class WordLevel final : public TokenModel {
 public:
  WordLevel(const Vocabulary& vocabulary, Token unknown)
      : vocabulary_(vocabulary), unknown_(unknown) {}
  void Encode(std::string_view word, Workspace*, std::vector<Token>* out) const override {
    out->push_back(vocabulary_.FindPlain(word).value_or(unknown_));
  }

 private:
  const Vocabulary& vocabulary_;
  const Token unknown_;
};

absl::StatusOr<Token> FindUnknown(const Vocabulary& vocabulary, const std::string& text) {
  if (const std::optional<Token> id = vocabulary.Find(text)) return *id;
  return absl::InvalidArgumentError(
      StrCat("model.unk_token \"", absl::CHexEscape(text), "\" is not in the vocabulary"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordPiece(const Vocabulary& vocabulary,
                                                          const WordPieceOptions& options) {
  const absl::StatusOr<Token> unknown = FindUnknown(vocabulary, options.unknown);
  if (!unknown.ok()) return unknown.status();
  return std::make_unique<WordPiece>(vocabulary, options, *unknown);
}

absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordLevel(const Vocabulary& vocabulary,
                                                          const std::string& unknown) {
  const absl::StatusOr<Token> id = FindUnknown(vocabulary, unknown);
  if (!id.ok()) return id.status();
  return std::make_unique<WordLevel>(vocabulary, *id);
}

}  // namespace fairlead
