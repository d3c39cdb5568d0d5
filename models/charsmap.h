// SPDX-License-Identifier: Apache-2.0
// SentencePiece's precompiled_charsmap: rules that replace text, which normalizer_spec,
// tokenizer.json ("Precompiled") and GGUF (tokenizer.ggml.precompiled_charsmap) hold. Layout, all
// little-endian: uint32 size of the trie in bytes; the trie, a Darts double array of uint32 units;
// the replacements, each ended by a NUL, which the trie's values are offsets into.
// Immutable: any thread. The bytes may come from anywhere: every index is checked when it is used,
// and a rule that is malformed does not match.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/normalizer.h"

namespace fairlead {

class Charsmap {
 public:
  // Longer texts are never looked for, so that a trie with a cycle costs linear time; longer
  // replacements are refused, so that normalized text is at most so many times as long. The
  // published maps reach 12 and 33 bytes.
  static constexpr size_t kMaxKeyBytes = 256;
  static constexpr size_t kMaxReplacementBytes = 256;

  struct Match {
    size_t length;  // bytes of the text that match
    std::string_view replacement;
  };

  Charsmap() = default;  // no rules
  // kInvalidArgument: sizes that do not fit each other, replacements that are not UTF-8 or too long
  // or not ended. Empty bytes give no rules.
  static absl::StatusOr<Charsmap> Create(std::string_view bytes);

  // The longest or the shortest rule that `text` starts with.
  std::optional<Match> Longest(std::string_view text) const;
  std::optional<Match> Shortest(std::string_view text) const;

  bool empty() const { return unit_.empty(); }
  size_t longest_replacement() const { return longest_; }

 private:
  // Calls visit(length, value) for the rules that `text` starts with, shortest first; stops when it
  // returns false.
  template <typename Visit>
  void ForEachRule(std::string_view text, Visit visit) const;
  std::optional<std::string_view> Replacement(uint32_t offset) const;

  std::vector<uint32_t> unit_;
  std::string replacement_;
  size_t longest_ = 0;
};

// Hugging Face tokenizers 0.23's normalizer "Precompiled": an extended grapheme cluster under 6
// bytes is replaced as a whole by the shortest rule it starts with, other characters one by one.
class PrecompiledNormalizer : public Normalizer {
 public:
  // The bytes of a precompiled_charsmap; kInvalidArgument as Charsmap::Create.
  static absl::StatusOr<std::unique_ptr<Normalizer>> Create(const std::string& bytes);

  explicit PrecompiledNormalizer(Charsmap map) : map_(std::move(map)) {}
  std::string Apply(std::string_view text, TrustedSpans* trusted) const override;
  double growth() const override { return 1.0 + static_cast<double>(map_.longest_replacement()); }

 private:
  const Charsmap map_;
};

}  // namespace fairlead
