// SPDX-License-Identifier: Apache-2.0
// An engine without a model: a test says which tokens come and when, and sees what was asked and
// cancelled. Sinks are called on one thread of its own, as the real engine does. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "runtime/engine.h"
#include "server/work_queue.h"

namespace fairlead {

class FakeEngine : public Engine {
 public:
  explicit FakeEngine(int max_model_len = 1024) : max_model_len_(max_model_len) {}
  ~FakeEngine() override { Drain(absl::InfinitePast()); }

  // From now on every request is answered at once: `tokens` over and over, until max_tokens, or one
  // of its stop tokens after min_tokens. Without this call requests wait for Emit and Close.
  void AnswerWith(std::vector<Token> tokens);
  // As AnswerWith, and Submit returns only when the request is answered and closed.
  void AnswerBeforeSubmitReturns(std::vector<Token> tokens);
  // Submit returns this from now on; OK ends it.
  void RefuseWith(absl::Status status);

  // Waits until `count` requests have come in all; the id of the last of these.
  uint64_t WaitForRequest(int count = 1);
  void Emit(uint64_t id, const std::vector<Token>& tokens);
  void Close(uint64_t id, FinishReason reason, absl::Status status = absl::OkStatus());
  // Waits until `id` has been cancelled (and closed).
  void WaitForCancel(uint64_t id);

  std::vector<EngineRequest> requests() const;  // in the order in which they came
  std::set<uint64_t> cancelled() const;

  absl::StatusOr<uint64_t> Submit(EngineRequest request, std::shared_ptr<TokenSink> sink) override;
  void Cancel(uint64_t id) override;
  void Drain(absl::Time deadline) override;
  EngineStats stats() const override;
  int max_model_len() const override { return max_model_len_; }
  int max_requests() const override { return 64; }

 private:
  struct Active {
    EngineRequest request;
    std::shared_ptr<TokenSink> sink;
    bool prompt_scored = false;
  };

  // On the engine's thread.
  void PushTokens(uint64_t id, const std::vector<Token>& tokens);
  void AnswerAtOnce(uint64_t id, const std::vector<Token>& tokens);
  void CloseNow(uint64_t id, FinishReason reason, const absl::Status& status);
  Active* Find(uint64_t id);

  const int max_model_len_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Active> active_;  // the nodes' content: engine's thread only
  std::vector<EngineRequest> requests_;
  std::vector<uint64_t> ids_;
  std::set<uint64_t> cancelled_;
  std::optional<std::vector<Token>> answer_;
  bool answers_first_ = false;  // before Submit returns
  absl::Status refusal_;
  bool draining_ = false;
  WorkQueue thread_{"fake engine", 1, 1 << 20};  // last: ends first
};

}  // namespace fairlead
