// SPDX-License-Identifier: Apache-2.0
// Weights in the layout the CPU kernels stream: panels of 16 output rows, so that a vector lane is
// an output row and no sum crosses lanes. As many bytes as the file, plus zero rows up to a
// multiple of 16. One panel holds its K in blocks:
//   f32, f16, bf16   block = 1 k:   value[16 rows]
//   q8_0             block = 32 k:  f16 d[16 rows], then int8 [32 k][16 rows]
//   q4_0             block = 32 k:  f16 d[16 rows], then 4 groups of 8 k: u32 [16 rows], nibble j
//   is element 8 * group + j q4_1             as q4_0 with f16 m[16 rows] after d
// An element is d * q (q8_0), d * (q - 8) (q4_0), d * q + m (q4_1): the block formats of the GGUF
// specification.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"
#include "kernels/dtype.h"

namespace fairlead {

inline constexpr int kPanelRows = 16;

class MatmulScratch;
struct MatmulOutput;

// A dense product by another library, which keeps the weight in a layout of its own.
class DensePlan {
 public:
  virtual ~DensePlan() = default;
  virtual size_t bytes() const = 0;
  virtual void Multiply(ThreadPool& pool, const float* x, int64_t tokens, const MatmulOutput& out,
                        MatmulScratch& scratch) const = 0;
};

class CpuPackedWeight final : public PackedWeight {
 public:
  // RESOURCE_EXHAUSTED when the memory cannot be had. The panels are not initialised.
  static absl::StatusOr<std::unique_ptr<CpuPackedWeight>> Allocate(DType dtype, int64_t rows,
                                                                   int64_t cols);
  CpuPackedWeight(DType dtype, int64_t rows, int64_t cols, std::unique_ptr<DensePlan> plan);
  size_t bytes() const override {
    return plan_ != nullptr ? plan_->bytes() : panels_ * panel_bytes();
  }

  // Where there is one, it holds the weight and there are no panels.
  const DensePlan* plan() const { return plan_.get(); }

  int64_t panels() const { return panels_; }
  int block_k() const { return Info(dtype()).block_elements; }
  size_t block_bytes() const { return static_cast<size_t>(Info(dtype()).block_bytes) * kPanelRows; }
  size_t panel_bytes() const { return block_bytes() * (cols() / block_k()); }
  const std::byte* panel(int64_t index) const { return data_.get() + index * panel_bytes(); }
  std::byte* mutable_panel(int64_t index) { return data_.get() + index * panel_bytes(); }

  // Row `row` as f32; `out` has cols() elements. The values are those the matmul multiplies with.
  void DequantizeRow(int64_t row, float* out) const;

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };

  CpuPackedWeight(DType dtype, int64_t rows, int64_t cols);

  int64_t panels_;
  std::unique_ptr<DensePlan> plan_;
  std::unique_ptr<std::byte[], Free> data_;
};

// Packs in parallel, at about the speed of memory. INVALID_ARGUMENT: a dtype that is no weight
// type, cols that are not a positive multiple of its block, no rows. Only the pool's submitting
// thread may call it.
absl::StatusOr<std::unique_ptr<PackedWeight>> PackCpuWeight(const PackWeightArgs& args,
                                                            Numerics numerics, ThreadPool& pool);

}  // namespace fairlead
