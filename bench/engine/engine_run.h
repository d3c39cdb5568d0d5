// SPDX-License-Identifier: Apache-2.0
// Measures cases on an engine that nobody else uses. One thread.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/engine/cases.h"
#include "runtime/engine.h"

namespace fairlead::bench {

class EngineRun {
 public:
  // The engine keeps prefixes; the depth of a case is a prefix that was computed before.
  EngineRun(Engine& engine, int vocab, uint64_t seed)
      : engine_(engine), vocab_(vocab), random_(seed) {}

  // Computes the depth of a case, which Measure then measures. kResourceExhausted when the KV cache
  // is too small for it; else as Engine::Submit.
  absl::Status Prepare(const EngineCase& engine_case);

  // Tokens a second of one repetition of the case prepared last:
  //   prompt    prompt tokens computed / time from submission to the first token drawn
  //   generate  tokens of all sequences / time, while every one of them has drawn its first token
  //             and none its last; kInvalidArgument when there is no such time
  //   mixed     output tokens of all requests / time from the first submission to the last token
  absl::StatusOr<double> Measure();

  EngineStats stats() const { return engine_.stats(); }

  // Milliseconds from submitting a one-token prompt to its answer.
  absl::StatusOr<double> FirstTokenMs();

 private:
  std::vector<Token> RandomTokens(int count);
  absl::StatusOr<double> MeasurePrompt();
  absl::StatusOr<double> MeasureBatch();

  Engine& engine_;
  const int vocab_;
  std::mt19937_64 random_;
  EngineCase case_;
  std::vector<std::vector<Token>> depths_;  // of each sequence
};

}  // namespace fairlead::bench
