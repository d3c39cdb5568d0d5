// SPDX-License-Identifier: Apache-2.0
#include "models/token_decoder_steps.h"

#include <algorithm>
#include <array>
#include <utility>

#include "models/byte_level.h"
#include "models/detokenizer.h"
#include "models/unicode.h"

namespace fairlead {
namespace {

using Sink = TokenDecoder::Sink;
using Step = TokenDecoder::Step;

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at; (at = text.find(from, done)) != std::string_view::npos; done = at + from.size()) {
    out.append(text.substr(done, at - done));
    out.append(to);
  }
  out.append(text.substr(done));
  return out;
}

class PassingState : public Sink {
 public:
  explicit PassingState(Sink* next) : next_(next) {}
  void Text(std::string_view text) override { next_->Text(text); }
  void EndToken() override { next_->EndToken(); }
  void Finish() override { next_->Finish(); }

 protected:
  void Emit(std::string_view token) {
    next_->Text(token);
    next_->EndToken();
  }
  Sink* const next_;
};

// Sees whole tokens.
class TokenState : public PassingState {
 public:
  using PassingState::PassingState;
  void Text(std::string_view text) final { token_.append(text); }
  void EndToken() final {
    Take(token_);
    token_.clear();
  }
  void AppendHeld(std::string* out) const final {
    AppendHeldTokens(out);
    out->append(token_);
  }

 protected:
  // Of tokens that have ended.
  virtual void AppendHeldTokens(std::string*) const {}
  virtual void Take(const std::string& token) = 0;

 private:
  std::string token_;
};

// ---- ByteLevel: one token of the bytes of all

class ByteLevelState final : public TokenState {
 public:
  using TokenState::TokenState;
  void Take(const std::string& token) override {
    AppendByteLevelDecoded(token, &bytes_);
    const size_t complete = CompleteUtf8Prefix(bytes_);
    next_->Text(ReplaceInvalidUtf8(std::string_view(bytes_).substr(0, complete)));
    bytes_.erase(0, complete);
  }
  void Finish() override {
    Emit(ReplaceInvalidUtf8(bytes_));
    next_->Finish();
  }
  void AppendHeldTokens(std::string* out) const override { out->append(bytes_); }

 private:
  std::string bytes_;  // between tokens at most 3: the start of one character
};

class ByteLevelStep final : public Step {
 public:
  std::unique_ptr<Sink> NewState(Sink* next) const override {
    return std::make_unique<ByteLevelState>(next);
  }
  std::string Running(std::string token) const override {
    std::string bytes;
    AppendByteLevelDecoded(token, &bytes);
    return bytes;
  }
  bool fuses() const override { return true; }
  bool is_byte_level() const override { return true; }
};

// ---- ByteFallback: tokens <0x00> .. <0xFF> are bytes

std::optional<char> FallbackByte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

// Whether bytes in a row are text is known when they end.
class ByteFallbackState final : public TokenState {
 public:
  using TokenState::TokenState;
  void Take(const std::string& token) override {
    if (const std::optional<char> byte = FallbackByte(token)) {
      bytes_.push_back(*byte);
      return;
    }
    Flush();
    Emit(token);
  }
  void Finish() override {
    Flush();
    next_->Finish();
  }
  void AppendHeldTokens(std::string* out) const override { out->append(bytes_); }

 private:
  void Flush() {
    if (bytes_.empty()) return;
    if (IsValidUtf8(bytes_)) {
      Emit(bytes_);
    } else {
      for (size_t i = 0; i < bytes_.size(); ++i) Emit(kReplacementCharacter);
    }
    bytes_.clear();
  }
  std::string bytes_;
};

class ByteFallbackStep final : public Step {
 public:
  std::unique_ptr<Sink> NewState(Sink* next) const override {
    return std::make_unique<ByteFallbackState>(next);
  }
  std::string Running(std::string token) const override {
    const std::optional<char> byte = FallbackByte(token);
    return byte ? std::string(1, *byte) : token;
  }
};

// ---- Metaspace

class MetaspaceStep final : public Step {
 public:
  MetaspaceStep(char32_t replacement, bool drops_first) : drops_first_(drops_first) {
    AppendUtf8(replacement, &replacement_);
  }
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override {
    return ReplaceAll(token, replacement_, " ");
  }
  bool drops_first() const { return drops_first_; }
  const std::string& replacement() const { return replacement_; }

 private:
  std::string replacement_;
  const bool drops_first_;
};

class MetaspaceState final : public TokenState {
 public:
  MetaspaceState(const MetaspaceStep& step, Sink* next) : TokenState(next), step_(step) {}
  void Take(const std::string& token) override {
    const bool drops = first_ && step_.drops_first();
    first_ = false;
    Emit(ReplaceAll(token, step_.replacement(), drops ? "" : " "));
  }

 private:
  const MetaspaceStep& step_;
  bool first_ = true;
};

std::unique_ptr<Sink> MetaspaceStep::NewState(Sink* next) const {
  return std::make_unique<MetaspaceState>(*this, next);
}

// ---- WordPiece and CTC

// What a tokenizer put between words and punctuation, in the library's order.
std::string CleanUp(std::string text) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kRules = {{
      {" .", "."},
      {" ?", "?"},
      {" !", "!"},
      {" ,", ","},
      {" ' ", "'"},
      {" n't", "n't"},
      {" 'm", "'m"},
      {" do not", " don't"},
      {" 's", "'s"},
      {" 've", "'ve"},
      {" 're", "'re"},
  }};
  for (const auto& [from, to] : kRules) text = ReplaceAll(text, from, to);
  return text;
}

class WordPieceStep final : public Step {
 public:
  WordPieceStep(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override { return Decode(std::move(token), false); }
  std::string Decode(std::string token, bool first) const {
    if (!first) token = token.starts_with(prefix_) ? token.substr(prefix_.size()) : " " + token;
    return cleanup_ ? CleanUp(std::move(token)) : token;
  }

 private:
  const std::string prefix_;
  const bool cleanup_;
};

class WordPieceState final : public TokenState {
 public:
  WordPieceState(const WordPieceStep& step, Sink* next) : TokenState(next), step_(step) {}
  void Take(const std::string& token) override {
    Emit(step_.Decode(token, first_));
    first_ = false;
  }

 private:
  const WordPieceStep& step_;
  bool first_ = true;
};

std::unique_ptr<Sink> WordPieceStep::NewState(Sink* next) const {
  return std::make_unique<WordPieceState>(*this, next);
}

class CtcStep final : public Step {
 public:
  CtcStep(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override {
    if (!pad_.empty()) token = ReplaceAll(token, pad_, "");
    if (!cleanup_) return token;
    token = CleanUp(std::move(token));
    return delimiter_.empty() ? token : ReplaceAll(token, delimiter_, " ");
  }

 private:
  const std::string pad_, delimiter_;
  const bool cleanup_;
};

class CtcState final : public TokenState {
 public:
  CtcState(const CtcStep& step, Sink* next) : TokenState(next), step_(step) {}
  void Take(const std::string& token) override {
    if (previous_ == token) return;
    previous_ = token;
    if (const std::string text = step_.Running(token); !text.empty()) Emit(text);
  }

 private:
  const CtcStep& step_;
  std::optional<std::string> previous_;
};

std::unique_ptr<Sink> CtcStep::NewState(Sink* next) const {
  return std::make_unique<CtcState>(*this, next);
}

// ---- BPEDecoder: the suffix is a space, but nothing in the last token

class BpeSuffixStep final : public Step {
 public:
  explicit BpeSuffixStep(std::string suffix) : suffix_(std::move(suffix)) {}
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override { return Decode(token, " "); }
  std::string Decode(const std::string& token, std::string_view space) const {
    return suffix_.empty() ? token : ReplaceAll(token, suffix_, space);
  }

 private:
  const std::string suffix_;
};

class BpeSuffixState final : public TokenState {
 public:
  BpeSuffixState(const BpeSuffixStep& step, Sink* next) : TokenState(next), step_(step) {}
  void Take(const std::string& token) override {
    if (held_) Emit(step_.Decode(*held_, " "));
    held_ = token;
  }
  void Finish() override {
    if (held_) Emit(step_.Decode(*held_, ""));
    next_->Finish();
  }
  void AppendHeldTokens(std::string* out) const override {
    if (held_) out->append(step_.Running(*held_));
  }

 private:
  const BpeSuffixStep& step_;
  std::optional<std::string> held_;
};

std::unique_ptr<Sink> BpeSuffixStep::NewState(Sink* next) const {
  return std::make_unique<BpeSuffixState>(*this, next);
}

// ---- Fuse, and the spaces of files without a decoder

class FuseState final : public PassingState {
 public:
  using PassingState::PassingState;
  void EndToken() override {}
  void Finish() override {
    next_->EndToken();
    next_->Finish();
  }
};

class FuseStep final : public Step {
 public:
  std::unique_ptr<Sink> NewState(Sink* next) const override {
    return std::make_unique<FuseState>(next);
  }
  std::string Running(std::string token) const override { return token; }
  bool fuses() const override { return true; }
};

class SpacesState final : public PassingState {
 public:
  using PassingState::PassingState;
  void Text(std::string_view text) override {
    if (between_) next_->Text(" ");
    between_ = false;
    next_->Text(text);
  }
  void EndToken() override { between_ = true; }

 private:
  bool between_ = false;
};

class SpacesStep final : public Step {
 public:
  std::unique_ptr<Sink> NewState(Sink* next) const override {
    return std::make_unique<SpacesState>(next);
  }
  std::string Running(std::string token) const override { return " " + token; }
};

// ---- Strip: up to so many of one character at both ends of each token

class StripStep final : public Step {
 public:
  StripStep(char32_t content, size_t start, size_t stop, bool fused)
      : start_(start), stop_(stop), fused_(fused) {
    AppendUtf8(content, &content_);
  }
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override {
    if (fused_) return token;
    size_t begin = 0, end = token.size();
    for (size_t i = 0; i < start_ && Is(token, begin, end); ++i) begin += content_.size();
    for (size_t i = 0; i < stop_ && end - begin >= content_.size(); ++i) {
      if (!Is(token, end - content_.size(), end)) break;
      end -= content_.size();
    }
    return token.substr(begin, end - begin);
  }
  bool Is(std::string_view text, size_t at, size_t end) const {
    return text.substr(at, end - at).starts_with(content_);
  }
  const std::string& content() const { return content_; }
  size_t start() const { return start_; }
  size_t stop() const { return stop_; }

 private:
  std::string content_;
  const size_t start_, stop_;
  const bool fused_;
};

class StripState final : public PassingState {
 public:
  StripState(const StripStep& step, Sink* next) : PassingState(next), step_(step) {}
  void Text(std::string_view text) override {
    const size_t length = step_.content().size();
    for (size_t pos = 0; pos < text.size();) {
      if (step_.Is(text, pos, text.size())) {
        pos += length;
        TakeContent();
        continue;
      }
      const size_t begin = pos;
      while (pos < text.size() && !step_.Is(text, pos, text.size())) DecodeUtf8(text, &pos);
      at_start_ = false;
      Release();
      next_->Text(text.substr(begin, pos - begin));
    }
  }
  void EndToken() override {
    next_->EndToken();
    at_start_ = true;
    stripped_ = held_ = 0;
  }
  void AppendHeld(std::string* out) const override {
    for (size_t i = 0; i < held_; ++i) out->append(step_.content());
  }

 private:
  void TakeContent() {
    if (at_start_ && stripped_ < step_.start()) {
      ++stripped_;
      return;
    }
    at_start_ = false;
    if (held_ < step_.stop()) {
      ++held_;
    } else {
      next_->Text(step_.content());
    }
  }
  void Release() {
    for (; held_ > 0; --held_) next_->Text(step_.content());
  }

  const StripStep& step_;
  bool at_start_ = true;
  size_t stripped_ = 0;
  size_t held_ = 0;  // at the end, of which stop() would go
};

std::unique_ptr<Sink> StripStep::NewState(Sink* next) const {
  return std::make_unique<StripState>(*this, next);
}

// ---- Replace

class ReplaceStep final : public Step {
 public:
  ReplaceStep(std::string literal, std::string content)
      : literal_(std::move(literal)), content_(std::move(content)) {}
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override {
    return ReplaceAll(token, literal_, content_);
  }
  double growth() const override {
    return std::max(1.0,
                    static_cast<double>(content_.size()) / static_cast<double>(literal_.size()));
  }
  const std::string& literal() const { return literal_; }
  const std::string& content() const { return content_; }

 private:
  const std::string literal_, content_;
};

// Holds back what may be the start of the literal.
class ReplaceState final : public PassingState {
 public:
  ReplaceState(const ReplaceStep& step, Sink* next) : PassingState(next), step_(step) {}
  void Text(std::string_view text) override {
    held_.append(text);
    const std::string& literal = step_.literal();
    size_t done = 0;
    for (size_t at; (at = held_.find(literal, done)) != std::string::npos;
         done = at + literal.size()) {
      next_->Text(std::string_view(held_).substr(done, at - done));
      next_->Text(step_.content());
    }
    size_t keep = std::min(literal.size() - 1, held_.size() - done);
    while (keep > 0 && !literal.starts_with(std::string_view(held_).substr(held_.size() - keep)))
      --keep;
    next_->Text(std::string_view(held_).substr(done, held_.size() - keep - done));
    held_.erase(0, held_.size() - keep);
  }
  void EndToken() override {
    Emit(held_);
    held_.clear();
  }
  void AppendHeld(std::string* out) const override { out->append(held_); }

 private:
  const ReplaceStep& step_;
  std::string held_;
};

std::unique_ptr<Sink> ReplaceStep::NewState(Sink* next) const {
  return std::make_unique<ReplaceState>(*this, next);
}

class RegexReplaceStep final : public Step {
 public:
  RegexReplaceStep(Regex regex, std::string content)
      : regex_(std::move(regex)), content_(std::move(content)) {}
  double growth() const override { return 1 + static_cast<double>(content_.size()); }
  std::unique_ptr<Sink> NewState(Sink* next) const override;
  std::string Running(std::string token) const override {
    if (!IsValidUtf8(token)) return token;
    std::vector<TextSpan> match;
    Regex::Search(regex_, token.size()).FindAll(token, &match);
    std::string out;
    size_t done = 0;
    for (const TextSpan& m : match) {
      out.append(token, done, m.begin - done);
      out.append(content_);
      done = m.end;
    }
    return out.append(token, done);
  }

 private:
  const Regex regex_;
  const std::string content_;
};

class RegexReplaceState final : public TokenState {
 public:
  RegexReplaceState(const RegexReplaceStep& step, Sink* next) : TokenState(next), step_(step) {}
  void Take(const std::string& token) override { Emit(step_.Running(token)); }

 private:
  const RegexReplaceStep& step_;
};

std::unique_ptr<Sink> RegexReplaceStep::NewState(Sink* next) const {
  return std::make_unique<RegexReplaceState>(*this, next);
}

}  // namespace

std::unique_ptr<Step> MakeByteLevelDecoder() { return std::make_unique<ByteLevelStep>(); }
std::unique_ptr<Step> MakeByteFallbackDecoder() { return std::make_unique<ByteFallbackStep>(); }
std::unique_ptr<Step> MakeMetaspaceDecoder(char32_t replacement, bool drops_first) {
  return std::make_unique<MetaspaceStep>(replacement, drops_first);
}
std::unique_ptr<Step> MakeWordPieceDecoder(std::string prefix, bool cleanup) {
  return std::make_unique<WordPieceStep>(std::move(prefix), cleanup);
}
std::unique_ptr<Step> MakeBpeSuffixDecoder(std::string suffix) {
  return std::make_unique<BpeSuffixStep>(std::move(suffix));
}
std::unique_ptr<Step> MakeCtcDecoder(std::string pad, std::string word_delimiter, bool cleanup) {
  return std::make_unique<CtcStep>(std::move(pad), std::move(word_delimiter), cleanup);
}
std::unique_ptr<Step> MakeFuseDecoder() { return std::make_unique<FuseStep>(); }
std::unique_ptr<Step> MakeStripDecoder(char32_t content, size_t start, size_t stop, bool fused) {
  return std::make_unique<StripStep>(content, start, stop, fused);
}
std::unique_ptr<Step> MakeReplaceDecoder(std::string literal, std::string content) {
  return std::make_unique<ReplaceStep>(std::move(literal), std::move(content));
}
std::unique_ptr<Step> MakeRegexReplaceDecoder(Regex regex, std::string content) {
  return std::make_unique<RegexReplaceStep>(std::move(regex), std::move(content));
}
std::unique_ptr<Step> MakeSpacesDecoder() { return std::make_unique<SpacesStep>(); }

}  // namespace fairlead
