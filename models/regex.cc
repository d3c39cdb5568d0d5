// SPDX-License-Identifier: Apache-2.0
#include "models/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

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

}  // namespace

struct Regex::Compiled {
  CodePtr code;
  MatchContextPtr context;  // limits; PCRE2 only reads it
};

Regex::Regex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  return CompileWith(*translated, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE);
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  return CompileWith(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::CompileWith(std::string_view pattern, uint32_t options) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(StrCat("a regular expression of ", pattern.size(),
                                                   " bytes; at most ", kMaxPatternBytes,
                                                   " are allowed"));
  }
  const CompileContextPtr compile_context(pcre2_compile_context_create(nullptr));
  FAIRLEAD_CHECK(compile_context != nullptr);
  pcre2_set_newline(compile_context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(compile_context.get(), kMaxParentheses);
  int error = 0;
  size_t offset = 0;
  CodePtr code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options,
                             &error, &offset, compile_context.get()));
  if (code == nullptr) {
    char reason[256];
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof(reason));
    return absl::InvalidArgumentError(
        StrCat("regular expression \"", pattern, "\" at offset ", offset, ": ", reason));
  }
  // Without JIT (an architecture that lacks it, a kernel that forbids it) the interpreter matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  MatchContextPtr context(pcre2_match_context_create(nullptr));
  FAIRLEAD_CHECK(context != nullptr);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  return Regex(std::make_unique<Compiled>(Compiled{std::move(code), std::move(context)}));
}

bool Regex::FindAll(std::string_view text, std::vector<TextSpan>* match) const {
  const MatchDataPtr data(pcre2_match_data_create(1, nullptr));
  FAIRLEAD_CHECK(data != nullptr);
  const size_t* const span = pcre2_get_ovector_pointer(data.get());
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto search = [&](size_t start, uint32_t options) {
    return pcre2_match(compiled_->code.get(), subject, text.size(), start, options, data.get(),
                       compiled_->context.get());
  };
  size_t start = 0;
  size_t last_end = std::string_view::npos;  // of the last match
  while (start <= text.size()) {
    int result = search(start, PCRE2_NO_UTF_CHECK);
    // JIT code has a small stack; the interpreter keeps its own on the heap.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
      result = search(start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return true;
    // A \K can move the start of a match before the search's; such patterns split nothing sensible.
    if (result < 0 || span[0] < start || span[1] < span[0]) return false;
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
