// SPDX-License-Identifier: Apache-2.0
// Decides who runs. A pure state machine: no device, thread, clock or I/O, so that tests can
// simulate a day in a second. Engine thread only. Continuous batching with chunked prefill: every
// Plan hands out at most max_batched_tokens, to running sequences first, then to waiting ones by
// priority and arrival. A waiting one starts only when every running one has got all it needs and
// some budget is left. So all but the one that started last want a single token, and all of them
// are in every plan, even when the budget is smaller than max_num_seqs or a prompt.
//
// Memory: a sequence is admitted when blocks for all the tokens it has are there, one spare block
// for each running sequence on top. When a running one needs a block and none is left, the
// lowest-priority, latest-arrived running sequence is preempted: its blocks are released and it is
// computed again later, output included, with the same bits. The first by priority and arrival is
// never preempted while it is not alone, and alone it always fits: it can finish. A waiting
// sequence preempts running ones of strictly lower priority for their seat or their blocks.
//
// Speculation: a step of single tokens only, each drawn after, may verify drafts with what budget
// and blocks nobody else wants (speculation.h says how many). A draft is accepted where it is the
// token that was drawn in its place, so the output is what it would be without; blocks beyond what
// was accepted are given back. Which steps draft depends on measured times, the output never does.
//
// Planning ahead: while a step is under way the next one may be planned and begun, with a token
// that the host has not seen in the place of each that is drawn (Assume). A sequence that ends with
// such a step, or leaves meanwhile, leaves a row without a sequence in the next, whose work is in
// vain. Nobody is preempted ahead, and no sequence that needs its tokens starts.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/kv_cache.h"
#include "runtime/sequence.h"
#include "runtime/speculation.h"

namespace fairlead {

struct SchedulerLimits {
  int max_batched_tokens = 256;  // >= 1; may be below a prompt or max_num_seqs
  int max_num_seqs = 64;         // >= 1; running at once
  int max_drafts = 0;            // >= 0; verified for one sequence in one step; 0: no speculation
};

struct PlannedRow {
  Sequence* sequence;  // null: it left after the step had begun
  int first_token;     // position of the first token to compute
  int num_tokens;      // drafts included
  bool sample;         // the last token's logits choose the next token
  int num_drafts = 0;  // the last so many tokens are the sequence's drafts; the logits before each
                       // choose the token that it must be
  int num_samples() const { return sample ? num_drafts + 1 : 0; }
};

struct StepPlan {
  std::vector<PlannedRow> rows;  // borrows Sequences
  int num_tokens = 0;
};

class Scheduler {
 public:
  // max_sequences: how many it can hold, running and waiting, without allocating.
  Scheduler(const SchedulerLimits& limits, KvCache& cache, int max_sequences);

  // The sequence with all its output must fit the cache when it is alone.
  void Add(std::unique_ptr<Sequence> sequence);
  // Takes out a waiting or running sequence, its blocks released; null if unknown. Not between Plan
  // and Commit or Assume.
  std::unique_ptr<Sequence> Remove(uint64_t id);
  // Takes out every sequence whose deadline has passed. Not between Plan and Commit or Assume.
  void RemoveExpired(absl::Time now, std::vector<std::unique_ptr<Sequence>>& expired);
  // Takes out all. Not between Plan and Commit or Assume.
  void RemoveAll(std::vector<std::unique_ptr<Sequence>>& removed);

  // Decides and reserves. The plan is the scheduler's own and valid until it is committed and the
  // next one is made; its rows, as long as the sequences they name. Empty only if nothing waits, or
  // every running sequence ends with the step under way.
  const StepPlan& Plan(absl::Time now);
  // Whether the last plan's step may be assumed: nobody in it needs to know its tokens.
  bool CanAssume() const;
  // The last plan's step is under way; nothing else is. places: of each sample, in order, where the
  // device has its token. Its Commit comes after the next Plan and before the next Assume.
  void Assume(absl::Span<const int> places);
  // With a step under way: whether Plan may be called before its Commit. It is then as good, but
  // that places of sequences that end with the step are taken one step later, and prefixes that it
  // computes are found one step later.
  bool CanPlanAhead() const;
  // What the step that is committed next took: speculation's measure.
  void RecordTime(absl::Duration time);
  // Of the step under way, or else of the last plan.
  // `sampled` holds num_samples() tokens for each row in order; what follows one that is not the
  // draft in its place does not count. -1: the logits were not finite, the sequence ends with
  // kError. Appends the finished ones (result.reason set, blocks released) to `finished`.
  void Commit(absl::Span<const Token> sampled, std::vector<std::unique_ptr<Sequence>>& finished);

  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }
  // Of the sequences that have started: their prompts' tokens, those that were looked up in the
  // prefix cache, and found.
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t prefix_query_tokens() const { return prefix_query_tokens_; }
  int64_t prefix_hit_tokens() const { return prefix_hit_tokens_; }
  int64_t num_generated_tokens() const { return num_generated_tokens_; }
  int64_t num_drafts() const { return num_drafts_; }  // rows with drafts
  int64_t num_draft_tokens() const { return num_draft_tokens_; }
  int64_t num_accepted_draft_tokens() const { return num_accepted_draft_tokens_; }

 private:
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  int PlanRunning();  // returns how many end with the step under way, and so have no row
  void PlanWaiting(absl::Time now);
  void AddRow(Sequence& sequence);
  void RemoveRow(const Sequence& sequence);
  // Only decoding: every row is the one token after which the next is drawn.
  bool OnlyDecodes() const;
  void PlanDrafts();
  // Adds up to `count` drafts to the row, as far as there are blocks for them.
  void AddDrafts(PlannedRow& row, int count);

  // Reserves blocks for all of a waiting sequence's tokens. False when there are not enough, and
  // then nothing has changed.
  bool Reserve(Sequence& sequence);
  void Start(absl::Time now);  // the first waiting sequence, after Reserve
  size_t LastRunning() const;  // by priority and arrival
  // Preempts the last running sequence if its priority is lower. False if not.
  bool PreemptBelow(const Sequence& sequence);
  void Preempt(size_t running);
  void Wait(std::unique_ptr<Sequence> sequence);
  // Takes back what Assume did to the row's sequence.
  static void Unassume(const PlannedRow& row);
  // `own`: the row's samples. True when its sequence is done; then the result says why.
  bool Advance(const PlannedRow& row, absl::Span<const Token> own);
  // Complete with the step under way, whatever that draws.
  static bool EndsUnderWay(const Sequence& sequence);
  // Its rows of plans that are not committed lose it.
  void Forget(const Sequence& sequence);
  int budget() const { return limits_.max_batched_tokens - plan_->num_tokens; }

  const SchedulerLimits limits_;
  KvCache& cache_;
  const absl::Status nonfinite_status_;  // made once: a status with a message allocates
  Sequences running_;                    // in the order in which they started
  Sequences waiting_;                    // by priority, then arrival
  std::array<StepPlan, 2> plans_;
  StepPlan* plan_ = &plans_[0];  // the last
  StepPlan* assumed_ = nullptr;  // of the step under way
  StepCosts costs_;
  std::vector<DraftCandidate> candidates_;  // one a row
  int64_t num_generated_tokens_ = 0;
  int64_t num_drafts_ = 0;
  int64_t num_draft_tokens_ = 0;
  int64_t num_accepted_draft_tokens_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_prompt_tokens_ = 0;
  int64_t prefix_query_tokens_ = 0;
  int64_t prefix_hit_tokens_ = 0;
};

}  // namespace fairlead
