// SPDX-License-Identifier: Apache-2.0
// The CPU device's matmul and embedding over packed weights (packed_weight.h). Arguments are taken
// as checked (MakeCheckedOps). One caller at a time per pool and scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/cpu/aligned_array.h"
#include "kernels/cpu/matmul_int8.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

// Working memory of CpuMatmul, one per device. It only grows: after a product of some size,
// products of that size or less allocate nothing. Running out of memory in it ends the process;
// Reserve early.
class MatmulScratch {
 public:
  void Reserve(int threads, int64_t max_tokens, int64_t max_k);

  float* activations() const { return activations_.data(); }
  float* worker(int index) const { return workers_.data() + index * worker_floats_; }
  Int8Scratch& int8() { return int8_; }

 private:
  Int8Scratch int8_;
  GrowOnlyArray<float> activations_;
  GrowOnlyArray<float> workers_;
  size_t worker_floats_ = 0;
};

void CpuMatmul(ThreadPool& pool, const Int8Mode& mode, const MatmulArgs& args,
               MatmulScratch& scratch);
void CpuEmbed(ThreadPool& pool, const EmbedArgs& args);

}  // namespace fairlead
