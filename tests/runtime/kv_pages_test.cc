// SPDX-License-Identifier: Apache-2.0
// The window ahead of the blocks in use: what is populated when, and how the thread ends.
#include "runtime/kv_pages.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <vector>

namespace fairlead {
namespace {

constexpr size_t kStep = KvPages::kStep;

// Records the calls; nothing is touched, so the memory may be imaginary.
class Recorder {
 public:
  KvPages::Populate Callback(bool answer = true) {
    return [this, answer](std::byte* data, size_t bytes) {
      const std::lock_guard<std::mutex> lock(mutex_);
      EXPECT_EQ(data - begin(), static_cast<ptrdiff_t>(populated_));
      EXPECT_LE(bytes, kStep);
      populated_ += bytes;
      ++calls_;
      changed_.notify_all();
      return answer;
    };
  }
  std::byte* begin() { return memory_.data(); }
  // Until so many bytes are populated; the test's timeout ends it otherwise.
  void Await(size_t bytes) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return populated_ >= bytes; });
    EXPECT_EQ(populated_, bytes);
  }
  size_t populated() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return populated_;
  }
  int calls() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }

 private:
  std::vector<std::byte> memory_ = std::vector<std::byte>(1);
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t populated_ = 0;
  int calls_ = 0;
};

TEST(KvPages, StaysAWindowAhead) {
  Recorder recorder;
  {
    KvPages pages(recorder.begin(), 20 * kStep, 4 * kStep, recorder.Callback());
    recorder.Await(4 * kStep);
    pages.Reached(kStep / 2);  // less than a step: not yet
    pages.Reached(3 * kStep);
    recorder.Await(7 * kStep);
    pages.Reached(2 * kStep);  // never back
    pages.Reached(5 * kStep + 1);
    recorder.Await(10 * kStep);
  }
  EXPECT_EQ(recorder.populated(), 10 * kStep);
}

TEST(KvPages, EndsAtTheEndOfTheCache) {
  Recorder recorder;
  KvPages pages(recorder.begin(), 3 * kStep + 5, 2 * kStep, recorder.Callback());
  pages.Reached(2 * kStep);
  recorder.Await(3 * kStep + 5);
  pages.Reached(3 * kStep + 5);
}

TEST(KvPages, ADeviceWithoutUseForItIsAskedOnce) {
  Recorder recorder;
  {
    KvPages pages(recorder.begin(), 20 * kStep, 4 * kStep, recorder.Callback(false));
    recorder.Await(kStep);
    pages.Reached(10 * kStep);
  }
  EXPECT_EQ(recorder.calls(), 1);
}

TEST(KvPages, NoWindow) {
  Recorder recorder;
  {
    KvPages pages(recorder.begin(), 20 * kStep, 0, recorder.Callback());
    pages.Reached(0);
    pages.Reached(kStep);
    recorder.Await(kStep);
  }
  EXPECT_EQ(recorder.populated(), kStep);
}

TEST(KvPages, WindowIsOfSomeStepsAndAShareOfTheCache) {
  constexpr size_t kMiB = size_t{1} << 20;
  EXPECT_EQ(KvPagesWindow(8192 * kMiB, kMiB), 64 * kMiB);
  EXPECT_EQ(KvPagesWindow(8192 * kMiB, 100 * kMiB), 400 * kMiB);
  EXPECT_EQ(KvPagesWindow(80 * kMiB, 100 * kMiB), 10 * kMiB);
}

}  // namespace
}  // namespace fairlead
