// SPDX-License-Identifier: Apache-2.0
// The CPU device's workers. They spin briefly after a job, then park on a futex, so that idle
// workers cost nothing and busy neighbours are not starved. Not a general executor: one job at a
// time, submitted by one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace fairlead {

class ThreadPool {
 public:
  // `threads` includes the calling thread: 1 starts no worker.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(shares_.size()); }

  // Calls body(task, worker) for every task in [0, num_tasks), worker in [0, threads()). Each
  // worker has an equal share of neighbouring tasks, which it takes one by one in order, so that it
  // can read ahead from one to the next; one that is done takes those that others have not begun.
  // Returns when all are done. The caller is worker 0. Allocates nothing.
  using Body = absl::FunctionRef<void(int64_t task, int worker)>;
  void ParallelFor(int64_t num_tasks, Body body);

 private:
  void WorkerLoop(int worker);
  bool RunTasks(int worker);
  bool RunShare(int owner, int worker);
  uint32_t ShareEnd(int owner) const;
  void Publish(int64_t num_tasks);
  void AwaitTasks();
  bool SpinWhile(absl::FunctionRef<bool()> waiting) const;

  // A worker's share. Claims and completions each have a cache line, as every task touches both.
  struct alignas(64) Share {
    std::atomic<uint64_t> ticket{
        0};  // high half: the job's number; low half: tasks not yet claimed
  };

  std::vector<Share> shares_;
  alignas(64) std::atomic<uint32_t> pending_{0};  // tasks not yet finished
  std::atomic<bool> caller_parked_{false};
  alignas(64) std::atomic<uint32_t> generation_{
      0};  // the job's number again: what parked workers wait on
  std::atomic<uint32_t> parked_{0};
  std::atomic<bool> stop_{false};
  // Written before the tickets are published and read only by who holds an unfinished task of the
  // job, so never while changing.
  const Body* body_ = nullptr;
  uint32_t num_tasks_ = 0;
  bool may_spin_ =
      false;  // more threads than cores: spinning would take the core from the one who works
  std::vector<std::thread> workers_;
};

}  // namespace fairlead
