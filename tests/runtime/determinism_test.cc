// SPDX-License-Identifier: Apache-2.0
// A request's answer depends on the request alone: the same tokens and the same bits of logprobs
// alone, among others, in chunks, after a prefix hit, after a preemption, and with drafts verified.
// On the fake model, whose every logit depends on every token it attends to.
#include <random>

#include "gtest/gtest.h"
#include "tests/runtime/engine_fixture.h"

namespace fairlead {
namespace {

constexpr int kRequests = 200;

struct Answer {
  std::vector<CollectedOutput> outputs;
  std::vector<CollectedOutput> prompt;
  FinishReason reason;
  bool operator==(const Answer&) const = default;
};

std::vector<EngineRequest> RandomRequests() {
  std::mt19937 random(11);
  const auto draw = [&random](int n) {
    return static_cast<int>(random() % static_cast<uint32_t>(n));
  };
  std::vector<EngineRequest> requests;
  for (int i = 0; i < kRequests; ++i) {
    EngineRequest request;
    // Eight families of prompts, so that requests meet in the prefix cache.
    request.prompt = FakePrompt(1 + draw(60), draw(8));
    request.max_tokens = draw(40);
    request.sampling.seed = random();
    request.sampling.temperature = draw(3) == 0 ? 0.0f : 0.25f * static_cast<float>(1 + draw(6));
    if (draw(3) == 0) request.sampling.top_k = 1 + draw(40);
    if (draw(3) == 0) request.sampling.top_p = 0.5f + 0.1f * static_cast<float>(draw(5));
    if (draw(3) == 0) request.sampling.min_p = 0.05f;
    if (draw(4) == 0) request.sampling.repetition_penalty = 1.3f;
    if (draw(4) == 0) request.sampling.frequency_penalty = 0.5f;
    if (draw(2) == 0) request.stop_tokens = {draw(kFakeVocab - 1), draw(kFakeVocab - 1)};
    // Few tokens to choose from: the output repeats itself, and drafts are often right.
    if (draw(3) == 0) request.sampling.logit_bias = {{1, 50.0f}, {2, 50.0f}};
    request.logprobs = draw(5) - 1;
    if (draw(6) == 0) request.prompt_logprobs = draw(3);
    requests.push_back(request);
  }
  return requests;
}

EngineOptions Options(int max_batched_tokens, int max_num_seqs, int num_blocks) {
  EngineOptions options = SmallEngine();
  options.scheduler = {.max_batched_tokens = max_batched_tokens, .max_num_seqs = max_num_seqs};
  options.kv_cache_bytes = FakeKvBytes(num_blocks, options.block_tokens);
  options.max_queue = kRequests;
  return options;
}

Answer AnswerOf(CollectingSink& sink) {
  const FinishReason reason = sink.WaitForClose().reason;
  return {sink.outputs(), sink.prompt(), reason};
}

class DeterminismTest : public ::testing::Test {
 protected:
  // One after the other, nothing shared: what all the others are compared with.
  static const std::vector<Answer>& Alone() {
    static const std::vector<Answer> answers = [] {
      EngineOptions options = Options(512, 1, 64);
      options.prefix_cache = false;
      FakeEngine engine(options);
      std::vector<Answer> result;
      for (const EngineRequest& request : RandomRequests())
        result.push_back(AnswerOf(*engine.Submit(request)));
      return result;
    }();
    return answers;
  }

  static EngineStats ExpectSameTogether(const EngineOptions& options,
                                        FakeEngine::StepCost step_cost = nullptr) {
    FakeEngine engine(options, {}, std::move(step_cost));
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    engine.gate().Close();
    for (const EngineRequest& request : RandomRequests()) sinks.push_back(engine.Submit(request));
    engine.gate().Open();
    for (int i = 0; i < kRequests; ++i)
      EXPECT_TRUE(AnswerOf(*sinks[i]) == Alone()[i]) << "request " << i;
    return engine->stats();
  }

  // Every step takes the same time, so drafting always pays.
  static void ExpectSameWithDrafts(EngineOptions options) {
    options.scheduler.max_drafts = 6;
    const EngineStats stats =
        ExpectSameTogether(options, [](int64_t) { return absl::Milliseconds(1); });
    EXPECT_GT(stats.accepted_draft_tokens, 100);
    EXPECT_GT(stats.draft_tokens - stats.accepted_draft_tokens, 100);
    int64_t tokens = 0;
    for (const Answer& answer : Alone()) tokens += static_cast<int64_t>(answer.outputs.size());
    EXPECT_EQ(stats.generated_tokens, tokens);
  }
};

TEST_F(DeterminismTest, AloneAgreesWithTheOracle) {
  const std::vector<EngineRequest> requests = RandomRequests();
  int compared = 0;
  for (int i = 0; i < kRequests; ++i) {
    const SamplingParams& s = requests[i].sampling;
    if (s.temperature != 0 || s.repetition_penalty != 1 || s.frequency_penalty != 0 ||
        !s.logit_bias.empty()) {
      continue;
    }
    std::vector<Token> tokens;
    for (const CollectedOutput& output : Alone()[i].outputs) tokens.push_back(output.token);
    EXPECT_EQ(tokens, FakeGenerate(requests[i].prompt, static_cast<int>(tokens.size())));
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

TEST_F(DeterminismTest, InABatchOf32) {
  EngineOptions options = Options(512, 32, 1024);
  options.prefix_cache = false;
  ExpectSameTogether(options);
}

TEST_F(DeterminismTest, InChunksOf7) { ExpectSameTogether(Options(7, 32, 1024)); }

TEST_F(DeterminismTest, InChunksOf512AfterPrefixHits) {
  EXPECT_GT(ExpectSameTogether(Options(512, 8, 1024)).prefix_hit_tokens, 1000);
}

TEST_F(DeterminismTest, OneTokenAStep) { ExpectSameTogether(Options(1, 32, 64)); }

TEST_F(DeterminismTest, AfterPreemptions) {
  EXPECT_GT(ExpectSameTogether(Options(64, 16, 32)).preemptions, 20);
}

TEST_F(DeterminismTest, WithDraftsOneByOne) { ExpectSameWithDrafts(Options(512, 1, 64)); }

TEST_F(DeterminismTest, WithDraftsInABatchOf8) { ExpectSameWithDrafts(Options(512, 8, 1024)); }

TEST_F(DeterminismTest, WithDraftsThatTheBudgetCuts) { ExpectSameWithDrafts(Options(7, 4, 1024)); }

TEST_F(DeterminismTest, WithDraftsAndPreemptions) { ExpectSameWithDrafts(Options(64, 16, 32)); }

}  // namespace
}  // namespace fairlead
