// SPDX-License-Identifier: Apache-2.0
// Steps begun ahead and steps as graphs, on a device that does nothing before it must: the same
// tokens as without, whatever ends, leaves or comes while a step is under way.
#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "runtime/step_graphs.h"
#include "tests/runtime/engine_fixture.h"

namespace fairlead {
namespace {

struct Way {
  std::string name;
  bool graphs = true, ahead = true, late = true, fail_captures = false;
};

class EngineAheadTest : public ::testing::TestWithParam<Way> {
 protected:
  static FakeDevice::Options DeviceOptions() {
    FakeDevice::Options options;
    options.late = GetParam().late;
    options.asynchronous = true;
    options.fail_captures = GetParam().fail_captures;
    return options;
  }
  static EngineOptions Options() {
    EngineOptions options = SmallEngine();
    options.graphs = GetParam().graphs;
    options.async_scheduling = GetParam().ahead;
    // Graphs of up to 8 rows have every size: more, to have some padded.
    options.scheduler.max_num_seqs = 27;
    options.scheduler.max_batched_tokens = 64;
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Ways, EngineAheadTest,
                         ::testing::Values(Way{.name = "Both"},
                                           Way{.name = "Immediate", .late = false},
                                           Way{.name = "Graphs", .ahead = false},
                                           Way{.name = "Ahead", .graphs = false},
                                           Way{.name = "NoMemoryForGraphs", .fail_captures = true}),
                         [](const ::testing::TestParamInfo<Way>& info) { return info.param.name; });

// Up to and including the first stop token.
std::vector<Token> Expected(const EngineRequest& request) {
  std::vector<Token> tokens = FakeGenerate(request.prompt, request.max_tokens);
  const auto stop = std::find_first_of(tokens.begin(), tokens.end(), request.stop_tokens.begin(),
                                       request.stop_tokens.end());
  if (stop != tokens.end()) tokens.erase(stop + 1, tokens.end());
  return tokens;
}

TEST_P(EngineAheadTest, EveryRequestGetsItsTokens) {
  for (const int blocks : {60, 800}) {  // few: requests are preempted
    EngineOptions options = Options();
    options.kv_cache_bytes = FakeKvBytes(blocks, 4);
    FakeEngine engine(options, DeviceOptions());
    std::mt19937 random(7);
    std::vector<EngineRequest> requests;
    for (int i = 0; i < 60; ++i) {
      EngineRequest request = Greedy(FakePrompt(1 + random() % 60, i % 7), random() % 40);
      for (int s = 0; s < 3; ++s) request.stop_tokens.push_back(random() % (kFakeVocab - 1));
      request.priority = static_cast<int>(random() % 3) - 1;
      if (i % 6 == 1) request.logprobs = 2;
      if (i % 15 == 2) request.prompt_logprobs = 1;
      // Of a token that is never drawn: it changes nothing, but asks for known tokens.
      if (i % 15 == 3) request.sampling.logit_bias = {{kPoisonToken, -1.0f}};
      requests.push_back(request);
    }
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    engine.gate().Close();
    for (const EngineRequest& request : requests) sinks.push_back(engine.Submit(request));
    engine.gate().Open();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_TRUE(sinks[i]->WaitForClose().status.ok());
      EXPECT_EQ(sinks[i]->tokens(), Expected(requests[i])) << i;
    }
    EXPECT_EQ(engine->stats().kv_blocks_used, 0);
    EXPECT_EQ(engine->stats().preemptions > 0, blocks == 60);
    EXPECT_EQ(engine->stats().graph_steps > 0, options.graphs && !GetParam().fail_captures);
    EXPECT_EQ(engine->stats().ahead_steps > 0, options.async_scheduling);
  }
}

TEST_P(EngineAheadTest, WhoLeavesTakesNobodyAlong) {
  FakeEngine engine(Options(), DeviceOptions());
  std::mt19937 random(11);
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  std::vector<uint64_t> ids(40);
  engine.gate().Close();
  for (int i = 0; i < 40; ++i) {
    sinks.push_back(engine.Submit(Greedy(FakePrompt(5 + i % 20, i), 60), &ids[i]));
    engine.gate().WaitUntilHeld();
    if (i % 3 == 2) engine->Cancel(ids[random() % (i + 1)]);
    engine.gate().OpenFor(1);
  }
  engine.gate().Open();
  int cancelled = 0;
  for (int i = 0; i < 40; ++i) {
    const FinishReason reason = sinks[i]->WaitForClose().reason;
    const std::vector<Token> all = FakeGenerate(FakePrompt(5 + i % 20, i), 60);
    const std::vector<Token> tokens = sinks[i]->tokens();
    if (reason == FinishReason::kLength) {
      EXPECT_EQ(tokens, all) << i;
    } else {
      EXPECT_EQ(reason, FinishReason::kCancelled);
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), all.begin())) << i;
      ++cancelled;
    }
  }
  EXPECT_GT(cancelled, 0);
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
}

TEST_P(EngineAheadTest, AFaultEndsOneRequestAlone) {
  FakeEngine engine(Options(), DeviceOptions());
  EngineRequest poisoned = Greedy(FakePrompt(9, 1), 30);
  poisoned.prompt[4] = kPoisonToken;
  const auto good = engine.Submit(Greedy(FakePrompt(9, 2), 30));
  const auto bad = engine.Submit(poisoned);
  EXPECT_EQ(bad->WaitForClose().reason, FinishReason::kError);
  EXPECT_TRUE(bad->tokens().empty());
  EXPECT_EQ(good->WaitForClose().reason, FinishReason::kLength);
  EXPECT_EQ(good->tokens(), FakeGenerate(FakePrompt(9, 2), 30));
}

TEST_P(EngineAheadTest, DestructionMeetsAStepUnderWay) {
  FakeEngine engine(Options(), DeviceOptions());
  engine.gate().Close();
  const auto sink = engine.Submit(Greedy(FakePrompt(5, 1), 100));
  for (int step = 0; step < 3; ++step) {
    engine.gate().WaitUntilHeld();
    engine.gate().OpenFor(1);
  }
  engine.gate().WaitUntilHeld();
  std::thread destroy([&engine] { engine.Destroy(); });
  engine.gate().Open();
  destroy.join();
  // It may have finished before the destructor was heard.
  const FinishReason reason = sink->WaitForClose().reason;
  EXPECT_TRUE(reason == FinishReason::kCancelled || reason == FinishReason::kLength);
  const std::vector<Token> all = FakeGenerate(FakePrompt(5, 1), 100), tokens = sink->tokens();
  EXPECT_TRUE(tokens.size() <= all.size() && std::equal(tokens.begin(), tokens.end(), all.begin()));
}

// A plan of single tokens, of `rows` sequences with so many blocks.
class PlanOfTokens {
 public:
  PlanOfTokens(int rows, int blocks) : sequences_(static_cast<size_t>(rows)) {
    for (Sequence& sequence : sequences_) {
      sequence.blocks.block.resize(static_cast<size_t>(blocks));
      plan_.rows.push_back({&sequence, 3, 1, true});
      ++plan_.num_tokens;
    }
  }
  StepPlan& plan() { return plan_; }

 private:
  std::vector<Sequence> sequences_;
  StepPlan plan_;
};

TEST(StepGraphsTest, ShapesHoldThePlanAndAreFew) {
  const StepGraphs graphs(100, 1000);
  std::set<std::pair<int, int>> shapes;
  for (int rows = 1; rows <= 100; ++rows) {
    for (const int blocks : {0, 1, 8, 9, 500, 1000}) {
      const auto shape = graphs.ShapeFor(PlanOfTokens(rows, blocks).plan());
      ASSERT_TRUE(shape.has_value());
      EXPECT_EQ(shape->tokens, shape->seqs);
      EXPECT_GE(shape->seqs, rows);
      EXPECT_LE(shape->seqs, std::min(100, rows + std::max(rows / 3, 1) + 1));
      EXPECT_GE(shape->blocks, blocks);
      shapes.insert({shape->seqs, shape->blocks});
    }
  }
  EXPECT_LT(shapes.size(), 150u);
  EXPECT_FALSE(graphs.ShapeFor(PlanOfTokens(101, 1).plan()).has_value());
  EXPECT_FALSE(graphs.ShapeFor(PlanOfTokens(1, 1001).plan()).has_value());
  PlanOfTokens chunk(2, 4);
  chunk.plan().rows[1].num_tokens = 2;
  EXPECT_FALSE(graphs.ShapeFor(chunk.plan()).has_value());
  PlanOfTokens part(2, 4);
  part.plan().rows[0].sample = false;
  EXPECT_FALSE(graphs.ShapeFor(part.plan()).has_value());
}

TEST(StepGraphsTest, RecordsWhatComesTwiceAndRunsItEachTime) {
  for (const bool fail : {false, true}) {
    StepGraphs graphs(8, 8);
    FakeStream stream(/*late=*/false, fail);
    int enqueued = 0, ran = 0;
    const auto work = [&] {
      ++enqueued;
      stream.Run([&ran] { ++ran; });
    };
    for (int i = 1; i <= 5; ++i) {
      graphs.Run(stream, {.tokens = 2, .seqs = 2, .blocks = 8}, work);
      EXPECT_EQ(ran, i);
    }
    // Plainly, recorded; or each time again.
    EXPECT_EQ(enqueued, fail ? 6 : 2);
    EXPECT_EQ(graphs.num_launched(), fail ? 0 : 4);
    graphs.Run(stream, {.tokens = 3, .seqs = 3, .blocks = 8}, work);
    EXPECT_EQ(graphs.num_launched(), fail ? 0 : 4);
    EXPECT_EQ(ran, 6);
  }
}

}  // namespace
}  // namespace fairlead
