// SPDX-License-Identifier: Apache-2.0
// Where a token's key and value stand inside a KV block of the CPU device. Any thread; no state.
// A block holds, per kv head: K as [head_dim, block_tokens] (lanes of a vector are keys: no
// horizontal sums in q.k) and then V as [block_tokens, head_dim rounded up to 16] (lanes are
// dimensions of the output). q8_0 has after them the f16 scales of 32 dimensions (or the last few)
// of a token: of K as [dimensions / 32 rounded up, block_tokens], of V as [block_tokens, dimensions
// / 32 rounded up]. A value is scale * integer, exact in f32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device.h"

namespace fairlead {

// Keys are handled in groups of this many, the widest f32 vector that the kernels use.
inline constexpr int kKeyGroup = KvShape::kTokenGroup;
inline constexpr int kKvScaleDims = 32;  // dimensions that share a scale of q8_0

struct KvLayout {
  KvLayout(const KvShape& shape_in, DType dtype_in)
      : shape(shape_in),
        dtype(dtype_in),
        element_bytes(dtype_in == DType::kQ8_0 ? 1u : static_cast<unsigned>(RowBytes(dtype_in, 1))),
        v_stride((shape_in.head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup),
        scales(dtype_in == DType::kQ8_0 ? (shape_in.head_dim + kKvScaleDims - 1) / kKvScaleDims
                                        : 0) {}

  // A multiple of 16, as block_tokens is.
  size_t head_bytes() const {
    return scales_offset() + size_t{2} * 2 * scales * shape.block_tokens;
  }
  size_t block_bytes() const { return head_bytes() * shape.kv_heads; }

  // Of the token at `offset` of its block. K's dimensions are `block_tokens` elements apart.
  size_t KeyOffset(int64_t block, int kv_head, int offset) const {
    return block * block_bytes() + kv_head * head_bytes() + size_t{element_bytes} * offset;
  }
  size_t ValueOffset(int64_t block, int kv_head, int offset) const {
    const size_t keys = size_t{element_bytes} * shape.block_tokens * shape.head_dim;
    return block * block_bytes() + kv_head * head_bytes() + keys +
           size_t{element_bytes} * offset * v_stride;
  }
  // A key's scales are `block_tokens` apart, a value's stand together.
  size_t KeyScaleOffset(int64_t block, int kv_head, int offset) const {
    return block * block_bytes() + kv_head * head_bytes() + scales_offset() + size_t{2} * offset;
  }
  size_t ValueScaleOffset(int64_t block, int kv_head, int offset) const {
    return block * block_bytes() + kv_head * head_bytes() + scales_offset() +
           size_t{2} * scales * (shape.block_tokens + offset);
  }

  KvShape shape;
  DType dtype;  // kF32, kF16, kBF16, kQ8_0 or kF8_E4M3
  unsigned element_bytes;
  int v_stride;
  int scales;  // of a token's K or V

 private:
  size_t scales_offset() const {
    return size_t{element_bytes} * shape.block_tokens * (shape.head_dim + v_stride);
  }
};

}  // namespace fairlead
