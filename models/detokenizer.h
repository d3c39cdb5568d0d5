// SPDX-License-Identifier: Apache-2.0
// Tokens to text, streaming: never emits part of a UTF-8 character, and the concatenation of all
// pieces equals Tokenizer::Decode of the whole list. One thread at a time; borrows the tokenizer.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "models/tokenizer.h"

namespace fairlead {

class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);

  // Adds a token and returns the text that is now certain ("" while a character is incomplete).
  // Bytes that can no longer become a valid character are emitted as U+FFFD, the way Decode does.
  std::string Push(Token token);
  // What is left at the end: an incomplete character becomes U+FFFD.
  // The next Push begins a new text.
  std::string Finish();
  // The bytes that wait for what they will become (TextStream::Held).
  std::string Held() const { return stream_->Held(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<TextStream> stream_;
};

// Length of the longest prefix of `bytes` that is complete: valid characters, or bytes that can
// never become one.
size_t CompleteUtf8Prefix(std::string_view bytes);
// Replaces each maximal invalid subsequence by U+FFFD (Unicode 15, chapter 3.9: what Python's and
// Rust's lossy decoders do).
std::string ReplaceInvalidUtf8(std::string_view bytes);
bool IsValidUtf8(std::string_view bytes);
// Bytes of the valid character that `bytes` (not empty) starts with; 0 if there is none.
size_t CharacterLength(std::string_view bytes);

}  // namespace fairlead
