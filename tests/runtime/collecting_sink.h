// SPDX-License-Identifier: Apache-2.0
// A TokenSink that keeps what it is given. Any thread may wait for it and read it after
// WaitForClose.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/request.h"

namespace fairlead {

struct CollectedOutput {
  Token token = 0;
  float logprob = 0;
  int rank = 0;
  std::vector<std::pair<Token, float>> top;
  bool operator==(const CollectedOutput&) const = default;
};

class CollectingSink : public TokenSink {
 public:
  ~CollectingSink() override { EXPECT_FALSE(unflushed_); }
  void PushPromptLogprob(const TokenOutput& output) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_TRUE(outputs_.empty());
    EXPECT_FALSE(closed_);
    unflushed_ = true;
    prompt_.push_back(Copy(output));
  }
  void Push(const TokenOutput& output) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(closed_);
    unflushed_ = true;
    outputs_.push_back(Copy(output));
    changed_.notify_all();
  }
  void Close(const EngineResult& result) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(closed_);
    closed_ = unflushed_ = true;
    result_ = result;
    changed_.notify_all();
  }
  void Flush() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    unflushed_ = false;
  }

  const EngineResult& WaitForClose() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_; });
    return result_;
  }
  void WaitForTokens(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this, count] { return closed_ || outputs_.size() >= count; });
  }
  std::vector<Token> tokens() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Token> tokens;
    for (const CollectedOutput& output : outputs_) tokens.push_back(output.token);
    return tokens;
  }
  // After WaitForClose.
  const std::vector<CollectedOutput>& outputs() const { return outputs_; }
  const std::vector<CollectedOutput>& prompt() const { return prompt_; }

 private:
  static CollectedOutput Copy(const TokenOutput& output) {
    CollectedOutput copy{output.token, output.logprob, output.rank, {}};
    for (const TopLogprob& top : output.top) copy.top.emplace_back(top.token, top.logprob);
    return copy;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<CollectedOutput> outputs_, prompt_;
  bool closed_ = false;
  bool unflushed_ = false;  // something came after the last Flush
  EngineResult result_;
};

}  // namespace fairlead
