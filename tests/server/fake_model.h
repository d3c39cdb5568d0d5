// SPDX-License-Identifier: Apache-2.0
// A tokenizer and a chat template that a test can do in its head: a token is a byte, and a chat is
// "role: content" lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/chat_template.h"
#include "models/tokenizer.h"
#include "server/generate_service.h"

namespace fairlead {

// Ids 0..255 are bytes; then the special tokens <bos> and <eos>. <eos> ends a turn.
class FakeTokenizer : public Tokenizer {
 public:
  static constexpr Token kBos = 256, kEos = 257;
  static constexpr int kVocabulary = 258;

  FakeTokenizer();

  using Tokenizer::Encode;
  std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                            const EncodeOptions& options) const override;
  std::string Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const override;
  std::string_view Bytes(Token token) const override;
  std::string_view Spelling(Token token) const override { return Bytes(token); }
  bool IsSpecial(Token token) const override { return token >= kBos; }
  int vocab_size() const override { return kVocabulary; }
  std::optional<Token> bos() const override { return kBos; }
  absl::Span<const Token> stop_tokens() const override { return stops_; }

 private:
  std::vector<std::string> bytes_;
  std::vector<Token> stops_ = {kEos};
};

// "user: hi\n" for every message, then "assistant: " with add_generation_prompt. A role "bad" is
// refused, as raise_exception does.
ChatFormat FakeChatFormat();

// Named "fake". The arguments outlive it.
ServedModel FakeServedModel(const Tokenizer* tokenizer, const ChatFormat* chat_format);

// The tokens of a text, byte by byte.
std::vector<Token> TokensOf(std::string_view text);

}  // namespace fairlead
