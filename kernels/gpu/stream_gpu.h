// SPDX-License-Identifier: Apache-2.0
// A GPU's queue of work. Small copies go through pinned memory of its own, so that neither side
// waits for the other: a GPU reads and writes ordinary host memory only by way of its driver, and
// for results the host would wait at once. Larger ones are left to the driver. Compiled once per
// target.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/streamed_weights.h"
#include "kernels/gpu/weight_ring.h"

namespace fairlead::FAIRLEAD_GPU {

class GpuGraph final : public Graph {
 public:
  explicit GpuGraph(GraphHandle handle) : handle_(std::move(handle)) {}
  ~GpuGraph() override { DestroyGraph(handle_); }
  const GraphHandle& handle() const { return handle_; }

 private:
  const GraphHandle handle_;
};

class GpuStream final : public Stream {
 public:
  static constexpr size_t kStagingBytes = size_t{4} << 20;  // of each part

  // `scratch`: device memory that ops on this stream may write; may be empty.
  // `streamed`: the device's weights in host memory; null where it has none.
  explicit GpuStream(int device, Buffer scratch = {},
                     std::shared_ptr<const StreamedWeights> streamed = nullptr);
  ~GpuStream() override;
  void CopyToDevice(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  void Wait() override;
  int64_t Fence() override;
  void WaitFor(int64_t fence) override;
  // Not what it waits for between the first copy and the ops, which come one by one where no graph
  // holds them.
  std::optional<double> IdleSecondsBefore(int64_t fence) override;
  void BeginCapture() override { FAIRLEAD_GPU::BeginCapture(handle_); }
  std::unique_ptr<Graph> EndCapture() override;
  void Launch(const Graph& graph) override {
    LaunchGraph(handle_, static_cast<const GpuGraph&>(graph).handle());
  }
  const StreamHandle& handle() const { return handle_; }
  const Buffer& scratch() const { return scratch_; }
  WeightRing& ring();  // made at the first call

 private:
  struct Result {  // to hand over when the work is done
    void* host;
    const std::byte* staged;
    size_t bytes;
  };
  // The work from one fence to the next: what it has staged. The last two, and what comes now.
  static constexpr int kParts = 3;
  struct Part {
    std::byte* staging = nullptr;  // kStagingBytes, from the first copy on
    size_t used = 0;
    std::vector<Result> results;
  };
  // Of a fence and of the first copy after the one before: work begins with its inputs.
  static constexpr int kMarks = 4;
  struct Mark {
    EventHandle begin, end;
    bool begun = false, ended = false;
  };

  Part& part(int64_t fence) { return parts_[fence % kParts]; }
  Mark& mark(int64_t fence) { return marks_[fence % kMarks]; }
  void Begin();                    // of the work that the next fence ends
  std::byte* Stage(size_t bytes);  // null: it does not fit
  void HandOver(Part& part);

  const int device_;
  StreamHandle handle_;
  Buffer scratch_;
  const std::shared_ptr<const StreamedWeights> streamed_;
  std::unique_ptr<WeightRing> ring_;
  std::array<Part, kParts> parts_;
  std::array<Mark, kMarks> marks_;
  int64_t next_ = 0;    // the fence that comes
  int64_t passed_ = 0;  // those before it have passed
};

}  // namespace fairlead::FAIRLEAD_GPU
