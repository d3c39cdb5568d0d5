// SPDX-License-Identifier: Apache-2.0
// The engine on the fake model: every answer is compared with FakeGenerate, which knows nothing of
// batches and blocks. Each test runs with a stream that works at once, with one that does nothing
// before it must, and with one that does so under steps that are begun ahead.
#include "runtime/engine.h"

#include <cmath>
#include <random>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/engine_fixture.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

// The k-th best token after `tokens`, counted from 1, and its logprob.
std::pair<Token, float> Best(const std::vector<Token>& tokens, int k) {
  const std::vector<float> logits = FakeLogits(tokens);
  std::vector<Token> order;
  double sum = 0;
  for (Token v = 0; v < kFakeVocab; ++v) {
    order.push_back(v);
    sum += std::exp(static_cast<double>(logits[v]));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&logits](Token a, Token b) { return logits[a] > logits[b]; });
  const Token token = order[k - 1];
  return {token, static_cast<float>(logits[token] - std::log(sum))};
}

int RankOf(const std::vector<Token>& tokens, Token token) {
  int rank = 1;
  while (Best(tokens, rank).first != token) ++rank;
  return rank;
}

enum class StreamKind { kImmediate, kLate, kAhead };

class EngineTest : public ::testing::TestWithParam<StreamKind> {
 protected:
  FakeDevice::Options DeviceOptions() const {
    FakeDevice::Options options;
    options.late = GetParam() != StreamKind::kImmediate;
    options.asynchronous = GetParam() == StreamKind::kAhead;
    return options;
  }
  // The gate holds Forward, which graphs run without.
  static EngineOptions Small() {
    EngineOptions options = SmallEngine();
    options.graphs = false;
    return options;
  }
};

std::string NameOf(const ::testing::TestParamInfo<StreamKind>& info) {
  const char* const names[] = {"Immediate", "Late", "Ahead"};
  return names[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Stream, EngineTest,
                         ::testing::Values(StreamKind::kImmediate, StreamKind::kLate,
                                           StreamKind::kAhead),
                         NameOf);

TEST_P(EngineTest, AnswersOneRequest) {
  FakeEngine engine(Small(), DeviceOptions());
  const auto sink = engine.Submit(Greedy(FakePrompt(10, 1), 20));
  const EngineResult& result = sink->WaitForClose();
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(result.first_scheduled, engine.now());
  EXPECT_EQ(sink->tokens(), FakeGenerate(FakePrompt(10, 1), 20));
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.kv_blocks_total, 64);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.kv_blocks_free + stats.kv_blocks_cached, 64);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.generated_tokens, 20);
  EXPECT_EQ(stats.prompt_tokens, 10);
  EXPECT_EQ(stats.steps, 20);
}

TEST_P(EngineTest, AnswersManyAtOnceWithPreemptionAndSharing) {
  EngineOptions options = Small();
  options.kv_cache_bytes = FakeKvBytes(32, 4);
  FakeEngine engine(options, DeviceOptions());
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  engine.gate().Close();
  for (int i = 0; i < 24; ++i)
    sinks.push_back(engine.Submit(Greedy(FakePrompt(5 + 4 * (i % 8), i % 5), 40)));
  engine.gate().Open();
  for (int i = 0; i < 24; ++i) {
    EXPECT_EQ(sinks[i]->WaitForClose().reason, FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), FakeGenerate(FakePrompt(5 + 4 * (i % 8), i % 5), 40)) << i;
  }
  const EngineStats stats = engine->stats();
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.prefix_hit_tokens, 0);
  EXPECT_GT(stats.prefix_query_tokens, stats.prefix_hit_tokens);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.generated_tokens, 24 * 40);
}

TEST_P(EngineTest, ReportsCachedPromptTokens) {
  FakeEngine engine(Small(), DeviceOptions());
  EXPECT_EQ(engine.Submit(Greedy(FakePrompt(21, 1), 1))->WaitForClose().cached_prompt_tokens, 0);
  EXPECT_EQ(engine.Submit(Greedy(FakePrompt(21, 1), 1))->WaitForClose().cached_prompt_tokens, 20);
  EngineRequest other_tenant = Greedy(FakePrompt(21, 1), 1);
  other_tenant.cache_salt = 1;
  EXPECT_EQ(engine.Submit(other_tenant)->WaitForClose().cached_prompt_tokens, 0);
}

TEST_P(EngineTest, StopsAtAStopToken) {
  FakeEngine engine(Small(), DeviceOptions());
  const std::vector<Token> free_run = FakeGenerate(FakePrompt(6, 2), 20);
  EngineRequest request = Greedy(FakePrompt(6, 2), 20);
  request.stop_tokens = {free_run[7]};
  const auto sink = engine.Submit(request);
  EXPECT_EQ(sink->WaitForClose().reason, FinishReason::kStop);
  const auto first = std::find(free_run.begin(), free_run.end(), free_run[7]);
  EXPECT_EQ(sink->tokens(), std::vector<Token>(free_run.begin(), first + 1));
}

TEST_P(EngineTest, GivesLogprobsOfRawLogits) {
  FakeEngine engine(Small(), DeviceOptions());
  EngineRequest request = Greedy(FakePrompt(6, 2), 5);
  request.logprobs = 3;
  // A bias changes what is drawn, not what is reported.
  const Token favourite = 11;
  request.sampling.logit_bias = {{favourite, 100.0f}};
  const auto sink = engine.Submit(request);
  const auto plain = engine.Submit(Greedy(FakePrompt(6, 3), 5));
  sink->WaitForClose();
  plain->WaitForClose();
  std::vector<Token> tokens = FakePrompt(6, 2);
  ASSERT_EQ(sink->outputs().size(), 5u);
  for (const CollectedOutput& output : sink->outputs()) {
    EXPECT_EQ(output.token, favourite);
    const int rank = RankOf(tokens, favourite);
    EXPECT_EQ(output.rank, rank);
    EXPECT_FLOAT_EQ(output.logprob, Best(tokens, rank).second);
    ASSERT_EQ(output.top.size(), 3u);
    for (int k = 1; k <= 3; ++k) {
      EXPECT_EQ(output.top[k - 1].first, Best(tokens, k).first);
      EXPECT_FLOAT_EQ(output.top[k - 1].second, Best(tokens, k).second);
    }
    tokens.push_back(favourite);
  }
  for (const CollectedOutput& output : plain->outputs()) {
    EXPECT_EQ(output.rank, 0);
    EXPECT_TRUE(output.top.empty());
  }
}

TEST_P(EngineTest, ScoresAPromptInSlicesAndChunks) {
  EngineOptions options = Small();
  options.scheduler.max_batched_tokens = 7;
  FakeEngine engine(options, DeviceOptions());
  engine.Submit(Greedy(FakePrompt(100, 4), 1))->WaitForClose();  // its blocks must not be used
  EngineRequest request = Greedy(FakePrompt(100, 4), 0);
  request.prompt_logprobs = 2;
  const auto sink = engine.Submit(request);
  const EngineResult& result = sink->WaitForClose();
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_EQ(result.cached_prompt_tokens, 0);
  EXPECT_TRUE(sink->outputs().empty());
  ASSERT_EQ(sink->prompt().size(), 99u);
  const std::vector<Token> prompt = FakePrompt(100, 4);
  for (int p = 1; p < 100; ++p) {
    const std::vector<Token> before(prompt.begin(), prompt.begin() + p);
    const CollectedOutput& output = sink->prompt()[p - 1];
    EXPECT_EQ(output.token, prompt[p]);
    EXPECT_EQ(output.rank, RankOf(before, prompt[p]));
    EXPECT_FLOAT_EQ(output.logprob, Best(before, output.rank).second);
    ASSERT_EQ(output.top.size(), 2u);
    EXPECT_EQ(output.top[1].first, Best(before, 2).first);
  }
}

TEST_P(EngineTest, APreemptedRequestScoresItsPromptOnce) {
  EngineOptions options = Small();
  options.max_model_len = 60;
  options.kv_cache_bytes = FakeKvBytes(16, 4);
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    EngineRequest request = Greedy(FakePrompt(12, i), 30);
    request.prompt_logprobs = 0;
    request.logprobs = 0;
    sinks.push_back(engine.Submit(request));
  }
  engine.gate().Open();
  int preemptions = 0;
  for (int i = 0; i < 4; ++i) {
    preemptions += sinks[i]->WaitForClose().num_preemptions;
    EXPECT_EQ(sinks[i]->tokens(), FakeGenerate(FakePrompt(12, i), 30));
    ASSERT_EQ(sinks[i]->prompt().size(), 11u);
    for (int p = 1; p < 12; ++p) EXPECT_EQ(sinks[i]->prompt()[p - 1].token, FakePrompt(12, i)[p]);
  }
  EXPECT_GT(preemptions, 0);
}

TEST_P(EngineTest, NonfiniteLogitsEndOneRequestOnly) {
  FakeEngine engine(Small(), DeviceOptions());
  std::vector<Token> poisoned = FakePrompt(9, 1);
  poisoned[5] = kPoisonToken;
  EngineRequest scored = Greedy(poisoned, 0);
  scored.prompt_logprobs = 0;
  engine.gate().Close();
  const auto good = engine.Submit(Greedy(FakePrompt(9, 2), 10));
  const auto bad = engine.Submit(Greedy(poisoned, 10));
  const auto bad_scored = engine.Submit(scored);
  engine.gate().Open();
  for (const auto& sink : {bad, bad_scored}) {
    EXPECT_EQ(sink->WaitForClose().reason, FinishReason::kError);
    EXPECT_EQ(sink->WaitForClose().status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(sink->tokens().empty());
  }
  EXPECT_EQ(bad_scored->prompt().size(), 5u);  // the positions before the poison had good logits
  good->WaitForClose();
  EXPECT_EQ(good->tokens(), FakeGenerate(FakePrompt(9, 2), 10));
  EXPECT_EQ(engine->stats().nonfinite_logits, 2);
}

TEST_P(EngineTest, RefusesWhatCanNeverRun) {
  FakeEngine engine(Small(), DeviceOptions());
  const auto refusal = [&engine](const EngineRequest& request) {
    const auto sink = std::make_shared<CollectingSink>();
    const absl::Status status = engine->Submit(request, sink).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(Greedy({}, 5)), HasSubstr("prompt is empty"));
  EXPECT_THAT(refusal(Greedy({1}, -1)), HasSubstr("-1"));
  const std::string too_long = refusal(Greedy(FakePrompt(100, 1), 29));
  EXPECT_THAT(too_long, HasSubstr("129"));
  EXPECT_THAT(too_long, HasSubstr("128"));
  EngineRequest logprobs = Greedy({1}, 5);
  logprobs.logprobs = 21;
  EXPECT_THAT(refusal(logprobs), HasSubstr("logprobs is 21; the most is 20"));
  logprobs.logprobs = -1;
  logprobs.prompt_logprobs = 22;
  EXPECT_THAT(refusal(logprobs), HasSubstr("prompt_logprobs is 22; the most is 20"));
  EXPECT_EQ(engine->stats().waiting, 0);
  // The longest that fits.
  const auto sink = engine.Submit(Greedy(FakePrompt(100, 1), 28));
  EXPECT_EQ(sink->WaitForClose().reason, FinishReason::kLength);
}

TEST_P(EngineTest, CancelEndsARunningRequestBeforeTheNextStep) {
  FakeEngine engine(Small(), DeviceOptions());
  engine.gate().Close();
  uint64_t id = 0;
  const auto sink = engine.Submit(Greedy(FakePrompt(10, 1), 100), &id);
  engine.gate().OpenFor(3);
  engine.gate().WaitUntilHeld();
  // Ahead, the token of the step that runs is not there yet.
  const size_t held = GetParam() == StreamKind::kAhead ? 2 : 3;
  EXPECT_EQ(sink->tokens().size(), held);
  engine->Cancel(id);
  engine->Cancel(id);
  engine.gate().Open();
  const EngineResult& result = sink->WaitForClose();
  EXPECT_EQ(result.reason, FinishReason::kCancelled);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kCancelled);
  // The step that was under way still delivers.
  EXPECT_EQ(sink->tokens().size(), held + 1);
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
  EXPECT_EQ(engine->stats().running, 0);
  engine->Cancel(id);
  engine->Cancel(12345);
  EXPECT_EQ(engine.Submit(Greedy(FakePrompt(3, 1), 2))->WaitForClose().reason,
            FinishReason::kLength);
}

TEST_P(EngineTest, CancelEndsAWaitingRequest) {
  EngineOptions options = Small();
  options.scheduler.max_num_seqs = 1;
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  const auto running = engine.Submit(Greedy(FakePrompt(10, 1), 10));
  engine.gate().WaitUntilHeld();
  uint64_t id = 0;
  const auto waiting = engine.Submit(Greedy(FakePrompt(10, 2), 10), &id);
  EXPECT_EQ(engine->stats().waiting, 1);
  EXPECT_EQ(engine->stats().running, 1);
  engine->Cancel(id);
  engine.gate().Open();
  EXPECT_EQ(waiting->WaitForClose().reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting->WaitForClose().first_scheduled, absl::InfinitePast());
  EXPECT_EQ(running->WaitForClose().reason, FinishReason::kLength);
}

TEST_P(EngineTest, DeadlinesEndRunningAndWaitingRequests) {
  EngineOptions options = Small();
  options.scheduler.max_num_seqs = 1;
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  EngineRequest request = Greedy(FakePrompt(10, 1), 100);
  request.deadline = engine.now() + absl::Seconds(5);
  const auto running = engine.Submit(request);
  engine.gate().WaitUntilHeld();
  const auto waiting = engine.Submit(request);
  EngineRequest patient = request;
  patient.deadline = engine.now() + absl::Seconds(6);
  const auto survivor = engine.Submit(patient);
  engine.Advance(5);
  engine.gate().Open();
  for (const auto& sink : {running, waiting}) {
    EXPECT_EQ(sink->WaitForClose().reason, FinishReason::kDeadline);
    EXPECT_EQ(sink->WaitForClose().status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_EQ(survivor->WaitForClose().reason, FinishReason::kLength);
}

TEST_P(EngineTest, AFullQueueRefusesAndRecovers) {
  EngineOptions options = Small();
  options.scheduler.max_num_seqs = 2;
  options.max_queue = 1;
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(engine.Submit(Greedy(FakePrompt(10, i), 10)));
  const auto refused = std::make_shared<CollectingSink>();
  const absl::Status status = engine->Submit(Greedy(FakePrompt(10, 3), 10), refused).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3"));
  engine.gate().Open();
  sinks[0]->WaitForClose();
  sinks.push_back(engine.Submit(Greedy(FakePrompt(10, 3), 10)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sinks[i]->WaitForClose().reason, FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), FakeGenerate(FakePrompt(10, i), 10));
  }
}

TEST_P(EngineTest, DrainFinishesWhatIsThereAndRefusesWhatComes) {
  EngineOptions options = Small();
  options.scheduler.max_num_seqs = 2;
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 6; ++i) sinks.push_back(engine.Submit(Greedy(FakePrompt(10, i), 10)));
  engine.gate().Open();
  engine->Drain(absl::InfiniteFuture());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(sinks[i]->tokens(), FakeGenerate(FakePrompt(10, i), 10));
  const auto late = std::make_shared<CollectingSink>();
  EXPECT_EQ(engine->Submit(Greedy({1}, 1), late).status().code(), absl::StatusCode::kUnavailable);
  engine->Cancel(1);
  engine->Drain(absl::InfiniteFuture());
}

TEST_P(EngineTest, DrainCancelsWhatIsLeftAtTheDeadline) {
  EngineOptions options = Small();
  options.scheduler.max_num_seqs = 1;
  FakeEngine engine(options, DeviceOptions());
  engine.gate().Close();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (int i = 0; i < 3; ++i) sinks.push_back(engine.Submit(Greedy(FakePrompt(10, i), 100)));
  engine.gate().WaitUntilHeld();
  const absl::Time deadline = engine.now() + absl::Seconds(1);
  std::thread drain([&engine, deadline] { engine->Drain(deadline); });
  // Until Drain refuses; what it accepted before is cancelled like the others.
  while (true) {
    const auto probe = std::make_shared<CollectingSink>();
    const absl::Status status = engine->Submit(Greedy({1}, 100), probe).status();
    if (status.code() == absl::StatusCode::kUnavailable) break;
    if (status.ok()) sinks.push_back(probe);
    std::this_thread::yield();
  }
  engine.Advance(1);
  engine.gate().Open();
  drain.join();
  for (const auto& sink : sinks) {
    const EngineResult& result = sink->WaitForClose();
    EXPECT_EQ(result.reason, FinishReason::kCancelled);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
}

TEST_P(EngineTest, DestructionClosesEverySink) {
  FakeEngine engine(Small(), DeviceOptions());
  engine.gate().Close();
  const auto sink = engine.Submit(Greedy(FakePrompt(10, 1), 100));
  engine.gate().WaitUntilHeld();
  std::thread destroy([&engine] { engine.Destroy(); });
  engine.gate().Open();
  destroy.join();
  // It may have finished before the destructor was heard.
  const EngineResult& result = sink->WaitForClose();
  EXPECT_TRUE(result.reason == FinishReason::kCancelled || result.reason == FinishReason::kLength);
  EXPECT_EQ(sink.use_count(), 1);
}

TEST_P(EngineTest, ServesSeveralThreadsAtOnce) {
  EngineOptions options = Small();
  options.kv_cache_bytes = FakeKvBytes(40, 4);
  FakeEngine engine(options, DeviceOptions());
  const auto client = [&engine](int thread) {
    std::mt19937 random(static_cast<uint32_t>(thread));
    for (int i = 0; i < 25; ++i) {
      const std::vector<Token> prompt =
          FakePrompt(1 + static_cast<int>(random() % 30), static_cast<int>(random() % 6));
      const int max_tokens = static_cast<int>(random() % 30);
      uint64_t id = 0;
      const auto sink = engine.Submit(Greedy(prompt, max_tokens), &id);
      const bool cancel = random() % 3 == 0;
      if (cancel) {
        sink->WaitForTokens(random() % 8);
        engine->Cancel(id);
      }
      const EngineResult& result = sink->WaitForClose();
      const std::vector<Token> expected = FakeGenerate(prompt, max_tokens);
      const std::vector<Token> tokens = sink->tokens();
      if (!cancel) {
        EXPECT_EQ(result.reason, FinishReason::kLength);
      }
      ASSERT_LE(tokens.size(), expected.size());
      if (result.reason == FinishReason::kLength) {
        EXPECT_EQ(tokens.size(), expected.size());
      }
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), expected.begin()));
      EXPECT_GE(engine->stats().kv_blocks_total, 40);
    }
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back(client, t);
  for (std::thread& thread : threads) thread.join();
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
}

TEST(EngineCreateTest, NamesWhatDoesNotFit) {
  FakeModel model;
  FakeDevice device;
  EngineOptions options = SmallEngine();
  options.kv_cache_bytes = FakeKvBytes(31, 4);
  absl::Status status = Engine::Create(device, model, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_model_len 128"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(FakeKvBytes(32, 4))));

  options = SmallEngine();
  options.kv_cache_bytes = size_t{4} << 30;
  status = Engine::Create(device, model, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("KV cache and scratch: 4294"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat(device.FreeMemory(), " bytes free")));

  options = SmallEngine();
  options.scheduler.max_batched_tokens = 0;
  status = Engine::Create(device, model, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_batched_tokens is 0"));
}

// Whatever allocation fails, Create says so and gives everything back (FakeDevice's destructor
// checks that).
TEST(EngineCreateTest, EveryFailedAllocationIsAStatus) {
  FakeModel model;
  int failures = 0;
  for (size_t memory = 0;; memory += 4096) {
    FakeDevice::Options device_options;
    device_options.memory_bytes = memory;
    FakeDevice device(device_options);
    const auto engine = Engine::Create(device, model, SmallEngine());
    if (engine.ok()) break;
    EXPECT_EQ(engine.status().code(), absl::StatusCode::kResourceExhausted);
    ++failures;
  }
  EXPECT_GT(failures, 10);
}

}  // namespace
}  // namespace fairlead
