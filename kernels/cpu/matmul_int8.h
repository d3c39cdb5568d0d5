// SPDX-License-Identifier: Apache-2.0
// Divides a product by int8_matmul.h among the workers: the rows of activations are quantised once,
// then panels of the weight are tasks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/aligned_array.h"
#include "kernels/cpu/int8_matmul.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace fairlead {

// How a device computes with quantised weights; fixed when it is opened.
struct Int8Mode {
  const Int8Kernels* kernels = nullptr;  // null: in f32
  int terms = 2;
};
Int8Mode Int8ModeFor(Numerics numerics);

// Working memory, one per device. It only grows.
class Int8Scratch {
 public:
  // The buffers for `tokens` rows of k values.
  Int8Activations Reserve(int threads, int64_t tokens, int64_t k, const Int8Mode& mode);
  std::byte* worker(int index) const { return workers_.data() + index * kInt8ScratchBytes; }

 private:
  GrowOnlyArray<int8_t> quads_;
  GrowOnlyArray<float> scale_, sum_;
  GrowOnlyArray<int32_t> half_;
  GrowOnlyArray<std::byte> workers_;
};

// x [tokens, weight.cols()]. One caller at a time per pool and scratch.
void MultiplyInt8(ThreadPool& pool, const Int8Mode& mode, const CpuPackedWeight& weight,
                  const float* x, int64_t tokens, const MatmulOutput& out, Int8Scratch& scratch);

}  // namespace fairlead
