// SPDX-License-Identifier: Apache-2.0
// Decides who runs. A pure state machine: no device, thread, clock or I/O, so that tests can simulate a day in a second.
// Engine thread only. Continuous batching with chunked prefill: every Plan hands out at most max_batched_tokens, to
// running sequences first (none of them starves when the budget is smaller than their number), then to waiting ones
// by priority and arrival. When KV blocks run out the lowest-priority, latest-arrived running sequence is preempted: its
// blocks are released and it is computed again later, with the same bits.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/kv_cache.h"
#include "runtime/sequence.h"

namespace fairlead {

struct SchedulerLimits {
  int max_batched_tokens = 256;  // >= 1; may be below a prompt or max_num_seqs
  int max_num_seqs = 64;         // running at once
};

struct PlannedRow {
  Sequence* sequence;
  int first_token;  // position of the first token to compute
  int num_tokens;
  bool sample;      // the last token's logits choose the next token
};

struct StepPlan {
  std::vector<PlannedRow> rows;  // borrows Sequences until Commit
  int num_tokens = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, KvCache& cache);

  void Add(std::unique_ptr<Sequence> sequence);
  // Takes out a waiting or running sequence; null if unknown. Not between Plan and Commit.
  std::unique_ptr<Sequence> Remove(uint64_t id);
  // Takes out every sequence whose deadline has passed.
  void RemoveExpired(absl::Time now, std::vector<std::unique_ptr<Sequence>>& expired);

  // Decides and reserves. The plan is the scheduler's own and valid until the next call. Empty only if nothing waits.
  const StepPlan& Plan(absl::Time now);
  // `sampled[i]` belongs to the i-th row with `sample`; -1: its logits were not finite, the sequence ends with kError.
  // Appends the finished ones (result.reason set, blocks released) to `finished`.
  void Commit(absl::Span<const Token> sampled, std::vector<std::unique_ptr<Sequence>>& finished);

  int num_running() const;
  int num_waiting() const;
  int64_t num_preemptions() const;
  // The earliest deadline of all sequences.
  absl::Time next_deadline() const;

 private:
  // The implementation's own.
};

}  // namespace fairlead
