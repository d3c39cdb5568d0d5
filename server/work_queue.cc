// SPDX-License-Identifier: Apache-2.0
#include "server/work_queue.h"

#include <unistd.h>

#include <utility>

#include "kernels/thread_name.h"

namespace fairlead {

WorkQueue::WorkQueue(const char* name, int threads, size_t max_queued, int niceness)
    : name_(name), max_queued_(max_queued), niceness_(niceness) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

WorkQueue::~WorkQueue() { Stop(); }

void WorkQueue::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool WorkQueue::TryPost(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stop_ || queue_.size() >= max_queued_) return false;
  queue_.push_back(std::move(work));
  ready_.notify_one();  // with the lock: who waits for `work` may destroy the queue
  return true;
}

void WorkQueue::Loop() {
  SetThreadName(name_);
  // Of this thread; a refusal costs little.
  if (niceness_ > 0) (void)!nice(niceness_);
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // what it captured must not outlive the unlocked phase
    lock.lock();
  }
}

}  // namespace fairlead
