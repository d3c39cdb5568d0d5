// SPDX-License-Identifier: Apache-2.0
// The steps of decoders.h. Immutable: any thread; what they remember of one text is a Sink.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoders.h"
#include "models/regex.h"

namespace fairlead {

class Decoder::Step {
 public:
  virtual ~Step() = default;
  // The state of one text, which hands on to `next`.
  virtual std::unique_ptr<Sink> NewState(Sink* next) const = 0;
  // Decoder::Running, as far as this step goes. Bytes of a token that an earlier step has made may
  // be no text any more.
  virtual std::string Running(std::string token) const = 0;
  // What comes out is one token however many go in.
  virtual bool fuses() const { return false; }
  virtual bool is_byte_level() const { return false; }
};

using DecoderSteps = std::vector<std::unique_ptr<Decoder::Step>>;

std::unique_ptr<Decoder::Step> MakeByteLevelDecoder();
std::unique_ptr<Decoder::Step> MakeByteFallbackDecoder();
std::unique_ptr<Decoder::Step> MakeMetaspaceDecoder(char32_t replacement, bool drops_first);
std::unique_ptr<Decoder::Step> MakeWordPieceDecoder(std::string prefix, bool cleanup);
std::unique_ptr<Decoder::Step> MakeBpeSuffixDecoder(std::string suffix);
std::unique_ptr<Decoder::Step> MakeCtcDecoder(std::string pad, std::string word_delimiter,
                                              bool cleanup);
std::unique_ptr<Decoder::Step> MakeFuseDecoder();
// `fused`: its input is one token.
std::unique_ptr<Decoder::Step> MakeStripDecoder(char32_t content, size_t start, size_t stop,
                                                bool fused);
std::unique_ptr<Decoder::Step> MakeReplaceDecoder(std::string literal, std::string content);
std::unique_ptr<Decoder::Step> MakeRegexReplaceDecoder(Regex regex, std::string content);
// Tokens with a space between them.
std::unique_ptr<Decoder::Step> MakeSpacesDecoder();

}  // namespace fairlead
