// SPDX-License-Identifier: Apache-2.0
// What one request changes about its logits before a token is drawn: penalties, biases and stop
// tokens that may not come yet. Made by the submitter's thread with room for every token the
// request can ever see; afterwards the engine thread's. Penalties over seen tokens: Keskar et al.,
// arXiv 1909.05858 (repetition, over prompt and output); presence and frequency as OpenAI's API
// defines them (over the output alone).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "runtime/request.h"

namespace fairlead {

// One entry of LogitEdits (kernels/ops.h): l = (l > 0 ? l / repetition : l * repetition) + add.
struct LogitEdit {
  Token token;
  float repetition;
  float add;
};

class LogitEditTable {
 public:
  // Null when the request changes no logit, ever. `request.prompt` must still be there.
  static std::unique_ptr<LogitEditTable> Create(const EngineRequest& request, int vocab);

  // A token of the output. Allocates nothing.
  void Append(Token token);
  // Takes back one that was appended: a draft, which is a token of the prompt or the output, so
  // that there is room for it.
  void Remove(Token token);

  // At most this many edits, now and until the next Append.
  int max_edits() const { return static_cast<int>(entries_.size()); }
  // Writes the edits for the next draw, after `num_output_tokens` tokens of output; a token appears
  // at most once. out.size() >= max_edits(). Returns how many.
  int Write(int num_output_tokens, absl::Span<LogitEdit> out) const;

 private:
  struct Entry {
    Token token = 0;
    bool in_prompt = false;  // and that counts
    int output_count = 0;
    float bias = 0;
    bool stop = false;
  };

  explicit LogitEditTable(const SamplingParams& sampling, int min_tokens, int max_entries);
  Entry& FindOrAdd(Token token);

  const float repetition_, presence_, frequency_;
  const int min_tokens_;
  const bool penalises_;
  std::vector<Entry> entries_;  // in order of appearance; reserved
  std::vector<int32_t>
      slots_;  // open addressing, a power of two, at most half full: index into entries_ or -1
};

}  // namespace fairlead
