// SPDX-License-Identifier: Apache-2.0
// The engine on the fake model: every answer is compared with FakeGenerate, which knows nothing of
// batches and blocks.
#include "runtime/engine.h"

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/collecting_sink.h"
#include "tests/runtime/fake_device.h"
#include "tests/runtime/fake_model.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

// Holds the engine thread at the start of a step.
class StepGate {
 public:
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  // Engine thread.
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    held_ = closed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !closed_; });
    held_ = false;
  }
  void WaitUntilHeld() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  bool held_ = false;
};

std::vector<Token> Prompt(int length, int seed) {
  std::vector<Token> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((seed * 31 + i * i + 7 * i) % (kFakeVocab - 1));
  return prompt;
}

EngineRequest Greedy(std::vector<Token> prompt, int max_tokens) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  return request;
}

class EngineTest : public ::testing::TestWithParam<bool> {
 protected:
  EngineTest()
      : device_({.late = GetParam(), .observe_sample = nullptr}),
        model_([this](const Batch&) { gate_.Pass(); }) {
    options_.scheduler = {.max_batched_tokens = 32, .max_num_seqs = 8};
    options_.max_model_len = 128;
    options_.block_tokens = 4;
    options_.kv_cache_bytes = 64 * 8 * 4 * 2;  // 64 blocks in 2 layers
    options_.max_queue = 64;
    options_.clock = [this] { return absl::FromUnixSeconds(now_seconds_); };
  }

  void Start() {
    auto engine = Engine::Create(device_, model_, options_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  uint64_t Submit(EngineRequest request, const std::shared_ptr<CollectingSink>& sink) {
    const auto id = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(0);
  }

  FakeDevice device_;
  StepGate gate_;
  FakeModel model_;
  EngineOptions options_;
  std::atomic<int64_t> now_seconds_{1000};
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(Stream, EngineTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Late" : "Immediate"; });

TEST_P(EngineTest, AnswersOneRequest) {
  Start();
  auto sink = std::make_shared<CollectingSink>();
  Submit(Greedy(Prompt(10, 1), 20), sink);
  const EngineResult& result = sink->WaitForClose();
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_TRUE(result.status.ok());
  EXPECT_EQ(sink->tokens(), FakeGenerate(Prompt(10, 1), 20));
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.kv_blocks_total, 64);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.generated_tokens, 20);
  EXPECT_EQ(stats.prompt_tokens, 10);
  EXPECT_EQ(stats.steps, 20);
}

}  // namespace
}  // namespace fairlead
