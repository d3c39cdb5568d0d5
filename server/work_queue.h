// SPDX-License-Identifier: Apache-2.0
// A few threads with a bounded queue, for work that takes too long for a transport's thread:
// templates, tokenizing. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fairlead {

class WorkQueue {
 public:
  // name: of the threads. niceness: added to theirs (nice(2)), so that they stand back.
  WorkQueue(const char* name, int threads, size_t max_queued, int niceness = 0);
  ~WorkQueue();  // stops
  // Runs what is queued, then joins. TryPost takes nothing any more. Not from the queue's threads.
  void Stop();

  // False when the queue is full or stopped: `work` has not been taken.
  bool TryPost(std::function<void()> work);

 private:
  void Loop();

  const char* const name_;
  const size_t max_queued_;
  const int niceness_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace fairlead
