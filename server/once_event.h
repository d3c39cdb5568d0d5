// SPDX-License-Identifier: Apache-2.0
// Something that happens once and that threads may wait for. Built on std::mutex, which
// ThreadSanitizer understands (it does not see into the distribution's Abseil). Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fairlead {

class OnceEvent {
 public:
  // The last touch of this object by the notifier: a waiter may destroy it afterwards.
  void Notify() {
    const std::lock_guard<std::mutex> lock(mutex_);
    happened_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return happened_; });
  }
  // False when the deadline, which is not infinite, comes first.
  bool WaitUntil(absl::Time deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoNanoseconds(deadline - absl::Now()),
                             [this] { return happened_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;
};

}  // namespace fairlead
