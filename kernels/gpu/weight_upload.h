// SPDX-License-Identifier: Apache-2.0
// Weights on their way to the GPU: packed by several host threads a few rows at a time, in pinned
// memory that the GPU copies from meanwhile. So loading takes no host memory of the size of a
// weight. Compiled once per target.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"

namespace fairlead::FAIRLEAD_GPU {

class WeightUpload {  // thread-safe: weights take turns
 public:
  // What a thread packs before it is copied, at least one row.
  static constexpr size_t kSlabBytes = size_t{4} << 20;

  WeightUpload(int device, int threads);
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  // Packs the weight, of `rows` rows of planes, to `data`, device memory of GpuPackedBytes. It is
  // there on return. kResourceExhausted: there is no more memory to pin.
  absl::Status Upload(const PackWeightArgs& args, int64_t rows, std::byte* data);
  // The same to host memory.
  absl::Status PackToHost(const PackWeightArgs& args, int64_t rows, std::byte* data);

 private:
  struct Lane {  // a thread's
    StreamHandle stream;
    std::byte* slab = nullptr;
  };

  static int64_t SlabRows(const PackWeightArgs& args, int64_t rows);
  template <typename Copy>
  absl::Status Pack(const PackWeightArgs& args, int64_t rows, const Copy& copy);
  absl::Status Reserve(size_t bytes);  // in each slab
  void ReleaseSlabs();

  const int device_;
  std::mutex mutex_;
  ThreadPool pool_;
  std::vector<Lane> lanes_;
  size_t slab_bytes_ = 0;
};

}  // namespace fairlead::FAIRLEAD_GPU
