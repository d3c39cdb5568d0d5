// SPDX-License-Identifier: Apache-2.0
// Where keys and values stand in a block of the paged KV cache on GPUs. Everything is read in
// vectors of 16 bytes: 4 elements of f32, 8 of f16 and bf16, 16 of q8_0 and f8_e4m3. Of a block,
// per kv head: K as [vectors of a head][block_tokens], so that neighbouring threads, which take
// neighbouring keys, read neighbouring vectors; then V as [block_tokens][vectors of a head], read
// by neighbouring threads along the dimensions. q8_0 has after them the f16 scales of 32 dimensions
// (or the last few) of a token: of K as [scales][block_tokens], of V as [block_tokens][scales]; a
// value is scale * integer, exact in f32. What lies between the last dimension and the end of its
// vector is never written, and may be anything.
#pragma once

#include "kernels/device.h"
#include "kernels/gpu/bits.h"

namespace fairlead::FAIRLEAD_GPU {

constexpr int kKvVectorBytes = 16;
constexpr int kKvScaleDims = 32;  // dimensions that share a scale of q8_0

struct KvLayout {
  int kv_heads, head_dim, block_tokens;
  int vectors;  // of a token's K or V of a head
  int scales;   // likewise; 0 but for q8_0
  int64_t head_bytes;

  // `dtype`: kF32, kF16, kBF16, kQ8_0 or kF8_E4M3.
  KvLayout(const KvShape& shape, DType dtype)
      : kv_heads(shape.kv_heads),
        head_dim(shape.head_dim),
        block_tokens(shape.block_tokens),
        vectors((head_dim * ElementBytes(dtype) + kKvVectorBytes - 1) / kKvVectorBytes),
        scales(dtype == DType::kQ8_0 ? (head_dim + kKvScaleDims - 1) / kKvScaleDims : 0),
        head_bytes(2 * part_bytes() + int64_t{4} * scales * block_tokens) {}

  static int ElementBytes(DType dtype) {
    return dtype == DType::kQ8_0 ? 1 : static_cast<int>(RowBytes(dtype, 1));
  }

  // All in bytes. A multiple of 16, as block_tokens is.
  int64_t block_bytes() const { return head_bytes * kv_heads; }
  // Of one head of a block, from which the others count.
  GPU_BOTH int64_t Head(int64_t block, int head) const {
    return (block * kv_heads + head) * head_bytes;
  }
  GPU_BOTH int64_t Key(int offset, int vector) const {
    return (int64_t{1} * vector * block_tokens + offset) * kKvVectorBytes;
  }
  GPU_BOTH int64_t Value(int offset, int vector) const {
    return part_bytes() + (int64_t{1} * offset * vectors + vector) * kKvVectorBytes;
  }
  GPU_BOTH int64_t KeyScale(int offset, int scale) const {
    return 2 * part_bytes() + int64_t{2} * (scale * block_tokens + offset);
  }
  GPU_BOTH int64_t ValueScale(int offset, int scale) const {
    return 2 * part_bytes() + int64_t{2} * (scales * (block_tokens + offset) + scale);
  }

 private:
  GPU_BOTH int64_t part_bytes() const { return int64_t{kKvVectorBytes} * vectors * block_tokens; }
};

}  // namespace fairlead::FAIRLEAD_GPU
