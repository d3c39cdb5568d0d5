// SPDX-License-Identifier: Apache-2.0
#include "models/pipeline_tokenizer.h"

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

class PipelineTokenizer final : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerParts parts) {
    auto tokenizer = std::make_unique<PipelineTokenizer>();
    absl::Status status = tokenizer->Init(std::move(parts));
    if (!status.ok()) return status;
    return tokenizer;
  }

  std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                            const EncodeOptions& options) const override;
  std::string Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const override;
  std::unique_ptr<TextStream> NewStream(bool skip_special_tokens) const override;

  std::string_view Bytes(Token token) const override { return vocabulary_->Bytes(token); }
  std::string_view Spelling(Token token) const override { return vocabulary_->Spelling(token); }
  bool IsSpecial(Token token) const override { return vocabulary_->IsSpecial(token); }
  int vocab_size() const override { return vocabulary_->end(); }
  std::optional<Token> bos() const override { return bos_; }
  absl::Span<const Token> stop_tokens() const override { return stop_; }
  size_t MinTokens(std::string_view text) const override;

 private:
  absl::Status Init(TokenizerParts parts);
  absl::Status AddTokens(std::vector<AddedToken> added);
  std::optional<Token> Resolve(const TokenName& name) const;
  std::optional<Token> FindText(std::string_view text) const;

  void FindBytesPerToken();

  // A part of the input without added tokens in it, as it stands in the input.
  // at_start: it is where the input begins.
  void EncodeText(std::string_view text, const TrustedSpans& trusted, bool at_start, size_t enough,
                  TokenModel::Workspace* workspace, std::vector<Token>* out) const;
  void EncodeWords(std::string_view text, bool at_start, size_t enough,
                   TokenModel::Workspace* workspace, std::vector<Token>* out) const;

  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<TokenModel> model_;
  absl::flat_hash_map<std::string, Token> added_id_;
  AddedTokenMatcher plain_;       // matched in the text as it comes
  AddedTokenMatcher normalized_;  // matched in normalized text
  std::unique_ptr<Normalizer> normalizer_;
  bool nfc_ = false;     // the normalizer's all
  bool strips_ = false;  // an added token takes white space along
  size_t longest_ = 0;   // bytes of the longest token
  std::array<bool, 256> has_token_ = {};
  size_t max_bytes_per_token_ = 0;  // 0: text can vanish
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  TokenDecoder decoder_ = TokenDecoder::ByteLevel();
  std::optional<Token> bos_;
  std::vector<Token> stop_;
};

absl::Status PipelineTokenizer::Init(TokenizerParts parts) {
  decoder_ = std::move(parts.decoder);
  absl::StatusOr<std::unique_ptr<Vocabulary>> vocabulary = Vocabulary::Create(
      parts.vocabulary, [this](std::string_view spelling) { return decoder_.Running(spelling); },
      parts.vocabulary_repeats);
  if (!vocabulary.ok()) return vocabulary.status();
  vocabulary_ = *std::move(vocabulary);
  normalizer_ = std::move(parts.normalizer);
  nfc_ = normalizer_ != nullptr && normalizer_->is_nfc();
  // Before added tokens take ids of the model's: merges still make those.
  for (Token token = 0; token < vocabulary_->end(); ++token) {
    longest_ = std::max(longest_, vocabulary_->Bytes(token).size());
  }
  absl::Status status = AddTokens(std::move(parts.added));
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<TokenModel>> model = parts.make_model(*vocabulary_);
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  pre_tokenizer_ = std::move(parts.pre_tokenizer);
  post_processor_ = std::move(parts.post_processor);
  for (const Token token : post_processor_.Apply({}, /*add_special_tokens=*/true)) {
    if (token >= 0 && token < vocabulary_->end()) continue;
    return absl::InvalidArgumentError(StrCat("the post-processor adds token ", token,
                                             "; the vocabulary ends at ", vocabulary_->end() - 1));
  }
  if (parts.bos) bos_ = Resolve(*parts.bos);
  for (const TokenName& name : parts.stop) {
    if (const std::optional<Token> id = Resolve(name)) stop_.push_back(*id);
  }
  std::sort(stop_.begin(), stop_.end());
  stop_.erase(std::unique(stop_.begin(), stop_.end()), stop_.end());
  FindBytesPerToken();
  return absl::OkStatus();
}

// Text can vanish: bytes without a token, what a normalizer or a splitter drops, white space beside
// an added token.
void PipelineTokenizer::FindBytesPerToken() {
  if (strips_ || (normalizer_ != nullptr && !nfc_) || !pre_tokenizer_.keeps_all() ||
      !decoder_.is_byte_level() || !model_->keeps_all()) {
    return;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    std::string spelling;
    AppendByteLevel({&text, 1}, &spelling);
    has_token_[byte] = vocabulary_->Find(spelling).has_value();
  }
  max_bytes_per_token_ = longest_;
}

size_t PipelineTokenizer::MinTokens(std::string_view text) const {
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

absl::Status PipelineTokenizer::AddTokens(std::vector<AddedToken> added) {
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
    const std::string text =
        token.normalized && normalizer_ != nullptr ? normalizer_->Apply(token.text) : token.text;
    AddedTokenMatcher& matcher = token.normalized ? normalized_ : plain_;
    // Normalizers may make nothing of a token, or the same of two: the first one is found.
    const bool is_lost = token.normalized && (text.empty() || matcher.Has(text));
    if (!is_lost) {
      if (absl::Status status = matcher.Add(token, text); !status.ok()) return status;
    }
    vocabulary_->SetAdded(token.id, text, token.special);
    longest_ = std::max({longest_, token.text.size(), text.size()});
  }
  return absl::OkStatus();
}

std::optional<Token> PipelineTokenizer::FindText(std::string_view text) const {
  const auto added = added_id_.find(AbslView(text));
  return added != added_id_.end() ? std::optional<Token>(added->second) : vocabulary_->Find(text);
}

std::optional<Token> PipelineTokenizer::Resolve(const TokenName& name) const {
  return name.id ? name.id : FindText(name.text);
}

std::vector<Token> PipelineTokenizer::Encode(absl::Span<const TextPiece> pieces,
                                             const EncodeOptions& options) const {
  const JoinedText joined = JoinPieces(pieces, options.parse_special);
  const std::string& text = joined.text;
  const TrustedSpans& trusted = joined.trusted;
  std::vector<Segment> segment;
  plain_.Split(text, trusted, &segment);
  std::vector<Token> out;
  const std::unique_ptr<TokenModel::Workspace> workspace = model_->NewWorkspace();
  workspace->cancelled = options.cancelled;
  const size_t enough =
      options.enough_tokens > 0 ? options.enough_tokens : std::numeric_limits<size_t>::max();
  for (const Segment& s : segment) {
    if (out.size() > enough || workspace->IsCancelled()) break;
    if (s.token) {
      out.push_back(*s.token);
    } else {
      EncodeText(std::string_view(text).substr(s.span.begin, s.span.size()),
                 trusted.Slice(s.span.begin, s.span.end), s.span.begin == 0, enough,
                 workspace.get(), &out);
    }
  }
  return post_processor_.Apply(std::move(out), options.add_special_tokens);
}

void PipelineTokenizer::EncodeText(std::string_view text, const TrustedSpans& trusted,
                                   bool at_start, size_t enough, TokenModel::Workspace* workspace,
                                   std::vector<Token>* out) const {
  std::string normalized;
  TrustedSpans spans = trusted;
  if (normalizer_ != nullptr) {
    normalized = normalizer_->Apply(text, &spans);
    text = normalized;
  }
  std::vector<Segment> segment;
  normalized_.Split(text, spans, &segment);
  for (const Segment& s : segment) {
    if (out->size() > enough || workspace->IsCancelled()) return;
    if (s.token) {
      out->push_back(*s.token);
    } else {
      EncodeWords(text.substr(s.span.begin, s.span.size()), at_start && s.span.begin == 0, enough,
                  workspace, out);
    }
  }
}

void PipelineTokenizer::EncodeWords(std::string_view text, bool at_start, size_t enough,
                                    TokenModel::Workspace* workspace,
                                    std::vector<Token>* out) const {
  const Words words = pre_tokenizer_.Split(text, at_start);
  for (size_t i = 0; i < words.span.size() && out->size() <= enough; ++i) {
    if (workspace->IsCancelled()) return;
    model_->Encode(words.word(i), workspace, out);
  }
}

class PipelineStream final : public TextStream {
 public:
  PipelineStream(const Vocabulary& vocabulary, const TokenDecoder& decoder,
                 bool skip_special_tokens)
      : vocabulary_(vocabulary), decoded_(decoder), skip_special_tokens_(skip_special_tokens) {}

  std::string Push(Token token) override {
    std::string text;
    Push(token, &text);
    return text;
  }
  void Push(Token token, std::string* out) {
    if (!vocabulary_.Has(token) || (skip_special_tokens_ && vocabulary_.IsSpecial(token))) return;
    decoded_.Push(vocabulary_.Spelling(token), out);
  }
  std::string Finish() override {
    std::string text;
    decoded_.Finish(&text);
    return text;
  }
  std::string Held() const override { return decoded_.Held(); }

 private:
  const Vocabulary& vocabulary_;
  TokenDecoder::Stream decoded_;
  const bool skip_special_tokens_;
};

std::unique_ptr<TextStream> PipelineTokenizer::NewStream(bool skip_special_tokens) const {
  return std::make_unique<PipelineStream>(*vocabulary_, decoder_, skip_special_tokens);
}

std::string PipelineTokenizer::Decode(absl::Span<const Token> tokens,
                                      bool skip_special_tokens) const {
  PipelineStream stream(*vocabulary_, decoder_, skip_special_tokens);
  std::string text;
  for (const Token token : tokens) stream.Push(token, &text);
  return text += stream.Finish();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts) {
  return PipelineTokenizer::Create(std::move(parts));
}

}  // namespace fairlead
