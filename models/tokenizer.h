// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back. Immutable after loading: every method may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights.h"

namespace fairlead {

using Token = int32_t;

// What text the tokenizer is given, piece by piece: special-token text (added tokens with special =
// true) is matched inside trusted pieces only; BPE runs over the whole text, across pieces.
struct TextPiece {
  std::string_view text;
  bool trusted = true;
};

struct EncodeOptions {
  bool add_special_tokens = true;  // what the file's post-processor adds (bos, eos ...)
  bool parse_special = true;       // recognise special-token text in trusted pieces
  // Encoding may end once there are more tokens than this; 0: never.
  size_t enough_tokens = 0;
  // Encoding may end once this is true; what it gives then is of no use.
  const std::atomic<bool>* cancelled = nullptr;
};

// The text of a list of tokens that is still growing. One thread; borrows its tokenizer.
class TextStream {
 public:
  virtual ~TextStream() = default;
  // The text that is certain now: whole characters, "" while that is nothing.
  virtual std::string Push(Token token) = 0;
  // What is left at the end. Nothing may be pushed afterwards.
  virtual std::string Finish() = 0;
  // The bytes that wait for what they will become, such as the start of a character.
  virtual std::string Held() const = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<Token> Encode(absl::Span<const TextPiece> pieces,
                                    const EncodeOptions& options) const = 0;
  std::vector<Token> Encode(std::string_view text, const EncodeOptions& options = {}) const {
    const TextPiece piece{text, true};
    return Encode(absl::MakeConstSpan(&piece, 1), options);
  }

  // The library's decode of a whole list: invalid UTF-8 becomes U+FFFD. Ids outside the vocabulary
  // decode to "".
  virtual std::string Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const = 0;

  // Decode piece by piece: what Push and Finish give is, joined, Decode of all tokens. Unless
  // overridden, of a tokenizer whose text is the Bytes of its tokens.
  virtual std::unique_ptr<TextStream> NewStream(bool skip_special_tokens) const;

  // The bytes a token stands for in running text, behind other tokens: may be part of a UTF-8
  // character. Empty for ids that have no token.
  virtual std::string_view Bytes(Token token) const = 0;
  // The token as the vocabulary spells it (byte-level alphabet and all).
  virtual std::string_view Spelling(Token token) const = 0;
  // Added tokens with special = true (GGUF: token type control).
  virtual bool IsSpecial(Token token) const = 0;
  // One past the highest id that has a token.
  virtual int vocab_size() const = 0;
  // At least so many tokens come of the text, which is not tokenized to tell.
  virtual size_t MinTokens(std::string_view) const { return 0; }

  virtual std::optional<Token> bos() const = 0;
  // Every id that ends a turn by the model's own files (eos, eot, eom, generation_config's list),
  // sorted.
  virtual absl::Span<const Token> stop_tokens() const = 0;
};

// From GGUF metadata (tokenizer.ggml.*) or the folder's tokenizer.json, else its tokenizer.model (+
// tokenizer_config.json, generation_config.json, config.json's eos_token_id). Errors:
// kUnimplemented names an unknown model or pre-tokenizer and lists the known ones; kInvalidArgument
// for malformed data.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const WeightSource& source);
// PATH: a GGUF file, a Hugging Face folder, or a bare tokenizer.json or tokenizer.model (which then
// ends in .model). Does not need weights beside it.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromPath(const std::string& path);

}  // namespace fairlead
