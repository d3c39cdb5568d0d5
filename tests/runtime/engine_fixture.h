// SPDX-License-Identifier: Apache-2.0
// An engine on the fake device and model, a gate that holds its steps, and a clock that stands
// still until told, or until a step has its cost.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "tests/runtime/collecting_sink.h"
#include "tests/runtime/fake_device.h"
#include "tests/runtime/fake_model.h"

namespace fairlead {

// Holds the engine thread at the start of a step.
class StepGate {
 public:
  void Close() { Set(true, 0); }
  void Open() { Set(false, 0); }
  // Closed again after so many steps.
  void OpenFor(int steps) { Set(true, steps); }
  // Engine thread.
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (closed_ && steps_ == 0) {
      held_ = true;
      changed_.notify_all();
      changed_.wait(lock);
    }
    if (closed_) --steps_;
    held_ = false;
  }
  void WaitUntilHeld() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }

 private:
  void Set(bool closed, int steps) {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = closed;
    steps_ = steps;
    held_ = false;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  int steps_ = 0;  // that may still pass
  bool held_ = false;
};

// Tokens of the fake vocabulary, the poison excepted; different seeds differ from the first token
// on, mostly.
inline std::vector<Token> FakePrompt(int length, int seed) {
  std::vector<Token> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((seed * 31 + i * i + 7 * i) % (kFakeVocab - 1));
  return prompt;
}

inline EngineRequest Greedy(std::vector<Token> prompt, int max_tokens) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  return request;
}

// The size that both layers of num_blocks blocks have together.
inline size_t FakeKvBytes(int num_blocks, int block_tokens) {
  return static_cast<size_t>(num_blocks) * 2 * 8 * static_cast<size_t>(block_tokens);
}

inline EngineOptions SmallEngine() {
  EngineOptions options;
  options.scheduler = {.max_batched_tokens = 32, .max_num_seqs = 8};
  options.max_model_len = 128;
  options.block_tokens = 4;
  options.kv_cache_bytes = FakeKvBytes(64, 4);
  options.max_queue = 64;
  return options;
}

class FakeEngine {
 public:
  // What the clock says that a step of so many tokens took.
  using StepCost = std::function<absl::Duration(int64_t tokens)>;

  explicit FakeEngine(EngineOptions options, FakeDevice::Options device = {},
                      StepCost step_cost = nullptr)
      : device_(std::move(device)), model_([this, step_cost](const Batch& batch) {
          gate_.Pass();
          if (step_cost) now_ns_ += absl::ToInt64Nanoseconds(step_cost(batch.token.dim[0]));
        }) {
    options.clock = [this] { return now(); };
    auto engine = Engine::Create(device_, model_, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  ~FakeEngine() { gate_.Open(); }

  Engine& operator*() { return *engine_; }
  Engine* operator->() { return engine_.get(); }
  StepGate& gate() { return gate_; }
  absl::Time now() const { return absl::FromUnixNanos(now_ns_); }
  void Advance(int64_t seconds) { now_ns_ += seconds * 1'000'000'000; }
  void Destroy() { engine_.reset(); }

  // The sink of a request that was accepted.
  std::shared_ptr<CollectingSink> Submit(EngineRequest request, uint64_t* id = nullptr) {
    auto sink = std::make_shared<CollectingSink>();
    const absl::StatusOr<uint64_t> given = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(given.ok()) << given.status();
    if (id != nullptr && given.ok()) *id = *given;
    return sink;
  }

 private:
  FakeDevice device_;
  StepGate gate_;
  FakeModel model_;
  std::atomic<int64_t> now_ns_{1'000'000'000'000};
  std::unique_ptr<Engine> engine_;
};

}  // namespace fairlead
