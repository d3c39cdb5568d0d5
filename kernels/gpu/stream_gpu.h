// SPDX-License-Identifier: Apache-2.0
// A GPU's queue of work. Small copies go through pinned memory of its own, so that neither side
// waits for the other: a GPU reads and writes ordinary host memory only by way of its driver, and
// for results the host would wait at once. Larger ones are left to the driver. Compiled once per
// target.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/streamed_weights.h"
#include "kernels/gpu/weight_ring.h"

namespace fairlead::FAIRLEAD_GPU {

class GpuStream final : public Stream {
 public:
  static constexpr size_t kStagingBytes = size_t{4} << 20;

  // `scratch`: device memory that ops on this stream may write; may be empty.
  // `streamed`: the device's weights in host memory; null where it has none.
  explicit GpuStream(int device, Buffer scratch = {},
                     std::shared_ptr<const StreamedWeights> streamed = nullptr)
      : device_(device),
        handle_(CreateStream(device)),
        scratch_(std::move(scratch)),
        streamed_(std::move(streamed)) {}
  ~GpuStream() override;
  void CopyToDevice(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  void Wait() override;
  const StreamHandle& handle() const { return handle_; }
  const Buffer& scratch() const { return scratch_; }
  WeightRing& ring();  // made at the first call

 private:
  struct Result {  // to hand over when the work is done
    void* host;
    const std::byte* staged;
    size_t bytes;
  };

  std::byte* Stage(size_t bytes);  // null: it does not fit

  const int device_;
  StreamHandle handle_;
  Buffer scratch_;
  const std::shared_ptr<const StreamedWeights> streamed_;
  std::unique_ptr<WeightRing> ring_;
  std::byte* staging_ = nullptr;  // kStagingBytes, from the first copy on
  size_t used_ = 0;               // since the last Wait
  std::vector<Result> results_;
};

}  // namespace fairlead::FAIRLEAD_GPU
