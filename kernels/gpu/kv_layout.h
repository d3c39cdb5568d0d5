// SPDX-License-Identifier: Apache-2.0
// Where keys and values stand in a block of the paged KV cache on GPUs. Of a block, per kv head: K
// as [head_dim / 8 rounded up][block_tokens][8], so that neighbouring threads, which take
// neighbouring keys, read neighbouring 16 (f16) or 32 (f32) bytes; then V as [block_tokens]
// [head_dim], read by neighbouring threads along the dimensions.
#pragma once

#include "kernels/device.h"
#include "kernels/gpu/bits.h"

namespace fairlead::FAIRLEAD_GPU {

constexpr int kKeyVector = 8;  // dimensions of a key that stand together

struct KvLayout {
  int kv_heads, head_dim, block_tokens;

  GPU_BOTH KvLayout(int kv_heads_in, int head_dim_in, int block_tokens_in)
      : kv_heads(kv_heads_in), head_dim(head_dim_in), block_tokens(block_tokens_in) {}

  // All in elements.
  GPU_BOTH int key_vectors() const { return (head_dim + kKeyVector - 1) / kKeyVector; }
  GPU_BOTH int64_t key_elements() const {
    return int64_t{1} * key_vectors() * kKeyVector * block_tokens;
  }
  GPU_BOTH int64_t head_elements() const {
    return key_elements() + int64_t{1} * block_tokens * head_dim;
  }
  GPU_BOTH int64_t block_elements() const { return head_elements() * kv_heads; }
  // Of eight dimensions of a key.
  GPU_BOTH int64_t Key(int64_t block, int head, int offset, int vector) const {
    return block * block_elements() + head * head_elements() +
           (int64_t{1} * vector * block_tokens + offset) * kKeyVector;
  }
  GPU_BOTH int64_t Value(int64_t block, int head, int offset) const {
    return block * block_elements() + head * head_elements() + key_elements() +
           int64_t{1} * offset * head_dim;
  }
};

// Elements of the cache.
GPU_DEVICE float KvValue(float stored) { return stored; }
GPU_DEVICE float KvValue(uint16_t stored) { return F16Value(stored); }
GPU_DEVICE void StoreKv(float value, float* to) { *to = value; }
GPU_DEVICE void StoreKv(float value, uint16_t* to) { *to = F16Bits(value); }

}  // namespace fairlead::FAIRLEAD_GPU
