// SPDX-License-Identifier: Apache-2.0
#include "models/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/byte_level.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

class BpeTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(BpeTokenizerParts parts) {
    if (!parts.pre_tokenizer.byte_level()) {
      return absl::UnimplementedError(
          "pre_tokenizer: BPE without a ByteLevel step; known: byte-level BPE");
    }
    auto tokenizer = std::make_unique<BpeTokenizer>();
    absl::Status status = tokenizer->Init(std::move(parts));
    if (!status.ok()) return status;
    return tokenizer;
  }

  std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                            const EncodeOptions& options) const override;
  std::string Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const override;

  std::string_view Bytes(Token token) const override { return vocabulary_->Bytes(token); }
  std::string_view Spelling(Token token) const override { return vocabulary_->Spelling(token); }
  bool IsSpecial(Token token) const override {
    return token >= 0 && static_cast<size_t>(token) < special_.size() && special_[token];
  }
  int vocab_size() const override { return vocabulary_->end(); }
  std::optional<Token> bos() const override { return bos_; }
  absl::Span<const Token> stop_tokens() const override { return stop_; }
  size_t MinTokens(std::string_view text) const override;

 private:
  absl::Status Init(BpeTokenizerParts parts);
  absl::Status AddTokens(std::vector<AddedToken> added);
  std::optional<Token> Resolve(const TokenName& name) const;
  std::optional<Token> FindText(std::string_view text) const;

  void FindBytesPerToken();

  // A part of the input without added tokens in it, as it stands in the input.
  void EncodeText(std::string_view text, const TrustedSpans& trusted, size_t enough,
                  BpeModel::Workspace* workspace, std::vector<Token>* out) const;
  void EncodeWords(std::string_view text, size_t enough, BpeModel::Workspace* workspace,
                   std::vector<Token>* out) const;
  std::string Normalize(std::string_view text, TrustedSpans* trusted) const;

  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<BpeModel> bpe_;
  absl::flat_hash_map<std::string, Token> added_id_;
  AddedTokenMatcher plain_;       // matched in the text as it comes
  AddedTokenMatcher normalized_;  // matched in normalized text
  std::vector<bool> special_;     // by id
  bool nfc_ = false;
  bool strips_ = false;  // an added token takes white space along
  size_t longest_ = 0;   // bytes of the longest token
  std::array<bool, 256> has_token_ = {};
  size_t max_bytes_per_token_ = 0;  // 0: text can vanish
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  std::optional<Token> bos_;
  std::vector<Token> stop_;
};

absl::Status BpeTokenizer::Init(BpeTokenizerParts parts) {
  absl::StatusOr<std::unique_ptr<Vocabulary>> vocabulary = Vocabulary::Create(parts.vocabulary);
  if (!vocabulary.ok()) return vocabulary.status();
  vocabulary_ = *std::move(vocabulary);
  parts.options.unknown = vocabulary_->Find(parts.unknown_text);
  absl::StatusOr<std::unique_ptr<BpeModel>> bpe =
      BpeModel::Create(*vocabulary_, parts.merges, parts.options);
  if (!bpe.ok()) return bpe.status();
  bpe_ = *std::move(bpe);
  nfc_ = parts.normalize_nfc;
  // Before added tokens take ids of the model's: merges still make those.
  for (Token token = 0; token < vocabulary_->end(); ++token) {
    longest_ = std::max(longest_, vocabulary_->Bytes(token).size());
  }
  absl::Status status = AddTokens(std::move(parts.added));
  if (!status.ok()) return status;
  pre_tokenizer_ = std::move(parts.pre_tokenizer);
  post_processor_ = std::move(parts.post_processor);
  if (parts.bos) bos_ = Resolve(*parts.bos);
  for (const TokenName& name : parts.stop) {
    if (const std::optional<Token> id = Resolve(name)) stop_.push_back(*id);
  }
  std::sort(stop_.begin(), stop_.end());
  stop_.erase(std::unique(stop_.begin(), stop_.end()), stop_.end());
  FindBytesPerToken();
  return absl::OkStatus();
}

// Text can vanish: bytes without a token, what a splitter drops, white space beside an added token.
void BpeTokenizer::FindBytesPerToken() {
  if (strips_ || !pre_tokenizer_.keeps_all()) return;
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    std::string spelling;
    AppendByteLevel({&text, 1}, &spelling);
    has_token_[byte] = vocabulary_->Find(spelling).has_value();
  }
  max_bytes_per_token_ = longest_;
}

size_t BpeTokenizer::MinTokens(std::string_view text) const {
  if (max_bytes_per_token_ == 0) return 0;
  // Normalized text is other text: only ASCII is sure to stay, but for letters that marks follow.
  const auto stays = [this](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return has_token_[byte] && (!nfc_ || byte < 0x80);
  };
  const auto bytes = static_cast<size_t>(std::count_if(text.begin(), text.end(), stays));
  const auto marks = nfc_ ? (text.size() - bytes) / 2 : 0;  // of at least two bytes each
  return (bytes - std::min(bytes, marks)) / max_bytes_per_token_;
}

absl::Status BpeTokenizer::AddTokens(std::vector<AddedToken> added) {
  // The last entry of a text counts, under the id that the first one got.
  absl::flat_hash_map<std::string, size_t> last;
  for (size_t i = 0; i < added.size(); ++i) last[added[i].text] = i;
  int64_t next_id = vocabulary_->model_tokens();
  for (size_t i = 0; i < added.size(); ++i) {
    AddedToken& token = added[i];
    if (token.text.empty()) continue;
    if (!IsValidUtf8(token.text))
      return absl::InvalidArgumentError("an added token is not valid UTF-8");
    if (!added_id_.contains(token.text)) {
      const std::optional<Token> known = vocabulary_->Find(token.text);
      if (!known && next_id >= Vocabulary::kMaxTokens)
        return absl::InvalidArgumentError("too many added tokens");
      added_id_[token.text] = known ? *known : static_cast<Token>(next_id++);
    }
    if (last[token.text] != i) continue;
    strips_ |= token.lstrip || token.rstrip;
    token.id = added_id_[token.text];
    // Without a normalizer both kinds see the same text, but those that are not normalized go
    // first.
    const std::string text = token.normalized && nfc_ ? NormalizeNfc(token.text) : token.text;
    absl::Status status = (token.normalized ? normalized_ : plain_).Add(token, text);
    if (!status.ok()) return status;
    vocabulary_->SetAdded(token.id, text);
    longest_ = std::max({longest_, token.text.size(), text.size()});
    if (static_cast<size_t>(token.id) >= special_.size()) special_.resize(token.id + 1);
    special_[token.id] = token.special;
  }
  return absl::OkStatus();
}

std::optional<Token> BpeTokenizer::FindText(std::string_view text) const {
  const auto added = added_id_.find(AbslView(text));
  return added != added_id_.end() ? std::optional<Token>(added->second) : vocabulary_->Find(text);
}

std::optional<Token> BpeTokenizer::Resolve(const TokenName& name) const {
  return name.id ? name.id : FindText(name.text);
}

std::vector<Token> BpeTokenizer::Encode(absl::Span<const TextPiece> pieces,
                                        const EncodeOptions& options) const {
  std::string text;
  TrustedSpans trusted;
  for (const TextPiece& piece : pieces) {
    const size_t begin = text.size();
    text.append(IsValidUtf8(piece.text) ? piece.text : ReplaceInvalidUtf8(piece.text));
    if (piece.trusted && options.parse_special) trusted.Add(begin, text.size());
  }
  std::vector<Segment> segment;
  plain_.Split(text, trusted, &segment);
  std::vector<Token> out;
  BpeModel::Workspace workspace;
  workspace.cancelled = options.cancelled;
  const size_t enough =
      options.enough_tokens > 0 ? options.enough_tokens : std::numeric_limits<size_t>::max();
  for (const Segment& s : segment) {
    if (out.size() > enough || workspace.IsCancelled()) break;
    if (s.token) {
      out.push_back(*s.token);
    } else {
      EncodeText(std::string_view(text).substr(s.span.begin, s.span.size()),
                 trusted.Slice(s.span.begin, s.span.end), enough, &workspace, &out);
    }
  }
  return post_processor_.Apply(std::move(out), options.add_special_tokens);
}

void BpeTokenizer::EncodeText(std::string_view text, const TrustedSpans& trusted, size_t enough,
                              BpeModel::Workspace* workspace, std::vector<Token>* out) const {
  std::string normalized;
  TrustedSpans spans = trusted;
  if (nfc_) {
    normalized = Normalize(text, &spans);
    text = normalized;
  }
  std::vector<Segment> segment;
  normalized_.Split(text, spans, &segment);
  for (const Segment& s : segment) {
    if (out->size() > enough || workspace->IsCancelled()) return;
    if (s.token) {
      out->push_back(*s.token);
    } else {
      EncodeWords(text.substr(s.span.begin, s.span.size()), enough, workspace, out);
    }
  }
}

void BpeTokenizer::EncodeWords(std::string_view text, size_t enough, BpeModel::Workspace* workspace,
                               std::vector<Token>* out) const {
  const Words words = pre_tokenizer_.Split(text);
  for (size_t i = 0; i < words.span.size() && out->size() <= enough; ++i) {
    if (workspace->IsCancelled()) return;
    bpe_->Encode(words.word(i), workspace, out);
  }
}

// NFC changes lengths, and may mix what stands on both sides of the edge of a trusted span. Each
// edge is moved into the trusted side until the text can be cut there; then the parts are
// normalized one by one, which gives the same text as all at once.
std::string BpeTokenizer::Normalize(std::string_view text, TrustedSpans* trusted) const {
  const auto can_cut = [text](size_t pos) {
    return pos >= text.size() || StartsNfcSegment(DecodeUtf8(text, &pos));
  };
  const auto next = [text](size_t pos) {
    DecodeUtf8(text, &pos);
    return pos;
  };
  const auto previous = [text](size_t pos) {
    do {
      --pos;
    } while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
    return pos;
  };
  std::string out;
  TrustedSpans moved;
  size_t done = 0;
  for (TextSpan span : trusted->spans()) {
    while (span.begin < span.end && span.begin > 0 && !can_cut(span.begin))
      span.begin = next(span.begin);
    while (span.begin < span.end && !can_cut(span.end)) span.end = previous(span.end);
    if (span.begin >= span.end) continue;
    out.append(NormalizeNfc(text.substr(done, span.begin - done)));
    const size_t begin = out.size();
    out.append(NormalizeNfc(text.substr(span.begin, span.size())));
    moved.Add(begin, out.size());
    done = span.end;
  }
  out.append(NormalizeNfc(text.substr(done)));
  *trusted = std::move(moved);
  return out;
}

std::string BpeTokenizer::Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const {
  std::string bytes;
  for (const Token token : tokens) {
    if (!skip_special_tokens || !IsSpecial(token)) bytes.append(vocabulary_->Bytes(token));
  }
  return ReplaceInvalidUtf8(bytes);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeTokenizerParts parts) {
  return BpeTokenizer::Create(std::move(parts));
}

}  // namespace fairlead
