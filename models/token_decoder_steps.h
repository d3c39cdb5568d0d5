// SPDX-License-Identifier: Apache-2.0
// The steps of token_decoder.h. Immutable: any thread; what they remember of one text is a Sink.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/regex.h"
#include "models/token_decoder.h"

namespace fairlead {

class TokenDecoder::Step {
 public:
  virtual ~Step() = default;
  // The state of one text, which hands on to `next`.
  virtual std::unique_ptr<Sink> NewState(Sink* next) const = 0;
  // TokenDecoder::Running, as far as this step goes. Bytes of a token that an earlier step has made
  // may be no text any more.
  virtual std::string Running(std::string token) const = 0;
  // The most times that a token can become longer, apart from a constant.
  virtual double growth() const { return 1; }
  // What comes out is one token however many go in.
  virtual bool fuses() const { return false; }
  virtual bool is_byte_level() const { return false; }
};

using TokenDecoderSteps = std::vector<std::unique_ptr<TokenDecoder::Step>>;

std::unique_ptr<TokenDecoder::Step> MakeByteLevelDecoder();
std::unique_ptr<TokenDecoder::Step> MakeByteFallbackDecoder();
std::unique_ptr<TokenDecoder::Step> MakeMetaspaceDecoder(char32_t replacement, bool drops_first);
std::unique_ptr<TokenDecoder::Step> MakeWordPieceDecoder(std::string prefix, bool cleanup);
std::unique_ptr<TokenDecoder::Step> MakeBpeSuffixDecoder(std::string suffix);
std::unique_ptr<TokenDecoder::Step> MakeCtcDecoder(std::string pad, std::string word_delimiter,
                                                   bool cleanup);
std::unique_ptr<TokenDecoder::Step> MakeFuseDecoder();
// `fused`: its input is one token.
std::unique_ptr<TokenDecoder::Step> MakeStripDecoder(char32_t content, size_t start, size_t stop,
                                                     bool fused);
std::unique_ptr<TokenDecoder::Step> MakeReplaceDecoder(std::string literal, std::string content);
std::unique_ptr<TokenDecoder::Step> MakeRegexReplaceDecoder(Regex regex, std::string content);
// Tokens with a space between them.
std::unique_ptr<TokenDecoder::Step> MakeSpacesDecoder();

}  // namespace fairlead
