// SPDX-License-Identifier: Apache-2.0
// What becomes of text before it is cut into words: tokenizer.json's "normalizer" (Hugging Face
// tokenizers 0.23). Trusted spans (added_tokens.h) follow the text. Immutable: any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "models/added_tokens.h"
#include "models/json.h"

namespace fairlead {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // The normalized form of `text` (valid UTF-8, as is what comes out). What is made of trusted
  // bytes alone stays trusted; what is made of others, or of nothing, is not.
  virtual std::string Apply(std::string_view text, TrustedSpans* trusted) const = 0;
  std::string Apply(std::string_view text) const {
    TrustedSpans none;
    return Apply(text, &none);
  }

  // From tokenizer.json's "normalizer"; null where the JSON is null or an empty Sequence.
  // kUnimplemented names an unknown type and lists the known ones; kInvalidArgument for malformed
  // values.
  static absl::StatusOr<std::unique_ptr<Normalizer>> FromJson(const Json& json);
  static std::unique_ptr<Normalizer> Nfc();
  // The most times that text can become longer, apart from a constant.
  virtual double growth() const { return 1; }
  // Whether it is Nfc's, or does nothing else in a Sequence.
  virtual bool is_nfc() const { return false; }
};

// Builds normalized text out of parts of the source, in order.
class NormalizedText {
 public:
  // `trusted`: of the source; outlives this.
  explicit NormalizedText(const TrustedSpans& trusted) : trusted_(trusted) {}
  // What source bytes [begin, end) have become. An empty range makes untrusted text.
  void Append(size_t begin, size_t end, std::string_view text) {
    const size_t start = text_.size();
    text_.append(text);
    if (!text.empty() && begin < end && trusted_.Contains(begin, end))
      moved_.Add(start, text_.size());
  }
  // Source bytes [begin, end) as they are.
  void Copy(std::string_view source, size_t begin, size_t end) {
    const size_t start = text_.size();
    text_.append(source.substr(begin, end - begin));
    const TrustedSpans copied = trusted_.Slice(begin, end);
    for (const TextSpan& span : copied.spans()) moved_.Add(start + span.begin, start + span.end);
  }
  // The text; *trusted becomes its spans.
  std::string Take(TrustedSpans* trusted) && {
    TrustedSpans moved = std::move(moved_);
    *trusted = std::move(moved);
    return std::move(text_);
  }

 private:
  const TrustedSpans& trusted_;
  TrustedSpans moved_;
  std::string text_;
};

}  // namespace fairlead
