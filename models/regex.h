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
// kUnimplemented: what PCRE2 cannot say or the two would read differently, such as \xe9, a byte.
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

  // Searches the parts of one text. Borrows the regex. One thread.
  class Search {
   public:
    // `text_bytes`: of all parts together.
    Search(const Regex& regex, size_t text_bytes, int64_t base_steps = kBaseSteps);
    ~Search();

    // Appends the matches, left to right and disjoint; an empty match right behind the previous one
    // is skipped. `text` must be valid UTF-8. Backtracking is bounded: all calls together have
    // base_steps + kStepsPerByte * text_bytes steps, beyond kFreeSteps for each position of the
    // text, and kHeapLimitKib of memory. Who needs more gets no match from there on (the rest
    // counts as unmatched, none of it is lost), and false. This ends exponential patterns at once;
    // a step is PCRE2's and may run over a repeated character, so that a pattern made for it,
    // x*x*y, still takes time in proportion to steps times length.
    bool FindAll(std::string_view text, std::vector<TextSpan>* match);

   private:
    struct State;
    int Match(std::string_view text, size_t start, uint32_t options, int64_t steps);
    int FindFrom(std::string_view text, size_t start);
    std::unique_ptr<State> state_;
  };

  static constexpr int64_t kBaseSteps = 4'000'000;
  static constexpr int64_t kStepsPerByte = 8;
  static constexpr uint32_t kFreeSteps = 256;
  static constexpr uint32_t kHeapLimitKib = 256 * 1024;

 private:
  struct Compiled;
  explicit Regex(std::unique_ptr<Compiled> compiled);
  static absl::StatusOr<Regex> CompileWith(std::string_view pattern, uint32_t options);

  std::unique_ptr<Compiled> compiled_;
};

}  // namespace fairlead
