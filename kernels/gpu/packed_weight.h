// SPDX-License-Identifier: Apache-2.0
// Weights in the layout the GPU kernels stream. A row is cut into chunks whose values fill 16
// bytes: 4 elements (f32), 8 (f16, bf16), 16 (q8_0) or 32 (4 to 6 bits); or 8 bytes: 32 (q2_k,
// q3_k). Planes, each an array:
// - values, 16 or 8 bytes a chunk: the elements of a plain dtype in order, or the low 8, 4 or 2
//   bits of q.
// - high, the bits of q above these: a u32 a chunk (q5_0, q5_1, q5_k, q3_k), two (q6_k).
// - sub_scales, a u16 a chunk: the low byte is the scale, the high one the minimum (q4_k, q5_k), or
//   a byte each for the first and second 16 elements: an int8 scale (q6_k, q3_k), or the scale and,
//   in the upper nibble, the minimum (q2_k). An int8 a chunk: its scale (iq4_xs).
// - scales, of a block of the file: f16 d, and after it f16 m or dmin where the dtype has it; the
//   exponent (mxfp4).
// - powers, an f32 a row: the power of two that brings the largest |q * scale| + |minimum| of the
//   row into [2^14, 2^15), so that its elements, times it, fit f16 (1 for a row of zeros, or with
//   elements that are not finite; 2^-126 to 2^126).
//
// The order in all planes: tiles of 16 rows, the last one of a group (PackWeightArgs::groups)
// filled up with rows of zeros, so that every group begins with a tile. In a tile, groups of 4
// chunks (the last may have fewer), in a group its rows, in a row its chunks; and for `scales` the
// blocks, in a block its rows. So the 16 rows by 4 chunks that a warp multiplies at once are 1024
// (or 512) contiguous bytes of `values`, and rows of any length waste nothing.
//
// q is unsigned, as in the file; that of q8_0 is 128 more. Four elements make a quad, a byte each:
// quad i of a chunk, its elements 4 i to 4 i + 3, is
//   q8_0        values[i]
//   q2_k, q3_k  values[i / 4] >> 2 * (i % 4) & 0x03030303
//   others      values[i / 2] >> 4 * (i % 2) & 0x0f0f0f0f, with
//   q5_0, q5_1, q5_k  (high >> i & 0x01010101) << 4
//   q6_k              (high[i / 4] >> 2 * (i % 4) & 0x03030303) << 4
//   q3_k              (high >> i & 0x01010101) << 2
// and of iq4_nl, mxfp4, iq4_xs the indices of a table (codebooks.h).
// The last chunk of a plain row is filled up with zeros. As many bytes as the file, and where 6-bit
// scales become bytes (q4_k, q5_k, q3_k), 4 more a block (iq4_xs: 2).
//
// Packing: any thread. A weight owns its device memory and is immutable.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/gpu/streamed_weights.h"

namespace fairlead {

// What a dtype has in each plane.
struct GpuFormat {
  int value_bits;       // of an element
  int high_words;       // u32 a chunk
  int sub_scale_bytes;  // a chunk
  int scale_bytes;      // a block
};

inline constexpr std::array<GpuFormat, kNumDTypes> kGpuFormats = {{
    {32, 0, 0, 0},  // f32
    {16, 0, 0, 0},  // f16
    {16, 0, 0, 0},  // bf16
    {},             // i32: no weight
    {8, 0, 0, 2},   // q8_0
    {4, 0, 0, 2},   // q4_0
    {4, 0, 0, 4},   // q4_1
    {4, 1, 0, 2},   // q5_0
    {4, 1, 0, 4},   // q5_1
    {4, 0, 2, 4},   // q4_k
    {4, 1, 2, 4},   // q5_k
    {4, 2, 2, 2},   // q6_k
    {4, 0, 0, 2},   // iq4_nl
    {4, 0, 0, 1},   // mxfp4
    {4, 0, 1, 2},   // iq4_xs
    {2, 1, 2, 2},   // q3_k
    {2, 0, 2, 4},   // q2_k
    {},             // f8_e4m3: of the KV cache
}};

// Elements of a chunk, and bytes of its values.
constexpr int GpuChunkElements(const GpuFormat& format) {
  return format.value_bits < 4 ? 32 : 128 / format.value_bits;
}
constexpr int GpuChunkBytes(const GpuFormat& format) {
  return GpuChunkElements(format) * format.value_bits / 8;
}

inline constexpr int kTileRows = 16;
inline constexpr int kGroupChunks = 4;

// In device memory; those that the dtype does not have are empty and not read.
struct GpuPlanes {
  const std::byte* values;
  const std::byte* high;
  const std::byte* sub_scales;
  const std::byte* scales;
  const float* powers;
  int chunks;  // of a row
};

// Chunks of a row.
int64_t GpuChunks(DType dtype, int64_t cols);

// Where a chunk of a row stands, in chunks.
constexpr size_t GpuChunkIndex(int row, int chunk, int chunks) {
  const int group = chunk & ~(kGroupChunks - 1);
  const int width = chunks - group < kGroupChunks ? chunks - group : kGroupChunks;
  return (static_cast<size_t>(row / kTileRows) * chunks + group) * kTileRows +
         row % kTileRows * width + chunk % kGroupChunks;
}
// Where the scales of a block of a row stand, in blocks.
constexpr size_t GpuBlockIndex(int row, int block, int blocks) {
  return (static_cast<size_t>(row / kTileRows) * blocks + block) * kTileRows + row % kTileRows;
}

// Rows of the planes: those of the weight, each group filled up to whole tiles. Below, rows are of
// the planes, and may leave out what fills up the last tile.
int64_t GpuRows(int64_t weight_rows, int groups);

// All planes, each 256-byte aligned. The dtype is one of weights, cols a positive multiple of its
// block, rows and a row's chunks fit an int with a tile to spare.
size_t GpuPackedBytes(DType dtype, int64_t rows, int64_t cols);

// The planes of a weight that is packed at `data`.
GpuPlanes GpuPlanesAt(DType dtype, int64_t rows, int64_t cols, const std::byte* data);

// Packs the rows [begin, end) of the planes into `out`, host memory, 16-byte aligned, as a weight
// of these rows alone. begin and, unless it is the last, end are multiples of kTileRows. The gaps
// between planes are left as they are.
void PackGpuRows(const PackWeightArgs& args, int64_t begin, int64_t end, std::byte* out);
// Where in a weight of `rows` rows the bytes belong that PackGpuRows makes of [begin, end): a slice
// a plane, without bytes where the dtype does not have it.
struct GpuSlice {
  size_t from, to, bytes;
};
std::array<GpuSlice, 5> GpuSlices(DType dtype, int64_t rows, int64_t cols, int64_t begin,
                                  int64_t end);
// All rows.
void PackGpuWeight(const PackWeightArgs& args, std::byte* out);

class GpuPackedWeight final : public PackedWeight {
 public:
  // `memory`: the device's copy of what was packed, 256-byte aligned.
  GpuPackedWeight(DType dtype, int64_t rows, int64_t cols, int groups, Buffer memory)
      : PackedWeight(dtype, rows, cols, groups),
        memory_(std::move(memory)),
        planes_(GpuPlanesAt(dtype, GpuRows(rows, groups), cols,
                            static_cast<const std::byte*>(memory_.data()))) {}

  // One that stays in host memory, `host`, which the device copies from. It has no planes: a
  // WeightRing gives it a place for every use.
  GpuPackedWeight(DType dtype, int64_t rows, int64_t cols, int groups, Buffer host,
                  std::shared_ptr<StreamedWeights> others)
      : PackedWeight(dtype, rows, cols, groups),
        memory_(std::move(host)),
        streamed_(std::move(others)),
        streamed_id_(
            streamed_->Add(static_cast<const std::byte*>(memory_.data()), memory_.bytes())) {}
  ~GpuPackedWeight() override {
    if (streamed_ != nullptr) streamed_->Remove(streamed_id_);
  }

  size_t bytes() const override { return streamed() ? 0 : memory_.bytes(); }
  size_t host_bytes() const override { return streamed() ? memory_.bytes() : 0; }
  const GpuPlanes& planes() const { return planes_; }

  bool streamed() const { return streamed_ != nullptr; }
  uint64_t streamed_id() const { return streamed_id_; }
  const std::byte* host() const { return static_cast<const std::byte*>(memory_.data()); }

 private:
  Buffer memory_;
  GpuPlanes planes_{};
  const std::shared_ptr<StreamedWeights> streamed_;
  const uint64_t streamed_id_ = StreamedWeights::kNone;
};

}  // namespace fairlead
