// SPDX-License-Identifier: Apache-2.0
// A Device in plain host memory for the engine's tests: Sample and Logprobs work, FakeModel does
// the rest by itself. Its stream runs at once, or late: nothing happens before Wait, so that host
// memory touched too early is noticed. Allocates nothing at work while its stream runs at once and
// the rows are greedy.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace fairlead {

class FakeGraph final : public Graph {
 public:
  std::vector<std::function<void()>> work;
};

class FakeStream final : public Stream {
 public:
  explicit FakeStream(bool late, bool fail_captures = false)
      : late_(late), fail_captures_(fail_captures) {}
  template <typename Work>
  void Run(const Work& work) {
    if (recorded_ != nullptr) {
      recorded_->work.push_back(work);
    } else if (late_) {
      queue_.push_back(work);
    } else {
      work();
    }
  }
  void CopyToDevice(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  void Wait() override;
  int64_t Fence() override;
  void WaitFor(int64_t fence) override;
  void BeginCapture() override;
  std::unique_ptr<Graph> EndCapture() override;
  void Launch(const Graph& graph) override;

 private:
  void RunUntil(size_t end);

  const bool late_, fail_captures_;
  std::vector<std::function<void()>> queue_;  // what has not run
  std::vector<size_t> fences_;                // of each one after passed_: work before it in queue_
  int64_t passed_ = 0;
  std::unique_ptr<FakeGraph> recorded_;
};

// What a test may want to see of a Sample call.
using SampleObserver = std::function<void(const SampleArgs&)>;

class FakeDevice final : public Device {
 public:
  struct Options {
    bool late = false;
    bool asynchronous = false;  // and graphs
    bool fail_captures = false;
    size_t memory_bytes = size_t{1} << 30;
    SampleObserver observe_sample;  // on the engine thread, when the op runs
  };

  FakeDevice() : FakeDevice(Options()) {}
  explicit FakeDevice(Options options);
  ~FakeDevice() override;
  const DeviceInfo& info() const override { return info_; }
  size_t FreeMemory() const override { return free_bytes_; }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  // A token and a position for each slot.
  size_t KvBlockBytes(const KvShape& shape) const override { return 8 * shape.block_tokens; }
  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override;
  std::unique_ptr<Stream> NewStream() override;
  const Ops& ops() const override { return *ops_; }

 private:
  const Options options_;
  DeviceInfo info_;
  size_t free_bytes_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace fairlead
