// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "kernels/strings.h"
#include "models/detokenizer.h"
#include "models/score_bpe.h"
#include "models/unigram_lattice.h"
#include "models/vocabulary.h"

namespace fairlead {
namespace {

using Segmented = UnigramLattice::Segment;

absl::Status Refuse(size_t id, std::string_view why) {
  return absl::InvalidArgumentError(StrCat("vocabulary: token ", id, " ", why));
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  absl::Status Init(SentencePieceParts parts);

  std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                            const EncodeOptions& options) const override;
  std::string Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const override;

  std::unique_ptr<TextStream> NewStream(bool skip_special_tokens) const override;
  std::string_view Bytes(Token token) const override {
    return Has(token) ? slot_[token].bytes : std::string_view();
  }
  std::string_view Spelling(Token token) const override {
    return Has(token) ? slot_[token].spelling : std::string_view();
  }
  bool IsSpecial(Token token) const override { return Has(token) && slot_[token].special; }
  int vocab_size() const override { return static_cast<int>(slot_.size()); }
  std::optional<Token> bos() const override { return bos_; }
  absl::Span<const Token> stop_tokens() const override { return stop_; }
  size_t MinTokens(std::string_view text) const override;

 private:
  class Stream;
  struct Slot {
    std::string_view spelling;
    std::string_view bytes;
    PieceType type = PieceType::kNormal;
    bool special = false;
  };

  bool Has(Token token) const { return token >= 0 && static_cast<size_t>(token) < slot_.size(); }
  std::string_view Keep(std::string text) { return text_.emplace_back(std::move(text)); }
  absl::Status AddPieces(const SentencePieceParts& parts);
  absl::Status BuildModel(const SentencePieceParts& parts);
  absl::Status AddTokens(const std::vector<AddedToken>& added);
  void EncodeStretch(std::string_view text, bool add_dummy, const std::atomic<bool>* cancelled,
                     std::vector<Token>* out) const;

  std::deque<std::string> text_;  // what slots point to
  std::vector<Slot> slot_;        // by id
  std::variant<UnigramLattice, ScoreBpe> model_;
  SentencePieceNormalizer normalizer_;
  bool dummy_prefix_at_start_only_ = false;
  bool byte_fallback_ = false;
  std::optional<Token> unknown_;
  std::array<Token, 256> byte_;
  AddedTokenMatcher added_;
  size_t max_bytes_per_token_ = 0;  // 0: text can vanish
  PostProcessor post_processor_;
  std::optional<Token> bos_;
  std::vector<Token> stop_;
};

absl::Status SentencePieceTokenizer::Init(SentencePieceParts parts) {
  // Text is no special token by its letters, whatever the piece's type is.
  for (const AddedToken& added : parts.added) {
    if (!added.special || added.id < 0 || static_cast<size_t>(added.id) >= parts.piece.size())
      continue;
    PieceType& type = parts.piece[added.id].type;
    if (type == PieceType::kNormal || type == PieceType::kUserDefined || type == PieceType::kUnused)
      type = PieceType::kControl;
  }
  if (absl::Status status = AddPieces(parts); !status.ok()) return status;
  if (absl::Status status = BuildModel(parts); !status.ok()) return status;
  normalizer_ = std::move(parts.normalizer);
  std::vector<ByteTrie::Entry> user_defined;
  for (const SentencePieceParts::Piece& piece : parts.piece) {
    if (piece.type == PieceType::kUserDefined) user_defined.push_back({piece.text, 0});
  }
  normalizer_.user_defined = ByteTrie(user_defined);
  dummy_prefix_at_start_only_ = parts.dummy_prefix_at_start_only;
  // Text vanishes where it is cleaned, and where unknown characters in a row are one token.
  if (!normalizer_.remove_extra_whitespaces && normalizer_.charsmap.empty() && byte_fallback_) {
    for (const Slot& slot : slot_)
      max_bytes_per_token_ = std::max(max_bytes_per_token_, slot.spelling.size());
  }
  if (absl::Status status = AddTokens(parts.added); !status.ok()) return status;
  post_processor_ = std::move(parts.post_processor);
  bos_ = parts.bos;
  stop_ = std::move(parts.stop);
  std::sort(stop_.begin(), stop_.end());
  stop_.erase(std::unique(stop_.begin(), stop_.end()), stop_.end());
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::AddPieces(const SentencePieceParts& parts) {
  if (parts.piece.empty() || parts.piece.size() > Vocabulary::kMaxTokens) {
    return absl::InvalidArgumentError(StrCat("vocabulary: ", parts.piece.size(), " tokens; 1 to ",
                                             Vocabulary::kMaxTokens, " are allowed"));
  }
  slot_.reserve(parts.piece.size());
  byte_.fill(-1);
  for (size_t id = 0; id < parts.piece.size(); ++id) {
    const SentencePieceParts::Piece& piece = parts.piece[id];
    if (!IsValidUtf8(piece.text)) return Refuse(id, "is not valid UTF-8");
    Slot slot;
    slot.spelling = slot.bytes = Keep(std::string(piece.text));
    slot.type = piece.type;
    if (piece.type == PieceType::kByte) {
      const std::optional<unsigned char> byte = SpelledByte(piece.text);
      if (!byte) return Refuse(id, "is a byte, but not one of <0x00>..<0xFF>");
      byte_[*byte] = static_cast<Token>(id);
      slot.bytes = Keep(std::string(1, static_cast<char>(*byte)));
    } else if (piece.type == PieceType::kUnknown) {
      if (unknown_) return Refuse(id, StrCat("is unknown, as is token ", *unknown_));
      unknown_ = static_cast<Token>(id);
      slot.bytes = Keep(parts.unknown_surface);
    } else if (piece.text.find(kSpaceSymbol) != std::string_view::npos) {
      slot.bytes = Keep(absl::StrReplaceAll(AbslView(piece.text), {{AbslView(kSpaceSymbol), " "}}));
    }
    slot.special = piece.type == PieceType::kControl;
    slot_.push_back(slot);
  }
  byte_fallback_ = parts.byte_fallback;
  const bool all_bytes = std::find(byte_.begin(), byte_.end(), -1) == byte_.end();
  if (byte_fallback_ && !all_bytes)
    return absl::InvalidArgumentError("vocabulary: byte_fallback without all of <0x00>..<0xFF>");
  if (!unknown_ && !byte_fallback_)
    return absl::InvalidArgumentError("vocabulary: there is no unknown token");
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::BuildModel(const SentencePieceParts& parts) {
  using Piece = SentencePieceParts::Piece;
  const auto from_text = [](const Piece& piece) {
    return piece.type == PieceType::kNormal || piece.type == PieceType::kUserDefined ||
           piece.type == PieceType::kUnused;
  };
  if (parts.model != SegmentationModel::kUnigram) {
    std::vector<ScoreBpe::Piece> pieces;
    for (size_t id = 0; id < parts.piece.size(); ++id) {
      const Piece& piece = parts.piece[id];
      if (!from_text(piece) || piece.text.empty()) continue;
      pieces.push_back({.text = piece.text,
                        .id = static_cast<Token>(id),
                        .score = piece.score,
                        .whole = piece.type == PieceType::kUserDefined,
                        .unused = piece.type == PieceType::kUnused});
    }
    absl::StatusOr<ScoreBpe> bpe = ScoreBpe::Create(pieces, parts.model == SegmentationModel::kBpe);
    if (!bpe.ok()) return bpe.status();
    model_ = *std::move(bpe);
    return absl::OkStatus();
  }
  float lowest = std::numeric_limits<float>::max();  // of the normal pieces, as in the reference
  for (const Piece& piece : parts.piece) {
    if (piece.type == PieceType::kNormal) lowest = std::min(lowest, piece.score);
  }
  std::vector<UnigramLattice::Piece> pieces;
  for (size_t id = 0; id < parts.piece.size(); ++id) {
    const Piece& piece = parts.piece[id];
    if (!from_text(piece) || piece.type == PieceType::kUnused) continue;
    // Of a user-defined piece sentencepiece 0.2.3 asks no score; longer ones are better.
    const float score = piece.type == PieceType::kUserDefined
                            ? 0.1f * static_cast<float>(piece.text.size()) - 0.1f
                            : piece.score;
    pieces.push_back({.text = piece.text, .id = static_cast<Token>(id), .score = score});
  }
  const float unknown_score = lowest - static_cast<float>(UnigramLattice::kUnknownPenalty);
  absl::StatusOr<UnigramLattice> lattice =
      UnigramLattice::Create(pieces, {.unknown_score = unknown_score, .single_precision = true});
  if (!lattice.ok()) return lattice.status();
  model_ = *std::move(lattice);
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::AddTokens(const std::vector<AddedToken>& added) {
  for (const AddedToken& token : added) {
    if (!IsValidUtf8(token.text))
      return Refuse(static_cast<size_t>(token.id), "is not valid UTF-8");
    if (token.id < 0 || token.id >= Vocabulary::kMaxTokens) {
      return absl::InvalidArgumentError(
          StrCat("added token ", token.id, ": ids are from 0 to ", Vocabulary::kMaxTokens - 1));
    }
    if (absl::Status status = added_.Add(token, token.text); !status.ok()) return status;
    if (!Has(token.id)) slot_.resize(static_cast<size_t>(token.id) + 1);
    Slot& slot = slot_[token.id];
    if (slot.spelling != token.text) slot.spelling = slot.bytes = Keep(token.text);
    // A control piece spells itself; an unknown one that text can name too.
    if (slot.type == PieceType::kUnknown && token.special) slot.bytes = slot.spelling;
    slot.special = token.special;
    if (max_bytes_per_token_ > 0)
      max_bytes_per_token_ = std::max(max_bytes_per_token_, token.text.size());
    if (token.lstrip || token.rstrip) max_bytes_per_token_ = 0;
  }
  return absl::OkStatus();
}

size_t SentencePieceTokenizer::MinTokens(std::string_view text) const {
  return max_bytes_per_token_ == 0 ? 0 : text.size() / max_bytes_per_token_;
}

std::vector<Token> SentencePieceTokenizer::Encode(absl::Span<const TextPiece> pieces,
                                                  const EncodeOptions& options) const {
  const JoinedText joined = JoinPieces(pieces, options.parse_special);
  const std::string& text = joined.text;
  const TrustedSpans& trusted = joined.trusted;
  std::vector<Segment> segment;
  added_.Split(text, trusted, &segment);
  std::vector<Token> out;
  for (const Segment& s : segment) {
    if (options.enough_tokens > 0 && out.size() > options.enough_tokens) break;
    if (options.cancelled != nullptr && *options.cancelled) break;
    if (s.token) {
      out.push_back(*s.token);
    } else {
      EncodeStretch(std::string_view(text).substr(s.span.begin, s.span.size()),
                    s.span.begin == 0 || !dummy_prefix_at_start_only_, options.cancelled, &out);
    }
  }
  return post_processor_.Apply(std::move(out), options.add_special_tokens);
}

void SentencePieceTokenizer::EncodeStretch(std::string_view text, bool add_dummy,
                                           const std::atomic<bool>* cancelled,
                                           std::vector<Token>* out) const {
  const std::string normalized = normalizer_.Normalize(text, add_dummy);
  std::vector<Segmented> segment;
  std::visit([&](const auto& model) { model.Cut(normalized, cancelled, &segment); }, model_);
  bool after_unknown = false;
  for (const Segmented& s : segment) {
    const bool unknown = s.id == UnigramLattice::kUnknown;
    if (!unknown) {
      out->push_back(s.id);
    } else if (byte_fallback_) {
      for (size_t i = s.begin; i < s.end; ++i)
        out->push_back(byte_[static_cast<unsigned char>(normalized[i])]);
    } else if (!after_unknown) {
      out->push_back(*unknown_);
    }
    after_unknown = unknown;
  }
}

// sentencepiece's decode: bytes in a row are read as UTF-8, what is no character becomes U+FFFD
// byte by byte; a space that the first text starts with is the dummy prefix, or was cleaned away.
class SentencePieceTokenizer::Stream : public TextStream {
 public:
  Stream(const SentencePieceTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string Push(Token token) override {
    std::string out;
    if (!tokenizer_.Has(token) || (skip_special_tokens_ && tokenizer_.IsSpecial(token))) return out;
    const Slot& slot = tokenizer_.slot_[token];
    if (slot.type == PieceType::kByte) {
      bytes_.append(slot.bytes);
      TakeCharacters(false, &out);
    } else {
      TakeCharacters(true, &out);
      AppendPiece(slot, has_text_ || !out.empty(), &out);
    }
    has_text_ |= !out.empty();
    return out;
  }

  std::string Finish() override {
    std::string out;
    TakeCharacters(true, &out);
    return out;
  }
  std::string Held() const override { return bytes_; }

 private:
  // Moves what is certain of the bytes to `out`; all of it if no more bytes can follow.
  void TakeCharacters(bool ended, std::string* out) {
    size_t done = 0;
    while (done < bytes_.size()) {
      const std::string_view rest = std::string_view(bytes_).substr(done);
      const size_t length = CharacterLength(rest);
      if (length == 0 && !ended && CompleteUtf8Prefix(rest) == 0) break;
      out->append(length > 0 ? rest.substr(0, length) : kReplacement);
      done += std::max<size_t>(length, 1);
    }
    bytes_.erase(0, done);
  }

  void AppendPiece(const Slot& slot, bool behind_text, std::string* out) {
    const SentencePieceNormalizer& normalizer = tokenizer_.normalizer_;
    const bool at_start = !took_space_ && !behind_text;
    std::string_view text = slot.bytes;
    if (at_start && slot.spelling.starts_with(kSpaceSymbol) && text.starts_with(' ') &&
        (normalizer.add_dummy_prefix || normalizer.remove_extra_whitespaces)) {
      text.remove_prefix(1);
      // Where spaces are cleaned, all that come first are.
      took_space_ = !normalizer.remove_extra_whitespaces;
    }
    out->append(text);
  }

  static constexpr std::string_view kReplacement = "\uFFFD";
  const SentencePieceTokenizer& tokenizer_;
  const bool skip_special_tokens_;
  std::string bytes_;  // of byte pieces: at most 3, the start of a character
  bool has_text_ = false;
  bool took_space_ = false;
};

std::unique_ptr<TextStream> SentencePieceTokenizer::NewStream(bool skip_special_tokens) const {
  return std::make_unique<Stream>(*this, skip_special_tokens);
}

std::string SentencePieceTokenizer::Decode(absl::Span<const Token> tokens,
                                           bool skip_special_tokens) const {
  Stream stream(*this, skip_special_tokens);
  std::string out;
  for (const Token token : tokens) out += stream.Push(token);
  return out += stream.Finish();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(SentencePieceParts parts) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>();
  absl::Status status = tokenizer->Init(std::move(parts));
  if (!status.ok()) return status;
  return tokenizer;
}

}  // namespace fairlead
