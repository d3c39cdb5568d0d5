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

// Paired, which is bf16 for AMX tiles (tile_attention.h): K as [head_dim rounded up to 32, / 2]
// [block_tokens][2], V as [block_tokens / 2][head_dim rounded up to 16][2]; what is rounded up
// holds zeros.
struct KvFormat {
  DType dtype = DType::kF16;  // kF32, kF16, kBF16, kQ8_0 or kF8_E4M3
  bool paired = false;
};

struct KvLayout {
  KvLayout(const KvShape& shape_in, const KvFormat& format)
      : shape(shape_in),
        dtype(format.dtype),
        paired(format.paired),
        element_bytes(dtype == DType::kQ8_0 ? 1u : static_cast<unsigned>(RowBytes(dtype, 1))),
        key_dims(paired ? (shape_in.head_dim + 31) / 32 * 32 : shape_in.head_dim),
        v_stride((shape_in.head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup),
        scales(dtype == DType::kQ8_0 ? (shape_in.head_dim + kKvScaleDims - 1) / kKvScaleDims : 0) {}

  // A multiple of 16, as block_tokens is.
  size_t head_bytes() const {
    return scales_offset() + size_t{2} * 2 * scales * shape.block_tokens;
  }
  size_t block_bytes() const { return head_bytes() * shape.kv_heads; }

  // Of the token at `offset` of its block. K's dimensions, paired two of them, are `block_tokens`
  // elements (pairs) apart.
  size_t KeyOffset(int64_t block, int kv_head, int offset) const {
    return block * block_bytes() + kv_head * head_bytes() +
           size_t{element_bytes} * (paired ? 2 : 1) * offset;
  }
  // Paired: of an even offset.
  size_t ValueOffset(int64_t block, int kv_head, int offset) const {
    const size_t keys = size_t{element_bytes} * shape.block_tokens * key_dims;
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
  DType dtype;
  bool paired;
  unsigned element_bytes;
  int key_dims;
  int v_stride;
  int scales;  // of a token's K or V

 private:
  size_t scales_offset() const {
    return size_t{element_bytes} * shape.block_tokens * (key_dims + v_stride);
  }
};

}  // namespace fairlead
