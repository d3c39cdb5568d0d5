// SPDX-License-Identifier: Apache-2.0
// The regular expressions of tokenizer files, run by PCRE2 with JIT. The files are written for
// Oniguruma (Ruby syntax, Unicode); the few places where the two read a pattern differently are
// rewritten before compilation, and what cannot be rewritten is refused. Immutable: any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fairlead {

// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// PATTERN in PCRE2's syntax (to be compiled with UTF, UCP, MULTILINE and newline = LF).
// kUnimplemented for class intersections, nested classes and negated \w or \h in a class.
absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern);

class Regex {
 public:
  // kInvalidArgument: PCRE2's reason and the offset. kUnimplemented: see TranslateOniguruma.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches TEXT itself.
  static absl::StatusOr<Regex> CompileLiteral(std::string_view text);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends the matches, left to right and disjoint; an empty match right behind the previous one
  // is skipped. `text` must be valid UTF-8. A search is given up when it needs more than
  // kMatchLimit backtracking steps or kHeapLimitKib of memory: then no match is reported from there
  // on (the rest of the text counts as unmatched, none of it is lost) and false is returned.
  bool FindAll(std::string_view text, std::vector<TextSpan>* match) const;

  static constexpr uint32_t kMatchLimit = 10'000'000;
  static constexpr uint32_t kHeapLimitKib = 256 * 1024;

 private:
  struct Compiled;
  explicit Regex(std::unique_ptr<Compiled> compiled);
  static absl::StatusOr<Regex> CompileWith(std::string_view pattern, uint32_t options);

  std::unique_ptr<Compiled> compiled_;
};

}  // namespace fairlead
