// SPDX-License-Identifier: Apache-2.0
// What the engine is asked and what it answers. Plain values; no thread owns them.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "models/tokenizer.h"

namespace fairlead {

struct SamplingParams {
  float temperature = 1;         // >= 0; 0 is greedy
  int top_k = 0;                 // 0 = off
  float top_p = 1;               // (0, 1]
  float min_p = 0;               // [0, 1]
  float repetition_penalty = 1;  // > 0; over prompt and output (Keskar et al., arXiv 1909.05858)
  float presence_penalty = 0;    // over the output: subtracted once a token has appeared
  float frequency_penalty = 0;   // over the output: subtracted for every appearance
  uint64_t seed = 0;             // the draw at position p depends on (seed, p) alone
  std::vector<std::pair<Token, float>> logit_bias;  // one entry a token
};

// Validated by the caller (ids inside the vocabulary, numbers finite and in range); Submit checks
// sizes only.
struct EngineRequest {
  std::vector<Token> prompt;  // at least one token
  SamplingParams sampling;
  int max_tokens = 16;             // may be 0: the prompt is scored, nothing is generated
  int min_tokens = 0;              // stop tokens cannot be drawn before
  std::vector<Token> stop_tokens;  // ends the output, the token itself included
  int logprobs = -1;               // -1: none; n >= 0: of the drawn token and the n best
  int prompt_logprobs =
      -1;  // the same for every prompt position after the first; turns the prefix cache off for it
  int priority = 0;  // lower runs first, then arrival
  absl::Time deadline = absl::InfiniteFuture();
  uint64_t cache_salt = 0;  // blocks are shared only between requests of one salt (a tenant)
};

enum class FinishReason { kStop, kLength, kCancelled, kDeadline, kError };

struct TopLogprob {
  Token token;
  float logprob;
};

struct TokenOutput {
  Token token = 0;
  float logprob = 0;  // of raw logits, before edits and temperature; 0 when not asked for
  int rank = 0;       // 1 = the most likely; 0 when not asked for
  absl::Span<const TopLogprob> top;  // best first; valid during the call
};

struct EngineResult {
  FinishReason reason = FinishReason::kStop;
  absl::Status status;           // not OK for kCancelled, kDeadline, kError
  int cached_prompt_tokens = 0;  // prompt tokens whose keys and values came from the prefix cache
  int num_preemptions = 0;
  absl::Time first_scheduled = absl::InfinitePast();
};

// Receives one request's output on the engine thread. Implementations hold max_tokens, so no call
// blocks, fails or allocates, however slow the client is.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // For position 1 .. prompt size - 1, in order, before any Push.
  virtual void PushPromptLogprob(const TokenOutput& output) = 0;
  virtual void Push(const TokenOutput& output) = 0;
  // Exactly once, after the last Push.
  virtual void Close(const EngineResult& result) = 0;
  // After the last call of a step, whatever the step had for this sink, when all sinks have had
  // theirs: what wakes threads that read them is best done here, once.
  virtual void Flush() {}
};

}  // namespace fairlead
