// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace fairlead {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

// Plain, unsynchronised cells: ThreadSanitizer proves that a task's writes are visible after
// ParallelFor.
TEST_P(ThreadPoolTest, RunsEveryTaskOnceAndItsWritesAreVisible) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.threads(), GetParam());
  for (const int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> runs(tasks, 0);
    std::atomic<bool> worker_in_range{true};
    pool.ParallelFor(tasks, [&](int64_t task, int worker) {
      ++runs[task];
      if (worker < 0 || worker >= pool.threads()) worker_in_range = false;
    });
    EXPECT_THAT(runs, testing::Each(1)) << tasks << " tasks";
    EXPECT_TRUE(worker_in_range);
  }
}

// Jobs in close succession: a worker that is late for one job must neither run it again nor miss
// the next.
TEST_P(ThreadPoolTest, ManyShortJobs) {
  ThreadPool pool(GetParam());
  constexpr int kJobs = 20000;
  int64_t sum = 0;
  std::vector<int64_t> cells(5);
  for (int job = 0; job < kJobs; ++job) {
    const int tasks = 1 + job % 5;
    pool.ParallelFor(tasks, [&](int64_t task, int) { cells[task] = job + task; });
    for (int task = 0; task < tasks; ++task) sum += cells[task] - job - task;
  }
  EXPECT_EQ(sum, 0);
}

// No two tasks run as the same worker at a time, so that a worker's scratch is its own.
TEST_P(ThreadPoolTest, WorkerIndexIsExclusive) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> inside(pool.threads());
  std::atomic<int> clashes{0};
  pool.ParallelFor(2000, [&](int64_t, int worker) {
    if (inside[worker].fetch_add(1) != 0) ++clashes;
    std::this_thread::yield();
    inside[worker].fetch_sub(1);
  });
  EXPECT_EQ(clashes, 0);
}

// The submitting thread may change between jobs, as from loading to serving.
TEST_P(ThreadPoolTest, AnotherThreadSubmits) {
  ThreadPool pool(GetParam());
  std::vector<int> runs(100, 0);
  const auto add = [&](int64_t task, int) { ++runs[task]; };
  pool.ParallelFor(100, add);
  std::thread([&] { pool.ParallelFor(100, add); }).join();
  EXPECT_THAT(runs, testing::Each(2));
}

// Tasks that wait for each other prove that as many run at a time as there are threads, whatever
// the number of cores. Each round starts with workers that are spinning, parked or on their way to
// it.
TEST_P(ThreadPoolTest, EveryWorkerTakesPart) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> arrived{0};
    pool.ParallelFor(pool.threads(), [&](int64_t, int) {
      ++arrived;
      while (arrived < pool.threads()) std::this_thread::yield();
    });
    EXPECT_EQ(arrived, pool.threads());
  }
}

// 16 is more than the cores of small machines: workers then park at once and nothing is lost.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 16));

}  // namespace
}  // namespace fairlead
