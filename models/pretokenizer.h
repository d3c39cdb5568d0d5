// SPDX-License-Identifier: Apache-2.0
// Splits text into the words that BPE works on. The steps and their names are those of
// tokenizer.json's "pre_tokenizer" (Hugging Face tokenizers 0.23). Immutable after construction:
// any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/regex.h"

namespace fairlead {

// A text and the words it is cut into, in order. Steps cut words further or rewrite the text.
struct Words {
  std::string text;
  std::vector<TextSpan> span;
  bool at_start = false;  // the first word begins where the whole input begins
  std::string_view word(size_t i) const {
    return std::string_view(text).substr(span[i].begin, span[i].size());
  }
};

// What becomes of a match of the pattern ("delimiter") and of what lies between matches.
enum class SplitBehavior {
  kRemoved,             // matches are dropped
  kIsolated,            // matches are words of their own
  kMergedWithPrevious,  // a match belongs to the word before it; only the first of several in a row
  kMergedWithNext,      // a match belongs to the word behind it; only the last of several in a row
  kContiguous,          // matches in a row make one word
};

// GPT-2's split: contractions, letters, numbers, the rest, each with a space before it; white
// space.
extern const std::string_view kGpt2Split;

class PreTokenizer {
 public:
  class Step;

  // From tokenizer.json's "pre_tokenizer"; null gives no step. kUnimplemented names an unknown type
  // and lists the known ones; kInvalidArgument for malformed values.
  static absl::StatusOr<PreTokenizer> FromJson(const Json& json);
  // One Split into isolated matches for each pattern, then the byte-level alphabet: GGUF files.
  static absl::StatusOr<PreTokenizer> FromPatterns(const std::vector<std::string_view>& pattern);

  PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Cuts `text` (valid UTF-8), with which the whole input begins or not. Where a pattern exceeds
  // its limits (Regex::Search) the rest of that word stays whole: slower and differently split, but
  // complete.
  Words Split(std::string_view text, bool at_start) const;

  // Whether words come out in the byte-level alphabet.
  bool byte_level() const { return byte_level_; }
  // Whether every byte of the text is in a word, as one character of the alphabet.
  bool keeps_all() const;

 private:
  std::vector<std::unique_ptr<Step>> step_;
  bool byte_level_ = false;
};

}  // namespace fairlead
