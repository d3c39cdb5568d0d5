// SPDX-License-Identifier: Apache-2.0
// The step loop allocates nothing: this program counts every operator new on the engine's thread,
// from its first delivery to the last, through decode, chunked prefill, prefix hits, preemption,
// penalties, logprobs, drafts, cancellation and the ends of requests.
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "models/model.h"
#include "models/weights.h"
#include "tests/runtime/engine_fixture.h"

namespace {

thread_local bool counting = false;
std::atomic<int64_t> allocations{0};

void* CountedNew(size_t bytes, size_t alignment) {
  if (counting) allocations.fetch_add(1);
  void* const p =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(bytes)
          : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == nullptr) std::abort();
  return p;
}

// Not inlined: GCC would see free() take what operator new gave, and warn.
[[gnu::noinline]] void CountedDelete(void* p) { std::free(p); }

}  // namespace

void* operator new(size_t bytes) { return CountedNew(bytes, 1); }
void* operator new[](size_t bytes) { return CountedNew(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t a) {
  return CountedNew(bytes, static_cast<size_t>(a));
}
void* operator new[](size_t bytes, std::align_val_t a) {
  return CountedNew(bytes, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { CountedDelete(p); }
void operator delete[](void* p) noexcept { CountedDelete(p); }
void operator delete(void* p, size_t) noexcept { CountedDelete(p); }
void operator delete[](void* p, size_t) noexcept { CountedDelete(p); }
void operator delete(void* p, std::align_val_t) noexcept { CountedDelete(p); }
void operator delete[](void* p, std::align_val_t) noexcept { CountedDelete(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { CountedDelete(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { CountedDelete(p); }

namespace fairlead {
namespace {

// Counts what it is given without allocating, and turns the count of its thread on: the engine's.
class CountingSink : public TokenSink {
 public:
  void PushPromptLogprob(const TokenOutput&) override {
    counting = true;
    ++prompt_logprobs;
  }
  void Push(const TokenOutput&) override {
    counting = true;
    tokens.fetch_add(1);
    tokens.notify_all();
  }
  void Close(const EngineResult& result) override {
    reason = result.reason;
    preemptions = result.num_preemptions;
    cached = result.cached_prompt_tokens;
    closed.store(true);
    closed.notify_all();
  }
  void WaitForClose() const { closed.wait(false); }
  void WaitForTokens(int count) const {
    for (int n = tokens; n < count; n = tokens) tokens.wait(n);
  }

  int prompt_logprobs = 0;
  std::atomic<int> tokens{0};
  FinishReason reason = FinishReason::kStop;
  int preemptions = 0;
  int cached = 0;
  std::atomic<bool> closed{false};
};

TEST(EngineAllocTest, TheCounterCounts) {
  const int64_t before = allocations;
  counting = true;
  auto* volatile p = new int(3);
  counting = false;
  delete p;
  EXPECT_EQ(allocations, before + 1);
}

TEST(EngineAllocTest, StepsAllocateNothing) {
  EngineOptions options = SmallEngine();
  options.kv_cache_bytes = FakeKvBytes(40, 4);
  options.scheduler.max_batched_tokens = 10;  // prompts are computed in chunks
  options.scheduler.max_drafts = 4;
  FakeEngine engine(options, {}, [](int64_t) { return absl::Milliseconds(1); });
  const auto first = std::make_shared<CountingSink>();
  ASSERT_TRUE(engine->Submit(Greedy(FakePrompt(3, 0), 120), first).ok());
  first->WaitForTokens(1);  // the engine's thread is counted from here on
  const int64_t before = allocations;

  std::vector<std::shared_ptr<CountingSink>> sinks;
  std::vector<std::pair<uint64_t, std::shared_ptr<CountingSink>>> to_cancel;
  // Two rounds of many at once; between them the engine runs empty, parks and wakes.
  for (int i = 0; i < 40; ++i) {
    if (i % 20 == 0) engine.gate().Close();
    EngineRequest request = Greedy(FakePrompt(20 + i, i % 2), 50);
    if (i % 2 == 0) request.logprobs = 5;
    if (i % 3 == 0) request.sampling.repetition_penalty = 1.5f;
    if (i % 4 == 0) request.sampling.frequency_penalty = 0.5f;
    if (i % 5 == 0) request.prompt_logprobs = 3;
    if (i % 7 == 0) request.min_tokens = 10, request.stop_tokens = {1, 2, 3};
    if (i % 11 == 0) request.sampling.logit_bias = {{5, 2.0f}};
    if (i % 11 == 1) request.sampling.logit_bias = {{1, 50.0f}, {2, 50.0f}};  // repeats itself
    if (i % 10 == 4) request.prompt[10] = kPoisonToken;
    request.priority = i % 3;
    sinks.push_back(std::make_shared<CountingSink>());
    const auto id = engine->Submit(std::move(request), sinks.back());
    ASSERT_TRUE(id.ok());
    if (i % 8 == 5) to_cancel.emplace_back(*id, sinks.back());
    if (i % 20 != 19) continue;
    engine.gate().Open();
    for (const auto& [cancelled_id, sink] : to_cancel) {
      sink->WaitForTokens(2);
      engine->Cancel(cancelled_id);
    }
    to_cancel.clear();
    for (const auto& sink : sinks) sink->WaitForClose();
  }
  int preemptions = 0, cached = 0, prompt_logprobs = 0;
  for (const auto& sink : sinks) {
    preemptions += sink->preemptions;
    cached += sink->cached;
    prompt_logprobs += sink->prompt_logprobs;
  }
  first->WaitForClose();
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(first->tokens, 120);
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(cached, 0);
  EXPECT_GT(prompt_logprobs, 100);
  EXPECT_GT(engine->stats().steps, 500);
  EXPECT_GT(engine->stats().accepted_draft_tokens, 20);
}

// Holds the engine at its first token until told, so that what is submitted meanwhile starts
// together.
class HoldingSink : public CountingSink {
 public:
  void Push(const TokenOutput& output) override {
    CountingSink::Push(output);
    held.wait(true);
  }
  void Release() {
    held.store(false);
    held.notify_all();
  }

 private:
  std::atomic<bool> held{true};
};

// One long request, and a dozen of all kinds beside it.
void RunMixedLoad(Engine& engine) {
  const auto first = std::make_shared<HoldingSink>();
  ASSERT_TRUE(engine.Submit(Greedy(FakePrompt(3, 0), 120), first).ok());
  first->WaitForTokens(1);
  std::vector<std::shared_ptr<CountingSink>> sinks;
  for (int i = 0; i < 12; ++i) {
    EngineRequest request = Greedy(FakePrompt(20 + i, i % 2), 50);
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.7f;
    if (i % 3 == 0) request.sampling.top_p = 0.9f;
    if (i % 3 == 1) request.sampling.top_k = 20;
    if (i % 4 == 0) request.logprobs = 5;
    if (i % 5 == 0) request.prompt_logprobs = 3;
    if (i % 6 == 0) request.sampling.repetition_penalty = 1.5f;
    if (i % 4 < 2) request.sampling.logit_bias = {{1, 100.0f}, {2, 100.0f}};  // repeats itself
    sinks.push_back(std::make_shared<CountingSink>());
    ASSERT_TRUE(engine.Submit(std::move(request), sinks.back()).ok());
  }
  first->Release();
  for (const auto& sink : sinks) sink->WaitForClose();
  first->WaitForClose();
}

// The same for the CPU device and a real decoder: its ops are part of the step. Their scratch grows
// to what the largest step needs, so the load runs once before it is counted.
TEST(EngineAllocTest, StepsOnTheCpuAllocateNothingOnceWarm) {
  auto device = OpenDevice("cpu", {.threads = 2, .numerics = Numerics::kPrecise});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto source = OpenWeights(std::string(FAIRLEAD_GOLDEN_DIR) + "/models/llama-gqa");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto model = LoadModel(**source, **device, 128);
  ASSERT_TRUE(model.ok()) << model.status();
  EngineOptions options;
  options.scheduler = {.max_batched_tokens = 16, .max_num_seqs = 8};
  options.kv_cache_bytes = size_t{1} << 20;
  options.max_model_len = 128;
  options.prefix_cache = false;  // both rounds compute the same
  options.scheduler.max_drafts = 4;
  const auto ticks = std::make_shared<std::atomic<int64_t>>(0);
  options.clock = [ticks] { return absl::FromUnixMillis(++*ticks); };
  const auto engine = Engine::Create(**device, **model, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  RunMixedLoad(**engine);
  const int64_t before = allocations;
  RunMixedLoad(**engine);
  EXPECT_EQ(allocations - before, 0);
  EXPECT_GT((*engine)->stats().steps, 200);
  EXPECT_GT((*engine)->stats().accepted_draft_tokens, 20);
}

}  // namespace
}  // namespace fairlead
