// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "kernels/check.h"
#include "kernels/short_slice.h"
#include "kernels/thread_name.h"

namespace fairlead {
namespace {

// About the time between two jobs of a decode step. Parking and waking costs some 5 us a side.
constexpr std::chrono::microseconds kSpin{20};

inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int UsableCores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(std::max(threads, 1)) {
  FAIRLEAD_CHECK(threads >= 1);
  may_spin_ = threads <= UsableCores();
  workers_.reserve(threads - 1);
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t num_tasks, Body body) {
  if (num_tasks <= 0) return;
  if (workers_.empty() || num_tasks == 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  FAIRLEAD_CHECK(num_tasks <= std::numeric_limits<uint32_t>::max());
  body_ = &body;
  Publish(num_tasks);
  RunTasks(0);
  AwaitTasks();
}

void ThreadPool::Publish(int64_t num_tasks) {
  num_tasks_ = static_cast<uint32_t>(num_tasks);
  pending_.store(num_tasks_, std::memory_order_relaxed);
  const uint64_t job = (shares_[0].ticket.load(std::memory_order_relaxed) >> 32) + 1;
  for (int owner = 0; owner < threads(); ++owner) {
    const uint64_t tasks = ShareEnd(owner) - ShareEnd(owner - 1);
    shares_[owner].ticket.store(job << 32 | tasks, std::memory_order_release);
  }
  // Sequentially consistent, as is the parking side: either we see the worker parked, or it sees
  // the new number.
  generation_.fetch_add(1);
  const uint32_t parked = parked_.load();
  if (parked == 0) return;
  const uint32_t wanted = num_tasks_ - 1;
  if (wanted >= parked) {
    generation_.notify_all();
  } else {
    for (uint32_t i = 0; i < wanted; ++i) generation_.notify_one();
  }
}

// The task after the last of a worker's share.
uint32_t ThreadPool::ShareEnd(int owner) const {
  return static_cast<uint32_t>(uint64_t{num_tasks_} * (owner + 1) / threads());
}

// Claims and runs tasks until none is left, its own first. While a job is being published it may
// see a part of it; then a new number follows.
bool ThreadPool::RunTasks(int worker) {
  bool ran = false;
  for (int i = 0; i < threads(); ++i) ran |= RunShare((worker + i) % threads(), worker);
  return ran;
}

// A claim carries the job's number, so it cannot succeed on a job that is over, and the caller
// waits for tasks only: a worker that wakes late, or was preempted while idle, delays nobody.
bool ThreadPool::RunShare(int owner, int worker) {
  std::atomic<uint64_t>& shared = shares_[owner].ticket;
  bool ran = false;
  uint64_t ticket = shared.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t left = static_cast<uint32_t>(ticket);
    if (left == 0) return ran;
    if (!shared.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    (*body_)(ShareEnd(owner) - left, worker);
    ran = true;
    if (pending_.fetch_sub(1) == 1 && caller_parked_.load()) pending_.notify_one();
    ticket = shared.load(std::memory_order_acquire);
  }
}

void ThreadPool::AwaitTasks() {
  if (pending_.load(std::memory_order_acquire) == 0) return;
  if (SpinWhile([this] { return pending_.load(std::memory_order_acquire) != 0; })) return;
  caller_parked_.store(true);
  for (uint32_t pending = pending_.load(); pending != 0; pending = pending_.load()) {
    pending_.wait(pending);
  }
  caller_parked_.store(false);
}

// True when the wait is over; false when it is time to park.
bool ThreadPool::SpinWhile(absl::FunctionRef<bool()> waiting) const {
  if (!may_spin_) return !waiting();
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (!waiting()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

void ThreadPool::WorkerLoop(int worker) {
  SetThreadName("kernels");
  AskForShortSlice();
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint32_t seen = generation_.load(std::memory_order_acquire);
    if (RunTasks(worker)) continue;
    if (SpinWhile([&] { return generation_.load(std::memory_order_acquire) == seen; })) continue;
    parked_.fetch_add(1);
    if (!stop_.load()) generation_.wait(seen);
    parked_.fetch_sub(1);
  }
}

}  // namespace fairlead
