// SPDX-License-Identifier: Apache-2.0
#include "bench/engine/engine_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "kernels/strings.h"
#include "server/once_event.h"

namespace fairlead::bench {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Notes when each token came.
class TimingSink final : public TokenSink {
 public:
  explicit TimingSink(int max_tokens) { times_.reserve(max_tokens); }
  void PushPromptLogprob(const TokenOutput&) override {}
  void Push(const TokenOutput&) override { times_.push_back(Clock::now()); }
  void Close(const EngineResult& result) override {
    result_ = result;
    closed_.Notify();
  }

  void Wait() { closed_.Wait(); }
  // After Wait.
  const EngineResult& result() const { return result_; }
  const std::vector<Clock::time_point>& times() const { return times_; }

 private:
  std::vector<Clock::time_point> times_;
  EngineResult result_;
  OnceEvent closed_;
};

using Sinks = std::vector<std::shared_ptr<TimingSink>>;

// Submits a greedy request that runs to max_tokens.
absl::Status SubmitTo(Engine& engine, std::vector<Token> prompt, int max_tokens, Sinks& sinks) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  auto sink = std::make_shared<TimingSink>(max_tokens);
  if (auto id = engine.Submit(std::move(request), sink); !id.ok()) return id.status();
  sinks.push_back(std::move(sink));
  return absl::OkStatus();
}

// Waits for all of them, whatever became of the first.
absl::Status WaitFor(const Sinks& sinks) {
  absl::Status status;
  for (const auto& sink : sinks) {
    sink->Wait();
    status.Update(sink->result().status);
    if (sink->result().num_preemptions > 0) {
      status.Update(absl::ResourceExhaustedError(
          "the KV cache is too small for this case: raise --kv-cache-memory"));
    }
  }
  return status;
}

absl::StatusOr<double> GenerationRate(const Sinks& sinks) {
  Clock::time_point begin = Clock::time_point::min(), end = Clock::time_point::max();
  for (const auto& sink : sinks) {
    begin = std::max(begin, sink->times().front());
    end = std::min(end, sink->times().back());
  }
  if (end <= begin) {
    return absl::InvalidArgumentError(
        "the first sequence ended before the last one drew a token: raise -n");
  }
  int64_t tokens = 0;
  for (const auto& sink : sinks) {
    tokens += std::count_if(sink->times().begin(), sink->times().end(),
                            [&](Clock::time_point time) { return time > begin && time <= end; });
  }
  return static_cast<double>(tokens) / Seconds(end - begin);
}

double TotalRate(const Sinks& sinks, Clock::time_point begin) {
  Clock::time_point end = begin;
  int64_t tokens = 0;
  for (const auto& sink : sinks) {
    end = std::max(end, sink->times().back());
    tokens += static_cast<int64_t>(sink->times().size());
  }
  return static_cast<double>(tokens) / Seconds(end - begin);
}

}  // namespace

std::vector<Token> EngineRun::RandomTokens(int count) {
  std::uniform_int_distribution<Token> token(0, vocab_ - 1);
  std::vector<Token> tokens(count);
  for (Token& t : tokens) t = token(random_);
  return tokens;
}

absl::Status EngineRun::Prepare(const EngineCase& engine_case) {
  case_ = engine_case;
  depths_.assign(case_.batch, {});
  if (case_.depth == 0) return absl::OkStatus();
  Sinks sinks;
  absl::Status status;
  for (std::vector<Token>& depth : depths_) {
    depth = RandomTokens(case_.depth);
    status.Update(SubmitTo(engine_, depth, 1, sinks));
  }
  status.Update(WaitFor(sinks));
  return status;
}

absl::StatusOr<double> EngineRun::Measure() {
  return case_.kind == CaseKind::kPrompt ? MeasurePrompt() : MeasureBatch();
}

absl::StatusOr<double> EngineRun::MeasurePrompt() {
  std::vector<Token> prompt = depths_[0];
  const std::vector<Token> rest = RandomTokens(case_.prompt);
  prompt.insert(prompt.end(), rest.begin(), rest.end());
  const size_t prompt_tokens = prompt.size();
  Sinks sinks;
  const Clock::time_point begin = Clock::now();
  absl::Status status = SubmitTo(engine_, std::move(prompt), 1, sinks);
  status.Update(WaitFor(sinks));
  if (!status.ok()) return status;
  // The depth is kept in whole blocks: the rest of its last one counts as computed.
  const int cached = sinks[0]->result().cached_prompt_tokens;
  return static_cast<double>(prompt_tokens - cached) / Seconds(sinks[0]->times().front() - begin);
}

absl::StatusOr<double> EngineRun::MeasureBatch() {
  // A sequence needs a token to start from, new each time: what was generated stays in the cache.
  std::vector<std::vector<Token>> prompts = depths_;
  for (std::vector<Token>& prompt : prompts) {
    const std::vector<Token> rest = RandomTokens(std::max(case_.prompt, 1));
    prompt.insert(prompt.end(), rest.begin(), rest.end());
  }
  // The first token belongs to the prompt: N more are timed.
  const bool mixed = case_.kind == CaseKind::kMixed;
  const int max_tokens = case_.generate + (mixed ? 0 : 1);
  Sinks sinks;
  absl::Status status;
  const Clock::time_point begin = Clock::now();
  for (std::vector<Token>& prompt : prompts)
    status.Update(SubmitTo(engine_, std::move(prompt), max_tokens, sinks));
  status.Update(WaitFor(sinks));
  if (!status.ok()) return status;
  if (mixed) return TotalRate(sinks, begin);
  return GenerationRate(sinks);
}

absl::StatusOr<double> EngineRun::FirstTokenMs() {
  Sinks sinks;
  const Clock::time_point begin = Clock::now();
  absl::Status status = SubmitTo(engine_, {0}, 1, sinks);
  status.Update(WaitFor(sinks));
  if (!status.ok()) return status;
  return Seconds(sinks[0]->times().front() - begin) * 1e3;
}

}  // namespace fairlead::bench
