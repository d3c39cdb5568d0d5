// SPDX-License-Identifier: Apache-2.0
// Weights in the layout the CPU kernels stream: panels of 16 output rows, so that a vector lane is
// an output row and no sum crosses lanes. As many bytes as the file (q4_k, q5_k, q3_k: 4 a row and
// block more, iq4_xs: 2), plus zero rows up to a multiple of 16. One panel holds its K in blocks,
// elements in natural order whatever the order of the file; "[16]" is one value a row:
//   f32, f16, bf16   block = 1 k:   value[16]
//   q8_0             block = 32 k:  f16 d[16]; 4 groups of 8 k: u32[16] whose bytes are the k
//                                   0, 2, 4, 6 of the group (int8), u32[16] with the k 1, 3, 5, 7
//   q4_0             block = 32 k:  f16 d[16]; 4 groups: u32[16], nibble j is element j
//   q4_1                            as q4_0 with f16 m[16] after d
//   q5_0             block = 32 k:  f16 d[16]; u32 high[16]; 4 groups of nibbles as in q4_0
//   q5_1                            as q5_0 with f16 m[16] after d
//   q4_k             block = 256 k: f16 d[16], f16 dmin[16]; u8 scale[8][16], u8 min[8][16] for
//                                   the sub-blocks of 32; 32 groups of nibbles
//   q5_k                            as q4_k with u32 high[8][16], one for each sub-block, before
//                                   the nibbles
//   q6_k             block = 256 k: f16 d[16]; i8 scale[16][16] for the sub-blocks of 16;
//                                   u32 high[8][2][16], two for each 32 k; 32 groups of nibbles
//   iq4_nl                          as q4_0
//   mxfp4            block = 32 k:  u8 e[16]; 4 groups of nibbles
//   iq4_xs           block = 256 k: f16 d[16]; i8 scale[8][16]; 32 groups of nibbles
//   q3_k             block = 256 k: f16 d[16]; i8 scale[16][16] for the sub-blocks of 16; u32
//                                   high[8][16], one for each 32 k; u32 low[16][16]
//   q2_k             block = 256 k: f16 d[16], f16 dmin[16]; u8 both[16][16] for the sub-blocks of
//                                   16: scale, and in the upper nibble min; u32 low[16][16]
// Groups (PackWeightArgs::groups) stand one after another, each with the zero rows that fill up its
// last panel.
// Four elements of one row make a quad, a byte each: quad 2g of 32 k has the elements 0, 2, 4, 6 of
// group g (word & 0x0f0f0f0f), quad 2g + 1 has 1, 3, 5, 7 (word >> 4 & 0x0f0f0f0f), as the words of
// q8_0 have them. The higher bits of q stand so that they are masked out as quads too:
//   q5_0, q5_1, q5_k bit 4 of quad i is          (high >> i & 0x01010101) << 4
//   q6_k             bits 4 and 5 of quad i are  (high[i / 4] >> 2 * (i % 4) & 0x03030303) << 4
// and those of 2 or 3 bits are
//   q2_k, q3_k       quad i is                   low[i / 4] >> 2 * (i % 4) & 0x03030303
//   q3_k             bit 2 of quad i is          (high >> i & 0x01010101) << 2
// An element is d * q (q8_0), d * (q - 8) (q4_0), d * q + m (q4_1, q5_1), d * (q - 16) (q5_0),
// (d * scale) * q - (dmin * min) (q4_k, q5_k, q2_k), (d * scale) * (q - 32) (q6_k), d * table[q]
// (iq4_nl), 2^(e - 128) * table[q] (mxfp4), (d * scale) * table[q] (iq4_xs; tables: codebooks.h),
// (d * scale) * (q - 4) (q3_k): the block formats of the GGUF specification. All products are exact
// in f32, so the sum is the one rounding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"
#include "kernels/dtype.h"

namespace fairlead {

inline constexpr int kPanelRows = 16;

// Bytes of one row's block in a panel: the file's, and where 6-bit scales become bytes, a few more.
inline size_t PackedBlockBytes(DType dtype) {
  const auto file = static_cast<size_t>(Info(dtype).block_bytes);
  switch (dtype) {
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ3_K:
      return file + 4;
    case DType::kIQ4_XS:
      return file + 2;
    default:
      return file;
  }
}

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
                                                                   int64_t cols, int groups);
  // Reads the panels where they are. Null if `image` is not as large as they or not aligned.
  static std::unique_ptr<CpuPackedWeight> Borrow(DType dtype, int64_t rows, int64_t cols,
                                                 int groups, absl::Span<const std::byte> image);
  // A plan for each group.
  CpuPackedWeight(DType dtype, int64_t rows, int64_t cols,
                  std::vector<std::unique_ptr<DensePlan>> plans);
  size_t bytes() const override;
  absl::Span<const std::byte> image() const override {
    if (data_ == nullptr) return {};
    return {data_, bytes()};
  }

  // The matrix of a group: itself where there is but one.
  const CpuPackedWeight& group(int index) const {
    return groups_.empty() ? *this : *groups_[static_cast<size_t>(index)];
  }

  // Where there is one, it holds the (only) group and there are no panels.
  const DensePlan* plan() const { return plan_.get(); }

  int64_t panels() const { return panels_; }  // of all groups
  int64_t group_panels() const { return panels_ / groups(); }
  int block_k() const { return Info(dtype()).block_elements; }
  size_t block_bytes() const { return PackedBlockBytes(dtype()) * kPanelRows; }
  size_t panel_bytes() const { return block_bytes() * (cols() / block_k()); }
  const std::byte* panel(int64_t index) const { return data_ + index * panel_bytes(); }
  std::byte* mutable_panel(int64_t index) { return owned_.get() + index * panel_bytes(); }

  // Row `row` as f32; `out` has cols() elements. The values are those the matmul multiplies with.
  void DequantizeRow(int64_t row, float* out) const;
  // The same, added to what is in `out`.
  void AddRow(int64_t row, float* out) const;

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };

  CpuPackedWeight(DType dtype, int64_t rows, int64_t cols, int groups);
  void SetData(const std::byte* data);

  int64_t panels_;
  std::unique_ptr<DensePlan> plan_;
  std::unique_ptr<std::byte[], Free> owned_;  // null where the panels are somebody else's
  const std::byte* data_ = nullptr;
  std::vector<std::unique_ptr<CpuPackedWeight>> groups_;  // views, where there are several
};

// Packs in parallel, at about the speed of memory. INVALID_ARGUMENT: a dtype that is no weight
// type, cols that are not a positive multiple of its block, no rows. Only the pool's submitting
// thread may call it.
absl::StatusOr<std::unique_ptr<PackedWeight>> PackCpuWeight(const PackWeightArgs& args,
                                                            Numerics numerics, ThreadPool& pool);

}  // namespace fairlead
