// SPDX-License-Identifier: Apache-2.0
// What one rendering may still use: steps, processor time, live memory, depth. Exhaustion is
// sticky: helpers stop producing and the interpreter returns status() at its next node, so helpers
// need no error path. One rendering, one thread. Every value made during a rendering must be gone
// before its budget.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "models/chat_template.h"

namespace fairlead::jinja {

class Budget {
 public:
  explicit Budget(const ChatTemplateLimits& limits);
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // False once anything is exhausted.
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  void Fail(std::string message);

  // `count` more nodes or elements.
  bool Step(int64_t count = 1);
  // `bytes` read or written: a step for each kBytesPerStep, so that one node cannot stand for
  // gigabytes of work.
  bool Work(size_t bytes);
  // Whether a single string of `bytes` may exist; asked before it is built.
  bool FitsOneString(size_t bytes);

  int max_depth() const { return max_depth_; }
  // Nested containers of one value. Bounds every recursion over values: print, compare, destroy.
  int max_value_depth() const { return 2 * max_depth_; }
  // Nested evaluations (expressions, statements, calls): what bounds the C++ stack.
  bool Enter();
  void Leave() { --depth_; }

 private:
  friend class MemoryCharge;
  bool Allocate(size_t bytes);
  void Free(size_t bytes) { live_bytes_ -= bytes; }

  void CheckTime();

  static constexpr size_t kBytesPerStep = 256;
  static constexpr int64_t kStepsPerCheck = 10'000;  // a millisecond of most work

  int64_t steps_left_;
  int64_t next_check_;  // of the time: when fewer steps are left
  const absl::Duration max_time_;
  const absl::Duration begin_;  // on the thread's clock
  int64_t max_steps_;
  int max_depth_;
  int max_evaluation_depth_;
  size_t max_string_bytes_;
  size_t max_live_bytes_;
  size_t live_bytes_ = 0;
  size_t uncounted_work_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

// Memory a value holds, given back when the value dies. Empty: not accounted (template constants
// and the caller's variables).
class MemoryCharge {
 public:
  MemoryCharge() = default;
  explicit MemoryCharge(Budget* budget) : budget_(budget) {}
  MemoryCharge(MemoryCharge&& other) noexcept
      : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryCharge& operator=(MemoryCharge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryCharge() {
    if (budget_ != nullptr) budget_->Free(bytes_);
  }

  bool Grow(size_t bytes) {
    if (budget_ == nullptr) return true;
    if (!budget_->Allocate(bytes)) return false;
    bytes_ += bytes;
    return true;
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

// Scope of one nested evaluation.
class DepthScope {
 public:
  explicit DepthScope(Budget& budget) : budget_(budget), ok_(budget.Enter()) {}
  ~DepthScope() { budget_.Leave(); }
  DepthScope(const DepthScope&) = delete;
  DepthScope& operator=(const DepthScope&) = delete;
  bool ok() const { return ok_; }

 private:
  Budget& budget_;
  bool ok_;
};

}  // namespace fairlead::jinja
