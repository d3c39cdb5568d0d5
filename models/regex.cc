// SPDX-License-Identifier: Apache-2.0
#include "models/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using CodePtr = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using CompileContextPtr =
    std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContextPtr = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchDataPtr = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;

// A pattern nests this deep at most; PCRE2's compiler recurses.
constexpr uint32_t kMaxParentheses = 200;
constexpr size_t kMaxPatternBytes = 64 * 1024;
// JIT code does not count the steps of a repeated single character, which can be quadratic. The
// interpreter counts everything, and on a long text is not much slower than what follows the
// search.
constexpr size_t kMaxJitBytes = 64 * 1024;
// How much more a search may have than the one before it that ran out of steps.
constexpr uint32_t kStepGrowth = 8;

absl::Status CheckSize(std::string_view pattern) {
  if (pattern.size() <= kMaxPatternBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("a regular expression of ", pattern.size(),
                                           " bytes; at most ", kMaxPatternBytes, " are allowed"));
}

size_t NextCharacter(std::string_view text, size_t pos) {
  do {
    ++pos;
  } while (pos < text.size() && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

}  // namespace

struct Regex::Compiled {
  CodePtr code;
};

Regex::Regex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (absl::Status status = CheckSize(pattern); !status.ok()) return status;
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  return CompileWith(*translated, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE);
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  return CompileWith(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::CompileWith(std::string_view pattern, uint32_t options) {
  if (absl::Status status = CheckSize(pattern); !status.ok()) return status;
  const CompileContextPtr compile_context(pcre2_compile_context_create(nullptr));
  FAIRLEAD_CHECK(compile_context != nullptr);
  pcre2_set_newline(compile_context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(compile_context.get(), kMaxParentheses);
  int error = 0;
  size_t offset = 0;
  CodePtr code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    (options & PCRE2_LITERAL) != 0 ? options : options | PCRE2_NEVER_BACKSLASH_C,
                    &error, &offset, compile_context.get()));
  if (code == nullptr) {
    char reason[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof(reason));
    return absl::InvalidArgumentError(
        StrCat("regular expression \"", pattern, "\" at offset ", offset, ": ", reason));
  }
  // Without JIT (an architecture that lacks it, a kernel that forbids it) the interpreter matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::make_unique<Compiled>(Compiled{std::move(code)}));
}

struct Regex::Search::State {
  const pcre2_code* code;
  MatchDataPtr data;
  MatchContextPtr context;
  int64_t steps_left;
};

Regex::Search::Search(const Regex& regex, size_t text_bytes, int64_t base_steps)
    : state_(std::make_unique<State>(
          State{regex.compiled_->code.get(), MatchDataPtr(pcre2_match_data_create(1, nullptr)),
                MatchContextPtr(pcre2_match_context_create(nullptr)),
                base_steps + kStepsPerByte * static_cast<int64_t>(text_bytes)})) {
  FAIRLEAD_CHECK(state_->data != nullptr && state_->context != nullptr);
  pcre2_set_heap_limit(state_->context.get(), kHeapLimitKib);
}

Regex::Search::~Search() = default;

int Regex::Search::Match(std::string_view text, size_t start, uint32_t options, int64_t steps) {
  if (text.size() > kMaxJitBytes) options |= PCRE2_NO_JIT;
  pcre2_set_match_limit(state_->context.get(), static_cast<uint32_t>(steps));
  const auto match = [&](uint32_t flags) {
    return pcre2_match(state_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                       flags | PCRE2_NO_UTF_CHECK, state_->data.get(), state_->context.get());
  };
  const int result = match(options);
  // The interpreter has its stack on the heap.
  return result == PCRE2_ERROR_JIT_STACKLIMIT ? match(options | PCRE2_NO_JIT) : result;
}

// PCRE2 limits the steps from each position, and cannot tell how many were taken. So each position
// gets few of them. If that is not enough for one, all are tried one by one from there on, with
// more and more steps, and what is used up in vain is paid for.
int Regex::Search::FindFrom(std::string_view text, size_t start) {
  int result = Match(text, start, 0, kFreeSteps);
  if (result != PCRE2_ERROR_MATCHLIMIT) return result;
  while (true) {
    int64_t steps = kFreeSteps;
    result = Match(text, start, PCRE2_ANCHORED, steps);
    while (result == PCRE2_ERROR_MATCHLIMIT) {
      state_->steps_left -= steps;
      if (state_->steps_left <= 0) return result;
      steps = std::min(steps * kStepGrowth, state_->steps_left);
      result = Match(text, start, PCRE2_ANCHORED, steps);
    }
    if (result != PCRE2_ERROR_NOMATCH || start == text.size()) return result;
    start = NextCharacter(text, start);
  }
}

bool Regex::Search::FindAll(std::string_view text, std::vector<TextSpan>* match) {
  if (state_->steps_left <= 0) return false;
  const size_t* const span = pcre2_get_ovector_pointer(state_->data.get());
  size_t start = 0;
  size_t last_end = std::string_view::npos;  // of the last match
  while (start <= text.size()) {
    const int result = FindFrom(text, start);
    if (result == PCRE2_ERROR_NOMATCH) return true;
    // A \K can move the start of a match before the search's; such patterns split nothing sensible.
    if (result < 0 || span[0] < start || span[1] < span[0]) {
      state_->steps_left = 0;
      return false;
    }
    if (span[0] == span[1] && span[1] == last_end) {
      ++start;
      while (start < text.size() && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80)
        ++start;
      continue;
    }
    match->push_back({span[0], span[1]});
    start = last_end = span[1];
  }
  return true;
}

}  // namespace fairlead
