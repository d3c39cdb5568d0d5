// SPDX-License-Identifier: Apache-2.0
// Tokens, as the vocabulary spells them, become text: tokenizer.json's "decoder" with the steps and
// the rules of Hugging Face tokenizers 0.23, as a stream. Immutable after creation: any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"

namespace fairlead {

class TokenDecoder {
 public:
  // Takes what a step makes. Text comes in whole characters.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void Text(std::string_view text) = 0;  // a part of a token
    virtual void EndToken() = 0;
    virtual void Finish() = 0;  // behind the last token
    // Appends what has come and waits.
    virtual void AppendHeld(std::string*) const {}
  };
  class Step;

  // One text. One thread; borrows the decoder.
  class Stream {
   public:
    explicit Stream(const TokenDecoder& decoder);
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream();
    // Adds a token (valid UTF-8) and appends the text that is certain now.
    void Push(std::string_view spelling, std::string* out);
    void Finish(std::string* out);
    std::string Held() const;  // TextStream::Held

   private:
    class End;
    std::unique_ptr<End> end_;
    std::vector<std::unique_ptr<Sink>> state_;  // last step first
    Sink* first_;
  };

  // Null: tokens with a space between them. kUnimplemented names an unknown type and lists the
  // known ones; kInvalidArgument for malformed values.
  static absl::StatusOr<TokenDecoder> FromJson(const Json& json);
  // The byte-level alphabet alone: GGUF files.
  static TokenDecoder ByteLevel();

  TokenDecoder(TokenDecoder&&) noexcept;
  TokenDecoder& operator=(TokenDecoder&&) noexcept;
  ~TokenDecoder();

  // The bytes that the token stands for in running text, behind another token. May be a part of a
  // character.
  std::string Running(std::string_view spelling) const;
  bool is_byte_level() const;

 private:
  TokenDecoder();
  std::vector<std::unique_ptr<Step>> step_;
};

}  // namespace fairlead
