// SPDX-License-Identifier: Apache-2.0
#include "tests/server/fake_engine.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "absl/time/clock.h"

namespace fairlead {
namespace {

// Logprobs that a test can predict: the token itself at -0.5, the n best are the token and those
// after it, each half a unit less likely.
void PushScored(Token token, int num_top, const std::function<void(const TokenOutput&)>& push) {
  TokenOutput output;
  output.token = token;
  std::vector<TopLogprob> top;
  if (num_top >= 0) {
    output.logprob = -0.5f;
    output.rank = 1;
    for (int i = 0; i < num_top; ++i)
      top.push_back({token + i, -0.5f - 0.5f * static_cast<float>(i)});
    output.top = top;
  }
  push(output);
}

bool IsStop(const EngineRequest& request, Token token) {
  return std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) !=
         request.stop_tokens.end();
}

}  // namespace

void FakeEngine::AnswerWith(std::vector<Token> tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  answer_ = std::move(tokens);
}

void FakeEngine::AnswerBeforeSubmitReturns(std::vector<Token> tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  answer_ = std::move(tokens);
  answers_first_ = true;
}

void FakeEngine::RefuseWith(absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  refusal_ = std::move(status);
}

uint64_t FakeEngine::WaitForRequest(int count) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return static_cast<int>(ids_.size()) >= count; });
  return ids_[static_cast<size_t>(count) - 1];
}

void FakeEngine::WaitForCancel(uint64_t id) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return cancelled_.contains(id) && !active_.contains(id); });
}

std::vector<EngineRequest> FakeEngine::requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

std::set<uint64_t> FakeEngine::cancelled() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

absl::StatusOr<uint64_t> FakeEngine::Submit(EngineRequest request,
                                            std::shared_ptr<TokenSink> sink) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!refusal_.ok()) return refusal_;
  if (draining_) return absl::UnavailableError("the server is shutting down");
  const uint64_t id = ids_.size() + 1;
  ids_.push_back(id);
  requests_.push_back(request);
  active_.emplace(id, Active{std::move(request), std::move(sink)});
  if (answer_) thread_.TryPost([this, id, tokens = *answer_] { AnswerAtOnce(id, tokens); });
  changed_.notify_all();
  if (answers_first_) changed_.wait(lock, [this, id] { return active_.count(id) == 0; });
  return id;
}

void FakeEngine::Emit(uint64_t id, const std::vector<Token>& tokens) {
  thread_.TryPost([this, id, tokens] { PushTokens(id, tokens); });
}

void FakeEngine::Close(uint64_t id, FinishReason reason, absl::Status status) {
  thread_.TryPost([this, id, reason, status] { CloseNow(id, reason, status); });
}

void FakeEngine::Cancel(uint64_t id) {
  thread_.TryPost([this, id] {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      cancelled_.insert(id);
    }
    CloseNow(id, FinishReason::kCancelled, absl::CancelledError("the request was cancelled"));
  });
}

void FakeEngine::Drain(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  const auto idle = [this] { return active_.empty(); };
  if (deadline == absl::InfiniteFuture()) {
    changed_.wait(lock, idle);
  } else {
    changed_.wait_for(lock, absl::ToChronoNanoseconds(deadline - absl::Now()), idle);
  }
  std::vector<uint64_t> left;
  for (const auto& [id, active] : active_) left.push_back(id);
  lock.unlock();
  for (const uint64_t id : left)
    Close(id, FinishReason::kCancelled, absl::UnavailableError("the server is shutting down"));
  lock.lock();
  changed_.wait(lock, idle);
}

EngineStats FakeEngine::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EngineStats stats;
  stats.running = static_cast<int>(active_.size());
  stats.kv_blocks_total = 64;
  return stats;
}

FakeEngine::Active* FakeEngine::Find(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = active_.find(id);
  return found == active_.end() ? nullptr : &found->second;
}

void FakeEngine::PushTokens(uint64_t id, const std::vector<Token>& tokens) {
  Active* active = Find(id);
  if (active == nullptr) return;
  const EngineRequest& request = active->request;
  TokenSink& sink = *active->sink;
  if (request.prompt_logprobs >= 0 && !std::exchange(active->prompt_scored, true)) {
    for (size_t i = 1; i < request.prompt.size(); ++i) {
      PushScored(request.prompt[i], request.prompt_logprobs,
                 [&sink](const TokenOutput& output) { sink.PushPromptLogprob(output); });
    }
  }
  for (const Token token : tokens) {
    PushScored(token, request.logprobs, [&sink](const TokenOutput& output) { sink.Push(output); });
  }
  sink.Flush();
}

void FakeEngine::AnswerAtOnce(uint64_t id, const std::vector<Token>& tokens) {
  const Active* active = Find(id);
  if (active == nullptr) return;
  const EngineRequest& request = active->request;
  PushTokens(id, {});
  for (int count = 1; count <= request.max_tokens; ++count) {
    const Token token = tokens[static_cast<size_t>(count - 1) % tokens.size()];
    PushTokens(id, {token});
    if (count >= request.min_tokens && IsStop(request, token))
      return CloseNow(id, FinishReason::kStop, absl::OkStatus());
  }
  CloseNow(id, FinishReason::kLength, absl::OkStatus());
}

void FakeEngine::CloseNow(uint64_t id, FinishReason reason, const absl::Status& status) {
  Active* active = Find(id);
  if (active != nullptr) {
    EngineResult result;
    result.reason = reason;
    result.status = status;
    result.first_scheduled = absl::Now();
    active->sink->Close(result);
    active->sink->Flush();
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  active_.erase(id);
  changed_.notify_all();
}

}  // namespace fairlead
