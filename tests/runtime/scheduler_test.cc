// SPDX-License-Identifier: Apache-2.0
#include "runtime/scheduler.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kBlockTokens = 4;
constexpr Token kStop = 77;

// One row, as the tests write it down.
struct Row {
  uint64_t id;
  int first_token;
  int num_tokens;
  bool sample;
  int num_drafts = 0;
  bool operator==(const Row&) const = default;
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << "{" << row.id << ", " << row.first_token << ", " << row.num_tokens << ", " << row.sample
       << ", " << row.num_drafts << "}";
}

struct RequestOptions {
  int max_tokens = 4;
  int priority = 0;
  absl::Time deadline = absl::InfiniteFuture();
  int prompt_logprobs = -1;
  Token first_token = -1;          // of the prompt; -1: its own
  std::vector<Token> prompt = {};  // in place of one that counts up
};

class SchedulerTest : public ::testing::Test {
 protected:
  void Make(const SchedulerLimits& limits, int num_blocks) {
    cache_ = std::make_unique<KvCache>(num_blocks, kBlockTokens, true);
    scheduler_ = std::make_unique<Scheduler>(limits, *cache_, 64);
    max_drafts_ = limits.max_drafts;
  }

  // A prompt that shares no block with any other, unless first_token says so.
  Sequence* Add(uint64_t id, int prompt_tokens, const RequestOptions& options = {}) {
    EngineRequest request;
    const Token first =
        options.first_token >= 0 ? options.first_token : static_cast<Token>(1000 * id);
    for (int i = 0; i < prompt_tokens; ++i) request.prompt.push_back(first + i);
    if (!options.prompt.empty()) request.prompt = options.prompt;
    request.max_tokens = options.max_tokens;
    request.priority = options.priority;
    request.deadline = options.deadline;
    request.prompt_logprobs = options.prompt_logprobs;
    request.stop_tokens = {kStop};
    auto sequence =
        MakeSequence(std::move(request), nullptr, now_, kBlockTokens, 100000, max_drafts_);
    sequence->id = id;
    Sequence* const borrowed = sequence.get();
    scheduler_->Add(std::move(sequence));
    return borrowed;
  }

  std::vector<Row> Plan() {
    std::vector<Row> rows;
    int num_tokens = 0;
    num_samples_ = 0;
    const StepPlan& plan = scheduler_->Plan(now_);
    for (const PlannedRow& row : plan.rows) {
      rows.push_back(
          {row.sequence->id, row.first_token, row.num_tokens, row.sample, row.num_drafts});
      num_samples_ += static_cast<size_t>(row.num_samples());
      num_tokens += row.num_tokens;
      EXPECT_GE(static_cast<int>(row.sequence->blocks.block.size()) * kBlockTokens,
                row.first_token + row.num_tokens);
    }
    EXPECT_EQ(num_tokens, plan.num_tokens);
    return rows;
  }

  // Every sample is `token`. Returns the ids of the finished.
  std::vector<uint64_t> Commit(Token token = 5) {
    finished_.clear();
    scheduler_->Commit(std::vector<Token>(num_samples_, token), finished_);
    std::vector<uint64_t> ids;
    for (const auto& sequence : finished_) ids.push_back(sequence->id);
    return ids;
  }

  std::vector<Row> Step() {
    const std::vector<Row> rows = Plan();
    Commit();
    return rows;
  }

  absl::Time now_ = absl::FromUnixSeconds(100);
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<Sequence>> finished_;
  size_t num_samples_ = 0;
  int max_drafts_ = 0;
};

TEST_F(SchedulerTest, PlanIsEmptyWhenNothingWaits) {
  Make({}, 8);
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(SchedulerTest, PrefillsInChunksThenDecodes) {
  Make({.max_batched_tokens = 4, .max_num_seqs = 4}, 8);
  Add(1, 10, {.max_tokens = 2});
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 0, 4, false}));
  EXPECT_THAT(Commit(), IsEmpty());
  EXPECT_THAT(Step(), ElementsAre(Row{1, 4, 4, false}));
  EXPECT_THAT(Step(), ElementsAre(Row{1, 8, 2, true}));
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 10, 1, true}));
  EXPECT_THAT(Commit(), ElementsAre(1));
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kLength);
  EXPECT_EQ(finished_[0]->num_output_tokens(), 2);
  EXPECT_EQ(cache_->num_used_blocks(), 0);
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(SchedulerTest, DecodesAndPrefillsShareAStep) {
  Make({.max_batched_tokens = 8, .max_num_seqs = 4}, 32);
  Add(1, 4);
  Step();
  Add(2, 20);
  EXPECT_THAT(Step(), ElementsAre(Row{1, 4, 1, true}, Row{2, 0, 7, false}));
  EXPECT_THAT(Step(), ElementsAre(Row{1, 5, 1, true}, Row{2, 7, 7, false}));
}

TEST_F(SchedulerTest, AStopTokenEndsTheOutput) {
  Make({}, 8);
  Add(1, 3, {.max_tokens = 9});
  Plan();
  EXPECT_THAT(Commit(kStop), ElementsAre(1));
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kStop);
  EXPECT_EQ(finished_[0]->tokens.back(), kStop);
}

TEST_F(SchedulerTest, AStopTokenInThePromptDoesNot) {
  Make({}, 8);
  Add(1, 1, {.max_tokens = 2, .first_token = kStop});
  Plan();
  EXPECT_THAT(Commit(), IsEmpty());
  Plan();
  EXPECT_THAT(Commit(), ElementsAre(1));
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, MaxTokensZeroComputesThePromptAlone) {
  Make({.max_batched_tokens = 4, .max_num_seqs = 4}, 8);
  Add(1, 6, {.max_tokens = 0});
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 0, 4, false}));
  EXPECT_THAT(Commit(), IsEmpty());
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 4, 2, false}));
  EXPECT_THAT(Commit(), ElementsAre(1));
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kLength);
  EXPECT_EQ(finished_[0]->num_output_tokens(), 0);
}

TEST_F(SchedulerTest, EveryRunningSequenceIsInEveryPlan) {
  Make({.max_batched_tokens = 6, .max_num_seqs = 8}, 32);
  Add(1, 2, {.max_tokens = 9});
  Add(2, 2, {.max_tokens = 9});
  EXPECT_THAT(Step(), ElementsAre(Row{1, 0, 2, true}, Row{2, 0, 2, true}));
  // A long prompt takes what the decodes leave, and who comes after it waits until it leaves
  // something.
  Add(3, 10, {.max_tokens = 9});
  Add(4, 20, {.max_tokens = 9, .priority = -1});
  Add(5, 1, {.max_tokens = 9});
  EXPECT_THAT(Step(), ElementsAre(Row{1, 2, 1, true}, Row{2, 2, 1, true}, Row{4, 0, 4, false}));
  for (int first = 4; first < 20; first += 4) {
    const int decoded = 2 + first / 4;
    EXPECT_THAT(Step(), ElementsAre(Row{1, decoded, 1, true}, Row{2, decoded, 1, true},
                                    Row{4, first, 4, first == 16}));
  }
}

TEST_F(SchedulerTest, ABudgetOfOneFinishesEveryone) {
  Make({.max_batched_tokens = 1, .max_num_seqs = 3}, 32);
  Add(1, 2, {.max_tokens = 3});
  Add(2, 2, {.max_tokens = 3});
  std::vector<uint64_t> order;
  std::map<uint64_t, int> tokens;
  for (int step = 0; step < 8; ++step) {
    const std::vector<Row> rows = Plan();
    ASSERT_EQ(rows.size(), 1u);
    tokens[rows[0].id] += rows[0].num_tokens;
    for (const uint64_t id : Commit()) order.push_back(id);
  }
  EXPECT_THAT(order, ElementsAre(1, 2));
  EXPECT_EQ(tokens[1], 4);
  EXPECT_EQ(tokens[2], 4);
}

TEST_F(SchedulerTest, MoreSeatsThanBudget) {
  Make({.max_batched_tokens = 2, .max_num_seqs = 8}, 32);
  for (uint64_t id = 1; id <= 4; ++id) Add(id, 1, {.max_tokens = 2});
  EXPECT_THAT(Step(), ElementsAre(Row{1, 0, 1, true}, Row{2, 0, 1, true}));
  EXPECT_THAT(Step(), ElementsAre(Row{1, 1, 1, true}, Row{2, 1, 1, true}));
  EXPECT_THAT(Step(), ElementsAre(Row{3, 0, 1, true}, Row{4, 0, 1, true}));
}

TEST_F(SchedulerTest, PriorityThenArrival) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 1}, 32);
  Add(1, 4, {.max_tokens = 1, .priority = 1});
  Add(2, 4, {.max_tokens = 1});
  Add(3, 4, {.max_tokens = 1});
  Add(4, 4, {.max_tokens = 1, .priority = -1});
  std::vector<uint64_t> order;
  for (int i = 0; i < 4; ++i) order.push_back(Step()[0].id);
  EXPECT_THAT(order, ElementsAre(4, 2, 3, 1));
}

TEST_F(SchedulerTest, ANewSequenceWaitsForASeat) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2}, 32);
  for (uint64_t id = 1; id <= 3; ++id) Add(id, 4, {.max_tokens = 2});
  EXPECT_EQ(Step().size(), 2u);
  EXPECT_EQ(scheduler_->num_running(), 2);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  Step();
  EXPECT_THAT(Step(), ElementsAre(Row{3, 0, 4, true}));
}

TEST_F(SchedulerTest, AHigherPriorityTakesTheSeatOfTheLatestOfTheLowest) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2}, 32);
  Add(1, 4, {.max_tokens = 9, .priority = 1});
  Add(2, 4, {.max_tokens = 9, .priority = 1});
  Step();
  Add(3, 4, {.max_tokens = 9, .priority = 1});  // equal: waits
  EXPECT_THAT(Step(), ElementsAre(Row{1, 4, 1, true}, Row{2, 4, 1, true}));
  Add(4, 4, {.max_tokens = 9});
  EXPECT_THAT(Step(), ElementsAre(Row{1, 5, 1, true}, Row{4, 0, 4, true}));
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
}

TEST_F(SchedulerTest, PreemptsTheLatestOfTheLowestPriorityAndKeepsItsOutput) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 5);
  Add(1, 4, {.max_tokens = 12});
  Sequence* const second = Add(2, 4, {.max_tokens = 12});
  Step();  // two blocks used, and five tokens each: both need a second block next
  Step();
  for (int i = 0; i < 3; ++i) Step();  // eight tokens computed each
  EXPECT_EQ(cache_->num_used_blocks(), 4);
  // Two want a third block and one is left: 1 takes it, 2 goes.
  EXPECT_THAT(Step(), ElementsAre(Row{1, 8, 1, true}));
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  EXPECT_EQ(second->result.num_preemptions, 1);
  EXPECT_EQ(second->num_computed_tokens, 0);
  EXPECT_EQ(second->num_output_tokens(), 5);
  EXPECT_TRUE(second->blocks.block.empty());
  while (scheduler_->num_running() == 1 && scheduler_->num_waiting() == 1) Step();
  // Computed again from where the cache still knows it, its own output included, and then it goes
  // on.
  while (scheduler_->num_running() + scheduler_->num_waiting() > 0) {
    Plan();
    const std::vector<uint64_t> ids = Commit();
    if (!ids.empty()) {
      EXPECT_EQ(finished_[0]->num_output_tokens(), 12);
    }
  }
  EXPECT_EQ(cache_->num_used_blocks(), 0);
}

TEST_F(SchedulerTest, PreemptsTheLowerPriorityThoughItCameEarlier) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 5);
  Sequence* const low = Add(1, 4, {.max_tokens = 12, .priority = 1});
  Sequence* const high = Add(2, 4, {.max_tokens = 12});
  while (scheduler_->num_preemptions() == 0) Step();
  EXPECT_EQ(low->result.num_preemptions, 1);
  EXPECT_EQ(high->result.num_preemptions, 0);
}

TEST_F(SchedulerTest, AWaitingSequenceIsAdmittedWithASpareBlockForEachRunningOne) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 4);
  Add(1, 8, {.max_tokens = 3});
  Step();
  Add(2, 8, {.max_tokens = 1});  // two blocks are free, but 1 will want one of them
  EXPECT_THAT(Step(), ElementsAre(Row{1, 8, 1, true}));
  EXPECT_THAT(Step(), ElementsAre(Row{1, 9, 1, true}));
  EXPECT_THAT(Step(), ElementsAre(Row{2, 0, 8, true}));
  EXPECT_EQ(scheduler_->num_preemptions(), 0);
}

TEST_F(SchedulerTest, ReusesACachedPrefix) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 32);
  Add(1, 10, {.max_tokens = 1, .first_token = 0});
  Step();
  const Sequence* const second = Add(2, 12, {.max_tokens = 1, .first_token = 0});
  EXPECT_THAT(Plan(), ElementsAre(Row{2, 8, 4, true}));
  EXPECT_EQ(second->result.cached_prompt_tokens, 8);
  EXPECT_EQ(scheduler_->prefix_query_tokens(), 22);
  EXPECT_EQ(scheduler_->prefix_hit_tokens(), 8);
  EXPECT_EQ(scheduler_->num_prompt_tokens(), 22);
}

TEST_F(SchedulerTest, TheSecondOfTwoEqualPromptsProfitsWhenItStartsLater) {
  Make({.max_batched_tokens = 16, .max_num_seqs = 4}, 32);
  Add(1, 16, {.first_token = 0});
  Add(2, 16, {.first_token = 0});
  EXPECT_THAT(Step(), ElementsAre(Row{1, 0, 16, true}));
  EXPECT_THAT(Step(), ElementsAre(Row{1, 16, 1, true}, Row{2, 12, 4, true}));
}

TEST_F(SchedulerTest, AScoredPromptIsComputedWhole) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 32);
  Add(1, 10, {.max_tokens = 1, .first_token = 0});
  Step();
  const Sequence* const scored = Add(2, 10, {.prompt_logprobs = 0, .first_token = 0});
  EXPECT_THAT(Plan(), ElementsAre(Row{2, 0, 10, true}));
  EXPECT_EQ(scored->result.cached_prompt_tokens, 0);
  EXPECT_EQ(scheduler_->prefix_query_tokens(), 10);
}

TEST_F(SchedulerTest, NonfiniteLogitsEndOneRequestAndAreNotShared) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 4}, 32);
  Add(1, 8);
  Add(2, 8);
  Plan();
  scheduler_->Commit({-1, 5}, finished_);
  ASSERT_EQ(finished_.size(), 1u);
  EXPECT_EQ(finished_[0]->id, 1u);
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kError);
  EXPECT_EQ(finished_[0]->result.status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(cache_->num_cached_blocks(), 0);
  EXPECT_THAT(Step(), ElementsAre(Row{2, 8, 1, true}));
}

TEST_F(SchedulerTest, RemoveFreesARunningAndAWaitingOne) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 1}, 32);
  Add(1, 8);
  Add(2, 8);
  Step();
  EXPECT_EQ(scheduler_->Remove(3), nullptr);
  const auto waiting = scheduler_->Remove(2);
  ASSERT_NE(waiting, nullptr);
  EXPECT_EQ(waiting->id, 2u);
  const auto running = scheduler_->Remove(1);
  ASSERT_NE(running, nullptr);
  EXPECT_EQ(cache_->num_used_blocks(), 0);
  EXPECT_EQ(scheduler_->Remove(1), nullptr);
  EXPECT_THAT(Plan(), IsEmpty());
}

TEST_F(SchedulerTest, RemoveExpiredTakesRunningAndWaitingOnes) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2}, 32);
  Add(1, 4, {.deadline = now_ + absl::Seconds(2)});
  Add(2, 4);
  Add(3, 4, {.deadline = now_ + absl::Seconds(1)});
  Step();
  std::vector<std::unique_ptr<Sequence>> expired;
  scheduler_->RemoveExpired(now_, expired);
  EXPECT_THAT(expired, IsEmpty());
  scheduler_->RemoveExpired(now_ + absl::Seconds(1), expired);
  ASSERT_EQ(expired.size(), 1u);
  EXPECT_EQ(expired[0]->id, 3u);
  scheduler_->RemoveExpired(now_ + absl::Seconds(5), expired);
  ASSERT_EQ(expired.size(), 2u);
  EXPECT_EQ(expired[1]->id, 1u);
  EXPECT_TRUE(expired[1]->blocks.block.empty());
  EXPECT_THAT(Step(), ElementsAre(Row{2, 4, 1, true}));
}

TEST_F(SchedulerTest, FirstScheduledIsTheTimeOfTheFirstRow) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 1}, 32);
  const Sequence* const first = Add(1, 4, {.max_tokens = 1});
  const Sequence* const second = Add(2, 4);
  EXPECT_EQ(first->result.first_scheduled, absl::InfinitePast());
  Plan();
  EXPECT_EQ(first->result.first_scheduled, now_);
  Commit();
  EXPECT_EQ(second->result.first_scheduled, absl::InfinitePast());
  now_ += absl::Seconds(1);
  Plan();
  EXPECT_EQ(second->result.first_scheduled, now_);
}

// Every step of single tokens takes a millisecond, so that as much as may be is drafted; prompts
// repeat one token, which is what is drafted.
class SchedulerDraftsTest : public SchedulerTest {
 protected:
  std::vector<Row> StepTimed(Token token = 5) {
    const std::vector<Row> rows = Plan();
    scheduler_->RecordTime(absl::Milliseconds(1));
    Commit(token);
    return rows;
  }
};

TEST_F(SchedulerDraftsTest, BeginWhenPlainDecodingIsMeasuredAndGrow) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2, .max_drafts = 3}, 32);
  const Sequence* const sequence = Add(1, 0, {.max_tokens = 40, .prompt = {5, 5, 5, 5}});
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 0, 4, true}));
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 4, 1, true}));
  // Twice as many tokens as are known are tried at most.
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 5, 2, true, 1}));
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 7, 4, true, 3}));
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 11, 4, true, 3}));
  EXPECT_EQ(sequence->tokens, std::vector<Token>(16, 5));
  EXPECT_EQ(scheduler_->num_drafts(), 3);
  EXPECT_EQ(scheduler_->num_draft_tokens(), 7);
  EXPECT_EQ(scheduler_->num_accepted_draft_tokens(), 7);
  EXPECT_EQ(scheduler_->num_generated_tokens(), 12);
}

TEST_F(SchedulerDraftsTest, WhatIsRejectedLeavesNothingBehind) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2, .max_drafts = 3}, 32);
  const Sequence* const sequence = Add(1, 0, {.max_tokens = 40, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 3; ++i) StepTimed();
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 7, 4, true, 3}));
  EXPECT_EQ(sequence->blocks.block.size(), 3u);
  Commit(6);  // 5 was drafted
  EXPECT_EQ(sequence->tokens, (std::vector<Token>{5, 5, 5, 5, 5, 5, 5, 5, 6}));
  EXPECT_EQ(sequence->num_computed_tokens, 8);
  EXPECT_EQ(sequence->blocks.block.size(), 2u);
  EXPECT_EQ(sequence->blocks.published_blocks, 2);
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 8, 1, true}));
}

TEST_F(SchedulerDraftsTest, ASampleThatIsNotFiniteCountsOnlyWhereItIsReached) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2, .max_drafts = 2}, 32);
  Add(1, 0, {.max_tokens = 40, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 3; ++i) StepTimed();
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 7, 3, true, 2}));
  scheduler_->Commit({6, -1, -1}, finished_);
  EXPECT_THAT(finished_, IsEmpty());
  StepTimed();  // 5 again, and no match yet
  StepTimed();
  // What follows 5, 5 latest is 6 and then 5.
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 10, 3, true, 2}));
  scheduler_->Commit({6, -1, 5}, finished_);
  ASSERT_EQ(finished_.size(), 1u);
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kError);
  EXPECT_EQ(cache_->num_used_blocks(), 0);
}

TEST_F(SchedulerDraftsTest, EndWithTheOutput) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2, .max_drafts = 3}, 32);
  Add(1, 0, {.max_tokens = 7, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 3; ++i) StepTimed();
  // Three are left, the last of which is drawn.
  EXPECT_THAT(Plan(), ElementsAre(Row{1, 7, 3, true, 2}));
  EXPECT_THAT(Commit(), ElementsAre(1));
  EXPECT_EQ(finished_[0]->num_output_tokens(), 7);
  EXPECT_EQ(finished_[0]->result.reason, FinishReason::kLength);
}

TEST_F(SchedulerDraftsTest, EndBeforeAStopToken) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 1, .max_drafts = 7}, 32);
  Add(1, 0, {.max_tokens = 40, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 4; ++i) StepTimed();
  scheduler_->Remove(1);
  Add(2, 0, {.max_tokens = 9, .prompt = {8, 5, 8, kStop, 9, 8}});
  StepTimed();
  EXPECT_THAT(Plan(), ElementsAre(Row{2, 6, 2, true, 1}));  // 8, not the stop token after it
}

TEST_F(SchedulerDraftsTest, TakeTheBudgetThatNobodyWants) {
  Make({.max_batched_tokens = 4, .max_num_seqs = 2, .max_drafts = 7}, 32);
  Add(1, 0, {.max_tokens = 40, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 3; ++i) StepTimed();
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 7, 4, true, 3}));
  // A prompt takes the budget, and a step with more than one token of it has no drafts.
  Add(2, 4, {.max_tokens = 8});
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 11, 1, true}, Row{2, 0, 3, false}));
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 12, 3, true, 2}, Row{2, 3, 1, true}));
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 15, 3, true, 2}, Row{2, 4, 1, true}));
}

TEST_F(SchedulerDraftsTest, StayInTheBlocksHeldWhenNoneIsLeft) {
  Make({.max_batched_tokens = 64, .max_num_seqs = 2, .max_drafts = 7}, 8);
  Add(1, 0, {.max_tokens = 19, .prompt = {5, 5, 5, 5}});
  for (int i = 0; i < 4; ++i) StepTimed();
  Add(2, 12, {.max_tokens = 3});
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 11, 1, true}, Row{2, 0, 12, true}));
  // All blocks are taken: of 6 drafts the first sequence has slots for 3 in its fourth.
  EXPECT_THAT(StepTimed(), ElementsAre(Row{1, 12, 4, true, 3}, Row{2, 12, 1, true}));
  EXPECT_EQ(scheduler_->num_preemptions(), 0);
}

}  // namespace
}  // namespace fairlead
