// SPDX-License-Identifier: Apache-2.0
#include "runtime/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace fairlead {
namespace {

// By priority, then arrival. Ids are given in order of arrival and, unlike times, never step back.
bool Before(const Sequence& a, const Sequence& b) {
  if (a.request.priority != b.request.priority) return a.request.priority < b.request.priority;
  return a.id < b.id;
}

// True when the output is complete; then the reason is set.
bool Finished(Sequence& sequence) {
  const auto& stop = sequence.request.stop_tokens;
  if (sequence.num_output_tokens() > 0 &&
      std::find(stop.begin(), stop.end(), sequence.tokens.back()) != stop.end()) {
    sequence.result.reason = FinishReason::kStop;
    return true;
  }
  sequence.result.reason = FinishReason::kLength;
  return sequence.num_output_tokens() == sequence.request.max_tokens;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, KvCache& cache, int max_sequences)
    : limits_(limits),
      cache_(cache),
      nonfinite_status_(absl::InternalError("the model's logits were not finite")) {
  FAIRLEAD_CHECK(limits.max_batched_tokens >= 1 && limits.max_num_seqs >= 1 &&
                 limits.max_drafts >= 0);
  running_.reserve(limits.max_num_seqs);
  for (StepPlan& plan : plans_) plan.rows.reserve(limits.max_num_seqs);
  waiting_.reserve(max_sequences);
  if (limits.max_drafts > 0) candidates_.reserve(limits.max_num_seqs);
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  const int max_tokens = sequence->num_prompt_tokens + sequence->request.max_tokens;
  FAIRLEAD_CHECK(cache_.BlocksFor(max_tokens) <= cache_.num_blocks());
  Wait(std::move(sequence));
}

std::unique_ptr<Sequence> Scheduler::Remove(uint64_t id) {
  for (Sequences* list : {&running_, &waiting_}) {
    const auto it =
        std::find_if(list->begin(), list->end(), [id](const auto& s) { return s->id == id; });
    if (it == list->end()) continue;
    std::unique_ptr<Sequence> sequence = std::move(*it);
    list->erase(it);
    Forget(*sequence);
    cache_.Release(sequence->blocks);
    return sequence;
  }
  return nullptr;
}

void Scheduler::RemoveExpired(absl::Time now, Sequences& expired) {
  for (Sequences* list : {&running_, &waiting_}) {
    auto out = list->begin();
    for (auto& sequence : *list) {
      if (sequence->request.deadline <= now) {
        Forget(*sequence);
        cache_.Release(sequence->blocks);
        expired.push_back(std::move(sequence));
      } else {
        *out++ = std::move(sequence);
      }
    }
    list->erase(out, list->end());
  }
}

void Scheduler::RemoveAll(Sequences& removed) { RemoveExpired(absl::InfiniteFuture(), removed); }

void Scheduler::Forget(const Sequence& sequence) {
  for (StepPlan& plan : plans_) {
    for (PlannedRow& row : plan.rows) {
      if (row.sequence == &sequence) row.sequence = nullptr;
    }
  }
}

bool Scheduler::EndsUnderWay(const Sequence& sequence) {
  if (sequence.num_computed_tokens == static_cast<int>(sequence.tokens.size())) return true;
  return sequence.unknown_place >= 0 && sequence.num_output_tokens() == sequence.request.max_tokens;
}

bool Scheduler::CanAssume() const {
  return std::none_of(plan_->rows.begin(), plan_->rows.end(), [](const PlannedRow& row) {
    return row.sequence != nullptr && row.sequence->needs_known_tokens();
  });
}

void Scheduler::Assume(absl::Span<const int> places) {
  FAIRLEAD_CHECK(assumed_ == nullptr);
  assumed_ = plan_;
  for (const PlannedRow& row : plan_->rows) {
    const absl::Span<const int> own = places.first(row.num_samples());
    places.remove_prefix(own.size());
    if (row.sequence == nullptr) continue;
    row.sequence->num_computed_tokens += row.num_tokens;
    if (!row.sample) continue;
    row.sequence->tokens.push_back(kUnknownToken);
    row.sequence->unknown_place = own[0];
  }
  FAIRLEAD_CHECK(places.empty());
}

bool Scheduler::CanPlanAhead() const {
  int needed = 0;  // what PlanRunning will take: then nobody has to give up a block
  for (const auto& sequence : running_) {
    if (EndsUnderWay(*sequence)) continue;
    needed += std::max(0, cache_.BlocksFor(static_cast<int>(sequence->tokens.size())) -
                              static_cast<int>(sequence->blocks.block.size()));
  }
  if (cache_.num_available_blocks() < needed) return false;
  if (waiting_.empty()) return true;
  const Sequence& next = *waiting_.front();
  if (next.needs_known_tokens() && num_running() < limits_.max_num_seqs) return false;
  return running_.empty() || running_[LastRunning()]->request.priority <= next.request.priority;
}

const StepPlan& Scheduler::Plan(absl::Time now) {
  plan_ = assumed_ == &plans_[0] ? &plans_[1] : &plans_[0];
  plan_->rows.clear();
  plan_->num_tokens = 0;
  const int64_t preemptions_before = num_preemptions_;
  const int ending = PlanRunning();
  // Blocks that were just taken from one sequence are meant for those that run, not for the next in
  // line.
  if (num_preemptions_ == preemptions_before) PlanWaiting(now);
  if (limits_.max_drafts > 0 && OnlyDecodes()) PlanDrafts();
  FAIRLEAD_CHECK(plan_->rows.size() + ending == running_.size());  // nobody is left out
  FAIRLEAD_CHECK(!running_.empty() || waiting_.empty());           // and something always runs
  return *plan_;
}

void Scheduler::RecordTime(absl::Duration time) {
  if (limits_.max_drafts == 0) return;
  // As many tokens as are drawn: a prompt's chunk costs something else.
  const StepPlan& plan = assumed_ != nullptr ? *assumed_ : *plan_;
  int samples = 0;
  for (const PlannedRow& row : plan.rows) samples += row.num_samples();
  if (samples == plan.num_tokens) costs_.Record(samples, time);
}

void Scheduler::Commit(absl::Span<const Token> sampled, Sequences& finished) {
  const bool assumed = assumed_ != nullptr;
  const StepPlan& plan = assumed ? *assumed_ : *plan_;
  assumed_ = nullptr;
  for (const PlannedRow& row : plan.rows) {
    const absl::Span<const Token> own = sampled.first(row.num_samples());
    sampled.remove_prefix(own.size());
    if (row.sequence == nullptr) continue;
    if (assumed) Unassume(row);
    if (!Advance(row, own)) continue;
    Sequence* const ended = row.sequence;
    cache_.Release(ended->blocks);
    const auto it = std::find_if(running_.begin(), running_.end(),
                                 [ended](const auto& s) { return s.get() == ended; });
    finished.push_back(std::move(*it));
    running_.erase(it);
    for (PlannedRow& ahead : plan_->rows) {
      if (plan_ != &plan && ahead.sequence == ended) ahead.sequence = nullptr;
    }
  }
  FAIRLEAD_CHECK(sampled.empty());
}

void Scheduler::Unassume(const PlannedRow& row) {
  Sequence& sequence = *row.sequence;
  sequence.num_computed_tokens -= row.num_tokens;
  if (!row.sample) return;
  FAIRLEAD_CHECK(sequence.tokens.back() == kUnknownToken);
  sequence.tokens.pop_back();
  sequence.unknown_place = -1;
}

bool Scheduler::Advance(const PlannedRow& row, absl::Span<const Token> own) {
  Sequence& sequence = *row.sequence;
  int accepted = 0;  // drafts
  while (accepted < row.num_drafts && own[accepted] == sequence.drafts[accepted]) ++accepted;
  num_accepted_draft_tokens_ += accepted;
  if (sequence.nonfinite_logits || (row.sample && own[accepted] < 0)) {
    // Not published: nobody else should build on these keys and values.
    num_generated_tokens_ += accepted;
    sequence.result.reason = FinishReason::kError;
    sequence.result.status = nonfinite_status_;
    return true;
  }
  sequence.num_computed_tokens += row.num_tokens - row.num_drafts + accepted;
  if (row.sample) {
    for (const Token token : own.first(accepted + 1)) sequence.Append(token);
    num_generated_tokens_ += accepted + 1;
  }
  sequence.drafts.clear();
  cache_.Publish(sequence.request.cache_salt, sequence.blocks,
                 absl::MakeConstSpan(sequence.tokens.data(), sequence.num_computed_tokens));
  if (row.num_drafts > 0) cache_.Shrink(sequence.blocks, sequence.num_computed_tokens);
  const bool all_computed =
      sequence.num_computed_tokens == static_cast<int>(sequence.tokens.size());
  return (row.sample || all_computed) && Finished(sequence);
}

int Scheduler::PlanRunning() {
  int ending = 0;
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (EndsUnderWay(sequence)) {
      ++ending;
      ++i;
      continue;
    }
    // Blocks for all the tokens a sequence has were reserved when it started or by its last Grow.
    const int tokens = static_cast<int>(sequence.tokens.size());
    bool running = true;
    while (running && !cache_.Grow(sequence.blocks, tokens)) {
      FAIRLEAD_CHECK(assumed_ == nullptr);  // CanPlanAhead
      const size_t last = LastRunning();
      running = last != i;
      Preempt(last);
      if (last < i) --i;
    }
    if (!running) continue;
    AddRow(sequence);
    ++i;
  }
  return ending;
}

void Scheduler::PlanWaiting(absl::Time now) {
  while (!waiting_.empty() && budget() > 0) {
    Sequence& sequence = *waiting_.front();
    const bool ahead = assumed_ != nullptr;
    if (ahead && sequence.needs_known_tokens()) return;
    if (num_running() < limits_.max_num_seqs && Reserve(sequence)) {
      Start(now);
    } else if (ahead || !PreemptBelow(sequence)) {
      return;
    }
  }
}

void Scheduler::AddRow(Sequence& sequence) {
  const int left = static_cast<int>(sequence.tokens.size()) - sequence.num_computed_tokens;
  FAIRLEAD_CHECK(left >= 1);
  const int num_tokens = std::min(left, budget());
  const bool sample = num_tokens == left && sequence.request.max_tokens > 0;
  plan_->rows.push_back({&sequence, sequence.num_computed_tokens, num_tokens, sample});
  plan_->num_tokens += num_tokens;
}

void Scheduler::RemoveRow(const Sequence& sequence) {
  const auto it = std::find_if(plan_->rows.begin(), plan_->rows.end(),
                               [&sequence](const auto& row) { return row.sequence == &sequence; });
  if (it == plan_->rows.end()) return;
  plan_->num_tokens -= it->num_tokens;
  plan_->rows.erase(it);
}

bool Scheduler::OnlyDecodes() const {
  return std::all_of(plan_->rows.begin(), plan_->rows.end(),
                     [](const PlannedRow& row) { return row.sample && row.num_tokens == 1; });
}

void Scheduler::PlanDrafts() {
  candidates_.clear();
  for (const PlannedRow& row : plan_->rows) {
    const Sequence& sequence = *row.sequence;
    DraftCandidate& candidate = candidates_.emplace_back();
    if (sequence.drafter == nullptr || !sequence.drafter->has_match()) continue;
    // The last token of all is drawn, not drafted.
    const int left = sequence.request.max_tokens - sequence.num_output_tokens() - 1;
    candidate.limit = std::min(limits_.max_drafts, left);
    candidate.acceptance = sequence.drafter->acceptance();
  }
  ChooseDrafts(costs_, static_cast<int>(plan_->rows.size()), budget(), absl::MakeSpan(candidates_));
  for (size_t i = 0; i < candidates_.size(); ++i) AddDrafts(plan_->rows[i], candidates_[i].drafts);
}

void Scheduler::AddDrafts(PlannedRow& row, int count) {
  if (count == 0) return;
  Sequence& sequence = *row.sequence;
  std::vector<Token>& drafts = sequence.drafts;
  drafts.resize(count);
  sequence.drafter->Draft(sequence.tokens, absl::MakeSpan(drafts));
  // Nothing follows a stop token.
  const auto& stop = sequence.request.stop_tokens;
  drafts.erase(std::find_first_of(drafts.begin(), drafts.end(), stop.begin(), stop.end()),
               drafts.end());
  // A guess evicts no cached prefix: it fits what the sequence holds and what is free.
  const size_t tokens = sequence.tokens.size();
  const size_t blocks = sequence.blocks.block.size() + cache_.num_free_blocks();
  drafts.resize(std::min(drafts.size(), blocks * cache_.block_tokens() - tokens));
  FAIRLEAD_CHECK(cache_.Grow(sequence.blocks, static_cast<int>(tokens + drafts.size())));
  row.num_drafts = static_cast<int>(drafts.size());
  row.num_tokens += row.num_drafts;
  plan_->num_tokens += row.num_drafts;
  num_drafts_ += row.num_drafts > 0;
  num_draft_tokens_ += row.num_drafts;
}

bool Scheduler::Reserve(Sequence& sequence) {
  // A request that scores its prompt needs the hidden state of every position, so it reuses none.
  const int reused = sequence.scores_prompt() ? 0
                                              : cache_.Attach(sequence.request.cache_salt,
                                                              sequence.tokens, sequence.blocks);
  const int tokens = static_cast<int>(sequence.tokens.size());
  const int missing = cache_.BlocksFor(tokens) - static_cast<int>(sequence.blocks.block.size());
  if (missing + num_running() > cache_.num_available_blocks()) {
    cache_.Release(sequence.blocks);
    return false;
  }
  FAIRLEAD_CHECK(cache_.Grow(sequence.blocks, tokens));
  sequence.num_computed_tokens = reused;
  return true;
}

void Scheduler::Start(absl::Time now) {
  Sequence& sequence = *waiting_.front();
  running_.push_back(std::move(waiting_.front()));
  waiting_.erase(waiting_.begin());
  if (sequence.result.first_scheduled == absl::InfinitePast()) {
    sequence.result.first_scheduled = now;
    sequence.result.cached_prompt_tokens = sequence.num_computed_tokens;
    num_prompt_tokens_ += sequence.num_prompt_tokens;
    if (!sequence.scores_prompt()) prefix_query_tokens_ += sequence.num_prompt_tokens;
    prefix_hit_tokens_ += sequence.num_computed_tokens;
  }
  AddRow(sequence);
}

size_t Scheduler::LastRunning() const {
  const auto last = std::max_element(running_.begin(), running_.end(),
                                     [](const auto& a, const auto& b) { return Before(*a, *b); });
  return static_cast<size_t>(last - running_.begin());
}

bool Scheduler::PreemptBelow(const Sequence& sequence) {
  if (running_.empty()) return false;
  const size_t last = LastRunning();
  if (running_[last]->request.priority <= sequence.request.priority) return false;
  // Nobody is thrown out in vain: all that could be must be enough.
  int available = cache_.num_available_blocks();
  for (const auto& running : running_) {
    if (running->request.priority <= sequence.request.priority) continue;
    available += static_cast<int>(running->blocks.block.size());
  }
  if (cache_.BlocksFor(static_cast<int>(sequence.tokens.size())) > available) return false;
  Preempt(last);
  return true;
}

void Scheduler::Preempt(size_t running) {
  std::unique_ptr<Sequence> sequence = std::move(running_[running]);
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(running));
  RemoveRow(*sequence);
  cache_.Release(sequence->blocks);
  sequence->num_computed_tokens = 0;
  ++sequence->result.num_preemptions;
  ++num_preemptions_;
  Wait(std::move(sequence));
}

void Scheduler::Wait(std::unique_ptr<Sequence> sequence) {
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence,
                                      [](const auto& a, const auto& b) { return Before(*a, *b); });
  waiting_.insert(place, std::move(sequence));
}

}  // namespace fairlead
