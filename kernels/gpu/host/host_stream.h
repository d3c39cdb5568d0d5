// SPDX-License-Identifier: Apache-2.0
// Streams and events of the SIMT executor. Work runs at once, unless a test asks for streams that
// take their time as a GPU may: as late as allowed, or as early as the events of others allow. Then
// they copy from and to pinned memory when they come to it, and other memory as drivers do: it is
// read at the call, and written before the call returns. Streams of one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace fairlead::simt {

enum class Pace {
  kAtOnce,
  kLate,   // when somebody waits for it
  kEager,  // when it comes, but for events that have not been reached
};

// Of the streams that are created from now on.
inline Pace g_pace = Pace::kAtOnce;

class HostStream : public std::enable_shared_from_this<HostStream> {
 public:
  explicit HostStream(Pace pace) : pace_(pace) {}

  void Push(std::function<void()> run) { Push({std::move(run), nullptr, 0}); }
  // What comes later begins when `other` has done so many of its tasks.
  void PushWait(std::shared_ptr<HostStream> other, int64_t tasks) {
    if (pace_ == Pace::kEager) other->waiters_.push_back(weak_from_this());
    Push({nullptr, std::move(other), tasks});
  }
  int64_t pushed() const { return done_ + static_cast<int64_t>(tasks_.size()); }

  void RunUntil(int64_t tasks) {
    while (done_ < tasks) {
      if (const Task& next = tasks_.front(); !Ready(next)) {
        const std::shared_ptr<HostStream> other = next.other;
        other->RunUntil(next.count);  // which may have this one go on
      } else {
        RunOne();
      }
    }
  }

 private:
  struct Task {
    std::function<void()> run;
    std::shared_ptr<HostStream> other;
    int64_t count;
  };

  void Push(Task task) {
    tasks_.push_back(std::move(task));
    if (pace_ == Pace::kAtOnce) RunUntil(pushed());
    if (pace_ == Pace::kEager) Advance();
  }
  static bool Ready(const Task& task) {
    return task.other == nullptr || task.other->done_ >= task.count;
  }
  void Advance() {
    while (!tasks_.empty() && Ready(tasks_.front())) RunOne();
  }
  void RunOne() {
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    if (task.run) task.run();
    ++done_;
    for (size_t i = 0; i < waiters_.size(); ++i) {
      if (const auto waiter = waiters_[i].lock()) waiter->Advance();
    }
  }

  const Pace pace_;
  std::deque<Task> tasks_;
  int64_t done_ = 0;
  std::vector<std::weak_ptr<HostStream>> waiters_;  // eager ones, once for each wait
};

// A point in a stream's work.
struct HostEvent {
  std::shared_ptr<HostStream> stream;
  int64_t tasks = 0;  // before it
};

// Memory that streams copy by themselves. Any thread.
class PinnedMemory {
 public:
  void* Allocate(size_t bytes) {
    void* const data = std::malloc(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (data != nullptr) blocks_[static_cast<std::byte*>(data)] = bytes;
    return data;
  }
  void Release(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.erase(static_cast<std::byte*>(data));
    std::free(data);
  }
  bool Holds(const void* data) {
    const auto* const at = static_cast<const std::byte*>(data);
    const std::lock_guard<std::mutex> lock(mutex_);
    auto after = blocks_.upper_bound(const_cast<std::byte*>(at));
    if (after == blocks_.begin()) return false;
    --after;
    return at < after->first + after->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::byte*, size_t> blocks_;
};
// Outlives every user.
inline PinnedMemory& Pinned() {
  static auto* const pinned = new PinnedMemory;
  return *pinned;
}

}  // namespace fairlead::simt
