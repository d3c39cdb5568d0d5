// SPDX-License-Identifier: Apache-2.0
// 10^5 random requests through Plan and Commit in virtual time: tiny caches, budgets from 1 up,
// shared prefixes, priorities, cancellations, deadlines and faults, with and without speculation,
// and planned while the step before is under way.
// After every Plan the simulation checks what must always hold, with its own account of what each
// KV slot contains.
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "kernels/sampling_rng.h"
#include "runtime/scheduler.h"
#include "tests/sanitized.h"

namespace fairlead {
namespace {

constexpr int kRequests = kSanitized ? 5'000 : 100'000;
constexpr int kScenarios = 50;
constexpr Token kStop = 3;

struct Scenario {
  SchedulerLimits limits;
  int block_tokens;
  int num_blocks;
  int max_tokens;  // prompt + output of one request, so that one fits
  double arrivals_per_step;
  bool ahead;  // steps are planned while others are under way
};

Scenario MakeScenario(std::mt19937& random) {
  const int budgets[] = {1, 2, 3, 7, 16, 64, 512};
  Scenario s;
  s.limits.max_batched_tokens = budgets[random() % 7];
  s.limits.max_num_seqs = 1 + static_cast<int>(random() % 16);
  s.limits.max_drafts = random() % 3 == 0 ? 0 : 1 + static_cast<int>(random() % 9);
  s.block_tokens = 1 << random() % 5;
  s.num_blocks = 2 + static_cast<int>(random() % 40);
  s.max_tokens = std::min(s.num_blocks * s.block_tokens, 80);
  // Around what a step can finish, so that queues build up and drain.
  s.arrivals_per_step = 0.02 + 0.001 * static_cast<double>(random() % 400);
  s.ahead = s.limits.max_drafts == 0 || random() % 2 == 0;
  return s;
}

// What the simulation knows about a request that has not ended.
struct Live {
  Sequence* sequence;
  bool running = false;
  int num_preemptions = 0;
};

class Simulation {
 public:
  Simulation(const Scenario& scenario, uint32_t seed)
      : scenario_(scenario),
        random_(seed),
        cache_(scenario.num_blocks, scenario.block_tokens, seed % 8 != 0),
        scheduler_(scenario.limits, cache_, 1024),
        slots_(static_cast<size_t>(scenario.num_blocks) * scenario.block_tokens) {}

  void Run(int requests) {
    int64_t idle_bound = 0;
    while ((submitted_ < requests || !live_.empty()) && !::testing::Test::HasFailure()) {
      now_ += absl::Milliseconds(1);
      while (submitted_ < requests && Chance(scenario_.arrivals_per_step)) Submit();
      CancelSome();
      Close(Expire());
      Step();
      // One request alone needs at most max_tokens steps, and each can be computed again for
      // others' sake, but never forever: a run that does not end is a failure, not a time-out.
      ASSERT_LT(++idle_bound, int64_t{requests} * 2000) << "no progress";
    }
    EXPECT_EQ(closed_, submitted_);
    EXPECT_EQ(cache_.num_used_blocks(), 0);
    EXPECT_EQ(cache_.num_free_blocks() + cache_.num_cached_blocks(), cache_.num_blocks());
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), 0);
  }

  int64_t preemptions() const { return scheduler_.num_preemptions(); }
  int64_t hits() const { return scheduler_.prefix_hit_tokens(); }
  int64_t draft_tokens() const { return scheduler_.num_draft_tokens(); }
  int64_t accepted_draft_tokens() const { return scheduler_.num_accepted_draft_tokens(); }
  int64_t planned_ahead() const { return planned_ahead_; }
  int64_t rows_in_vain() const { return rows_in_vain_; }
  const std::map<FinishReason, int>& reasons() const { return reasons_; }

 private:
  // A plan whose step has run on the device, and what it drew.
  struct Begun {
    const StepPlan* plan;
    std::vector<Token> sampled;
  };

  struct Slot {
    Token token = -1;
    int position = -1;
    uint64_t history = 0;  // of all tokens up to this one, and the salt
    bool operator==(const Slot&) const = default;
  };

  int Draw(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  bool Chance(double p) { return static_cast<double>(random_()) < p * 4294967296.0; }

  void Submit() {
    EngineRequest request;
    const int prompt_tokens = 1 + Draw(scenario_.max_tokens - 1);
    // A few families of prompts: common beginnings of random length.
    const Token family = Draw(3);
    const int common = Draw(prompt_tokens + 1);
    for (int i = 0; i < prompt_tokens; ++i) {
      request.prompt.push_back(i < common ? 10 + family : 20 + Draw(50));
    }
    request.max_tokens = std::min(Draw(40), scenario_.max_tokens - prompt_tokens);
    request.stop_tokens = {kStop};
    request.priority = Draw(10) == 0 ? -1 : Draw(10) == 0 ? 1 : 0;
    request.cache_salt = static_cast<uint64_t>(Draw(2));
    request.prompt_logprobs = Draw(20) == 0 ? 0 : -1;
    if (Draw(10) == 0) request.deadline = now_ + absl::Milliseconds(Draw(200));
    auto sequence = MakeSequence(std::move(request), nullptr, now_, scenario_.block_tokens, 100,
                                 scenario_.limits.max_drafts);
    sequence->id = static_cast<uint64_t>(++submitted_);
    live_[sequence->id] = {.sequence = sequence.get()};
    scheduler_.Add(std::move(sequence));
  }

  void CancelSome() {
    if (live_.empty() || !Chance(0.01)) return;
    auto victim = live_.begin();
    std::advance(victim, Draw(static_cast<int>(live_.size())));
    auto sequence = scheduler_.Remove(victim->first);
    ASSERT_NE(sequence, nullptr);
    sequence->result.reason = FinishReason::kCancelled;
    EXPECT_EQ(scheduler_.Remove(sequence->id), nullptr);
    std::vector<std::unique_ptr<Sequence>> one;
    one.push_back(std::move(sequence));
    Close(std::move(one));
  }

  std::vector<std::unique_ptr<Sequence>> Expire() {
    std::vector<std::unique_ptr<Sequence>> expired;
    scheduler_.RemoveExpired(now_, expired);
    for (const auto& sequence : expired) {
      EXPECT_LE(sequence->request.deadline, now_);
      sequence->result.reason = FinishReason::kDeadline;
    }
    return expired;
  }

  void Close(std::vector<std::unique_ptr<Sequence>> ended) {
    for (const auto& sequence : ended) {
      EXPECT_EQ(live_.erase(sequence->id), 1u) << "closed twice";
      EXPECT_TRUE(sequence->blocks.block.empty());
      // The output is what it would be without speculation.
      int known = static_cast<int>(sequence->tokens.size());
      if (sequence->unknown_place >= 0) {
        EXPECT_TRUE(sequence->result.reason == FinishReason::kCancelled ||
                    sequence->result.reason == FinishReason::kDeadline);
        EXPECT_EQ(sequence->tokens[--known], kUnknownToken);
      }
      for (int p = sequence->num_prompt_tokens; p < known; ++p)
        EXPECT_EQ(sequence->tokens[p], DrawnAt(*sequence, p));
      ++closed_;
      ++reasons_[sequence->result.reason];
      if (sequence->result.reason == FinishReason::kLength) {
        EXPECT_EQ(sequence->num_output_tokens(), sequence->request.max_tokens);
      } else if (sequence->result.reason == FinishReason::kStop) {
        EXPECT_EQ(sequence->tokens.back(), kStop);
      }
    }
  }

  void Step() {
    if (under_way_ && !scheduler_.CanPlanAhead()) EndStep();
    planned_ahead_ += under_way_.has_value();
    const StepPlan& plan = scheduler_.Plan(now_);
    CheckRows(plan);
    CheckOrder(plan);
    CheckBlocks();
    WriteAndRead(plan);
    if (::testing::Test::HasFailure()) return;
    if (plan.rows.empty()) return EndStep();
    const Begun begun = {&plan, DrawFor(plan)};
    if (under_way_) EndStep();
    under_way_ = begun;
    if (scenario_.ahead && scheduler_.CanAssume()) {
      std::vector<int> places;
      for (size_t i = 0; i < begun.sampled.size(); ++i) places.push_back(static_cast<int>(i));
      scheduler_.Assume(places);
    } else {
      EndStep();
    }
  }

  void EndStep() {
    if (!under_way_) return;
    for (const PlannedRow& row : under_way_->plan->rows) rows_in_vain_ += row.sequence == nullptr;
    // Always the same, so that drafting always pays.
    scheduler_.RecordTime(absl::Milliseconds(1));
    std::vector<std::unique_ptr<Sequence>> finished;
    scheduler_.Commit(under_way_->sampled, finished);
    under_way_.reset();
    Close(std::move(finished));
  }

  std::vector<Token> DrawFor(const StepPlan& plan) {
    std::vector<Token> sampled;
    for (const PlannedRow& row : plan.rows) {
      bool as_drafted = true;
      for (int i = 0; i < row.num_samples(); ++i) {
        const int position = static_cast<int>(row.sequence->tokens.size()) + i;
        // After a wrong draft anything may come: it must not count.
        sampled.push_back(as_drafted ? DrawnAt(*row.sequence, position) : Draw(80) - 1);
        if (i < row.num_drafts) as_drafted &= sampled.back() == row.sequence->drafts[i];
      }
    }
    return sampled;
  }

  // Whatever the step under way draws, it is the last of this one.
  bool EndsUnderWay(const Sequence& sequence) const {
    if (!under_way_) return false;
    for (const PlannedRow& row : under_way_->plan->rows) {
      if (row.sequence != &sequence) continue;
      const int outputs = sequence.num_output_tokens() - (sequence.unknown_place >= 0 ? 1 : 0);
      return row.sample ? outputs + 1 == sequence.request.max_tokens
                        : row.first_token + row.num_tokens == sequence.num_prompt_tokens &&
                              sequence.request.max_tokens == 0;
    }
    return false;
  }

  // What is drawn there: depends on the sequence alone; now and then the stop token or a fault.
  // Half of the sequences repeat few tokens, so that drafts are often right.
  static Token DrawnAt(const Sequence& sequence, int position) {
    const uint64_t draw = MixBits(sequence.id * 1000003 + static_cast<uint64_t>(position));
    if (draw % 400 == 0) return -1;
    const uint64_t tokens = sequence.id % 2 == 0 ? 50 : 2;
    return draw % 50 == 0 ? kStop : static_cast<Token>(20 + draw % tokens);
  }

  void CheckRows(const StepPlan& plan) {
    // Under a step, those that wait may wait for what ends with it.
    if (!under_way_) {
      EXPECT_EQ(plan.rows.empty(), live_.empty());
    }
    EXPECT_LE(plan.num_tokens, scenario_.limits.max_batched_tokens);
    EXPECT_LE(scheduler_.num_running(), scenario_.limits.max_num_seqs);
    EXPECT_EQ(scheduler_.num_running() + scheduler_.num_waiting(), static_cast<int>(live_.size()));
    int num_tokens = 0;
    std::set<uint64_t> ids;
    for (const PlannedRow& row : plan.rows) {
      const Sequence& s = *row.sequence;
      EXPECT_TRUE(ids.insert(s.id).second) << "two rows of one sequence";
      EXPECT_GE(row.num_tokens, 1);
      EXPECT_EQ(row.first_token, s.num_computed_tokens);
      const int end = row.first_token + row.num_tokens, size = static_cast<int>(s.tokens.size());
      ASSERT_LE(end - row.num_drafts, size);
      EXPECT_EQ(row.sample, end - row.num_drafts == size && s.request.max_tokens > 0);
      CheckDrafts(row, plan);
      // Never more than what is there or drafted needs.
      EXPECT_EQ(static_cast<int>(s.blocks.block.size()), cache_.BlocksFor(std::max(end, size)));
      num_tokens += row.num_tokens;
    }
    EXPECT_EQ(num_tokens, plan.num_tokens);
  }

  void CheckDrafts(const PlannedRow& row, const StepPlan& plan) {
    const Sequence& s = *row.sequence;
    EXPECT_EQ(row.num_drafts, static_cast<int>(s.drafts.size()));
    if (row.num_drafts == 0) return;
    EXPECT_LE(row.num_drafts, scenario_.limits.max_drafts);
    EXPECT_LT(s.num_output_tokens() + row.num_drafts, s.request.max_tokens);
    EXPECT_EQ(std::count(s.drafts.begin(), s.drafts.end(), kStop), 0);
    // Nobody's prompt goes slower for it.
    for (const PlannedRow& other : plan.rows) {
      EXPECT_TRUE(other.sample);
      EXPECT_EQ(other.num_tokens - other.num_drafts, 1);
    }
  }

  // Who runs, who waits, and that everyone who runs is served in every plan.
  void CheckOrder(const StepPlan& plan) {
    std::set<uint64_t> served;
    for (const PlannedRow& row : plan.rows) served.insert(row.sequence->id);
    std::map<int, uint64_t> last_running, first_waiting;  // by priority
    std::pair<int, uint64_t> best = {INT32_MAX, 0};
    bool best_preempted = false;
    for (auto& [id, live] : live_) {
      const bool preempted = live.sequence->result.num_preemptions > live.num_preemptions;
      const bool was_running = live.running;
      const bool has_row = served.count(id) > 0;
      if (was_running) {
        const std::pair<int, uint64_t> rank = {live.sequence->request.priority, id};
        if (rank < best) best = rank, best_preempted = preempted;
      }
      live.running = has_row || (was_running && !preempted);
      EXPECT_EQ(has_row, live.running && !EndsUnderWay(*live.sequence)) << "left out: " << id;
      live.num_preemptions = live.sequence->result.num_preemptions;
      const int priority = live.sequence->request.priority;
      if (live.running) {
        last_running[priority] = std::max(last_running[priority], id);
      } else {
        first_waiting.emplace(priority, id);
        EXPECT_TRUE(live.sequence->blocks.block.empty());
      }
    }
    // Only a waiting one of higher priority may take the blocks of the best of those that run.
    if (best_preempted) {
      const int top = last_running.empty() ? INT32_MAX : last_running.begin()->first;
      EXPECT_LT(top, best.first);
    }
    for (const auto& [priority, id] : first_waiting) {
      if (last_running.count(priority) > 0) {
        EXPECT_LT(last_running[priority], id) << "overtaken";
      }
    }
  }

  void CheckBlocks() {
    std::set<int32_t> used;
    for (const auto& [id, live] : live_) {
      const BlockTable& table = live.sequence->blocks;
      std::set<int32_t> own(table.block.begin(), table.block.end());
      EXPECT_EQ(own.size(), table.block.size()) << "a block twice in one table";
      used.insert(own.begin(), own.end());
    }
    EXPECT_EQ(cache_.num_used_blocks(), static_cast<int>(used.size()));
    EXPECT_EQ(cache_.num_used_blocks() + cache_.num_cached_blocks() + cache_.num_free_blocks(),
              cache_.num_blocks());
  }

  Slot& SlotOf(const Sequence& sequence, int position) {
    const int32_t block =
        sequence.blocks.block[static_cast<size_t>(position / scenario_.block_tokens)];
    return slots_[static_cast<size_t>(block) * scenario_.block_tokens +
                  position % scenario_.block_tokens];
  }

  static Slot Expected(const Sequence& sequence, int position, uint64_t history) {
    Token token = sequence.TokenAt(position);
    if (token == kUnknownToken) token = std::max(DrawnAt(sequence, position), 0);
    return {token, position, MixBits(history ^ static_cast<uint64_t>(token))};
  }

  // As the device would: all rows write, then all rows read everything up to their end. Two that
  // write to one slot, or a block that is shared wrongly, are seen by one of the readers.
  void WriteAndRead(const StepPlan& plan) {
    if (::testing::Test::HasFailure()) return;
    for (const bool write : {true, false}) {
      for (const PlannedRow& row : plan.rows) {
        uint64_t history = MixBits(row.sequence->request.cache_salt);
        for (int p = 0; p < row.first_token + row.num_tokens; ++p) {
          const Slot expected = Expected(*row.sequence, p, history);
          history = expected.history;
          Slot& slot = SlotOf(*row.sequence, p);
          if (write && p >= row.first_token) slot = expected;
          if (!write) {
            ASSERT_TRUE(slot == expected)
                << "sequence " << row.sequence->id << " reads somebody else's position " << p;
          }
        }
      }
    }
  }

  const Scenario scenario_;
  std::mt19937 random_;
  KvCache cache_;
  Scheduler scheduler_;
  std::vector<Slot> slots_;
  std::map<uint64_t, Live> live_;
  std::optional<Begun> under_way_;
  int64_t planned_ahead_ = 0, rows_in_vain_ = 0;
  absl::Time now_ = absl::UnixEpoch();
  int submitted_ = 0;
  int closed_ = 0;
  std::map<FinishReason, int> reasons_;
};

TEST(SchedulerSimTest, RandomRequestsInVirtualTime) {
  int64_t preemptions = 0, hits = 0, drafts = 0, accepted = 0, ahead = 0, in_vain = 0;
  std::map<FinishReason, int> reasons;
  for (int i = 0; i < kScenarios; ++i) {
    std::mt19937 random(static_cast<uint32_t>(1000 + i));
    const Scenario scenario = MakeScenario(random);
    SCOPED_TRACE(::testing::Message()
                 << "scenario " << i << ": budget " << scenario.limits.max_batched_tokens
                 << ", seqs " << scenario.limits.max_num_seqs << ", drafts "
                 << scenario.limits.max_drafts << ", blocks " << scenario.num_blocks << " of "
                 << scenario.block_tokens << ", arrivals " << scenario.arrivals_per_step);
    Simulation simulation(scenario, static_cast<uint32_t>(i));
    simulation.Run(kRequests / kScenarios);
    if (HasFailure()) return;
    preemptions += simulation.preemptions();
    hits += simulation.hits();
    drafts += simulation.draft_tokens();
    accepted += simulation.accepted_draft_tokens();
    ahead += simulation.planned_ahead();
    in_vain += simulation.rows_in_vain();
    for (const auto& [reason, count] : simulation.reasons()) reasons[reason] += count;
  }
  // The simulation has been where it should: a run that never preempts or shares proves nothing.
  EXPECT_GT(preemptions, kRequests / 100);
  EXPECT_GT(hits, kRequests / 2);
  EXPECT_GT(accepted, kRequests / 10);
  EXPECT_GT(drafts - accepted, kRequests / 10);
  EXPECT_GT(ahead, kRequests);
  EXPECT_GT(in_vain, kRequests / 100);
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
        FinishReason::kDeadline, FinishReason::kError}) {
    EXPECT_GT(reasons[reason], kRequests / 1000) << static_cast<int>(reason);
  }
}

}  // namespace
}  // namespace fairlead
