// SPDX-License-Identifier: Apache-2.0
// The memory-bound ops on CPU threads. Small calls run on the calling thread; the bits are the same
// either way.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/each_row.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/simd_elementwise.h"
#include "kernels/cpu/simd_matmul.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

constexpr float kLeastNorm = 1e-12f;  // PoolArgs::normalize

template <typename T>
void StoreEach(const float* x, int n, int stride, T (*rounded)(float), T* out) {
  for (int i = 0; i < n; ++i) out[i * stride] = rounded(x[i]);
}

// Of two dimensions of the key, of two tokens' values.
void WritePairedToken(const KvLayout& layout, std::byte* cache, int slot, const float* key,
                      const float* value, int kv_head) {
  const int block_tokens = layout.shape.block_tokens, head_dim = layout.shape.head_dim;
  const int block = slot / block_tokens, offset = slot % block_tokens;
  uint16_t rounded[KvShape::kMaxHeadDim] = {};
  SimdRoundToBF16(key, head_dim, rounded);
  std::byte* k = cache + layout.KeyOffset(block, kv_head, offset);
  for (int dim = 0; dim < layout.key_dims; dim += 2) {
    std::memcpy(k + int64_t{2} * dim * block_tokens, rounded + dim, 4);
  }
  SimdRoundToBF16(value, head_dim, rounded);
  std::byte* v = cache + layout.ValueOffset(block, kv_head, offset / 2 * 2) + 2 * (offset % 2);
  for (int dim = 0; dim < layout.v_stride; ++dim) std::memcpy(v + 4 * dim, rounded + dim, 2);
}

void WriteKvToken(const KvLayout& layout, void* cache, int slot, const float* key,
                  const float* value, int kv_head) {
  const int block_tokens = layout.shape.block_tokens;
  const int head_dim = layout.shape.head_dim;
  auto* bytes = static_cast<std::byte*>(cache);
  if (layout.paired) return WritePairedToken(layout, bytes, slot, key, value, kv_head);
  std::byte* k = bytes + layout.KeyOffset(slot / block_tokens, kv_head, slot % block_tokens);
  std::byte* v = bytes + layout.ValueOffset(slot / block_tokens, kv_head, slot % block_tokens);
  if (layout.dtype == DType::kF16) {
    SimdStoreF16(key, head_dim, block_tokens, reinterpret_cast<uint16_t*>(k));
    SimdStoreF16(value, head_dim, 1, reinterpret_cast<uint16_t*>(v));
  } else if (layout.dtype == DType::kBF16) {
    StoreEach(key, head_dim, block_tokens, F32ToBF16, reinterpret_cast<uint16_t*>(k));
    StoreEach(value, head_dim, 1, F32ToBF16, reinterpret_cast<uint16_t*>(v));
  } else if (layout.dtype == DType::kF8_E4M3) {
    StoreEach(key, head_dim, block_tokens, F32ToF8E4M3, reinterpret_cast<uint8_t*>(k));
    StoreEach(value, head_dim, 1, F32ToF8E4M3, reinterpret_cast<uint8_t*>(v));
  } else if (layout.dtype == DType::kQ8_0) {
    const int block = slot / block_tokens, offset = slot % block_tokens;
    SimdStoreQ8(key, head_dim, block_tokens, reinterpret_cast<int8_t*>(k), block_tokens,
                reinterpret_cast<uint16_t*>(bytes + layout.KeyScaleOffset(block, kv_head, offset)));
    SimdStoreQ8(
        value, head_dim, 1, reinterpret_cast<int8_t*>(v), 1,
        reinterpret_cast<uint16_t*>(bytes + layout.ValueScaleOffset(block, kv_head, offset)));
  } else {
    SimdStoreF32(key, head_dim, block_tokens, reinterpret_cast<float*>(k));
    SimdStoreF32(value, head_dim, 1, reinterpret_cast<float*>(v));
  }
}

}  // namespace

void CpuOps::RmsNorm(Stream&, const RmsNormArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t columns = args.x.dim[1], n = args.weight.dim[0];
  const auto norm = args.accumulate ? SimdAddRmsNormRow : SimdRmsNormRow;
  ForEachRow(pool_, args.x.dim[0], n, [&](int64_t row) {
    const int64_t at = row * columns + args.column;
    norm(args.x.As<float>() + at, args.weight.As<float>(), static_cast<int>(n), args.epsilon,
         args.out.As<float>() + at);
  });
}

void CpuOps::LayerNorm(Stream&, const LayerNormArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t n = args.x.dim[1];
  ForEachRow(pool_, args.x.dim[0], n, [&](int64_t row) {
    SimdLayerNormRow(args.x.As<float>() + row * n, args.weight.As<float>(), args.bias.As<float>(),
                     static_cast<int>(n), args.epsilon, args.out.As<float>() + row * n);
  });
}

void CpuOps::ActivateAndMul(Stream&, const ActivateAndMulArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t n = args.out.dim[1], columns = args.x.dim[1];
  ForEachRow(pool_, args.out.dim[0], n, [&](int64_t row) {
    const float* gate = args.x.As<float>() + row * columns;
    SimdActivateAndMulRow(args.activation, args.limit, gate, args.gated ? gate + n : nullptr,
                          static_cast<int>(n), args.out.As<float>() + row * n);
  });
}

void CpuOps::GatherRows(Stream&, const GatherRowsArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t n = args.x.dim[1];
  ForEachRow(pool_, args.row.dim[0], n, [&](int64_t row) {
    std::memcpy(args.out.As<float>() + row * n, args.x.As<float>() + args.row.As<int>()[row] * n,
                n * sizeof(float));
  });
}

void CpuOps::Scale(Stream&, const ScaleArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t n = args.x.dim[1];
  ForEachRow(pool_, args.x.dim[0], n, [&](int64_t row) {
    SimdScaleRow(args.factor, args.soft_cap, static_cast<int>(n), args.x.As<float>() + row * n);
  });
}

void CpuOps::SelectTokens(Stream&, const SelectTokensArgs& args) const {
  for (int64_t t = 0; t < args.token.dim[0]; ++t) {
    const int source = args.source.As<int>()[t];
    args.out.As<int>()[t] =
        source < 0 ? args.token.As<int>()[t] : std::max(args.drawn.As<int>()[source], 0);
  }
}

void CpuOps::Pool(Stream&, const PoolArgs& args) const {
  const std::lock_guard lock(mutex_);
  const int64_t seqs = args.out.dim[0], n = args.out.dim[1];
  const int64_t mean_tokens = args.x.dim[0] / std::max<int64_t>(seqs, 1);
  ForEachRow(pool_, seqs, (mean_tokens + 1) * n, [&](int64_t seq) {
    const int begin = args.query_start.As<int>()[seq], end = args.query_start.As<int>()[seq + 1];
    float* out = args.out.As<float>() + seq * n;
    if (begin == end) {
      std::fill(out, out + n, 0.0f);
      return;
    }
    const auto row = [&](int64_t token) { return args.x.As<float>() + token * n; };
    std::copy_n(row(args.pooling == Pooling::kLast ? end - 1 : begin), n, out);
    if (args.pooling == Pooling::kMean) {
      for (int token = begin + 1; token < end; ++token) {
        SimdAddRow(row(token), static_cast<int>(n), out);
      }
      for (int64_t i = 0; i < n; ++i) out[i] /= static_cast<float>(end - begin);
    }
    if (args.normalize) SimdNormalizeRow(out, static_cast<int>(n), kLeastNorm);
  });
}

// k in args.qkv is left as it was: only the cache gets its rotated form.
void CpuOps::RopeAndWriteKv(Stream&, const RopeAndWriteKvArgs& args) const {
  const std::lock_guard lock(mutex_);
  const KvLayout layout(args.kv.shape, kv_format_);
  const int kv_heads = args.kv.shape.kv_heads;
  const int head_dim = args.kv.shape.head_dim;
  const int rotary_dim = static_cast<int>(args.cos_sin.dim[1]);
  const int64_t row_elements = int64_t{args.heads + 2 * kv_heads} * head_dim;
  FAIRLEAD_CHECK(head_dim <= KvShape::kMaxHeadDim);
  ForEachRow(pool_, args.qkv.dim[0], row_elements, [&](int64_t token) {
    float* q = args.qkv.As<float>() + token * row_elements;
    const float* cos_sin =
        args.cos_sin.As<float>() + int64_t{args.position.As<int>()[token]} * rotary_dim;
    RopeRowArgs rope = {.x = q,
                        .cos_sin = cos_sin,
                        .heads = args.heads,
                        .head_dim = head_dim,
                        .rotary_dim = rotary_dim,
                        .pairing = args.pairing,
                        .out = q};
    const auto norm = [&](const float* x, const Tensor& weight, float* out) {
      SimdRmsNormRow(x, weight.As<float>(), head_dim, args.norm_epsilon, out);
    };
    if (args.q_norm) {
      for (int h = 0; h < args.heads; ++h) norm(q + h * head_dim, args.q_norm, q + h * head_dim);
    }
    SimdRopeRow(rope);
    const int slot = args.kv_slot.As<int>()[token];
    if (slot < 0) return;
    const float* k = q + int64_t{args.heads} * head_dim;
    const float* v = k + int64_t{kv_heads} * head_dim;
    float key[KvShape::kMaxHeadDim];
    rope.heads = 1;
    rope.out = key;
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      rope.x = k + kv_head * head_dim;
      if (args.k_norm) {
        norm(rope.x, args.k_norm, key);
        rope.x = key;
      }
      SimdRopeRow(rope);
      WriteKvToken(layout, args.kv.data, slot, key, v + kv_head * head_dim, kv_head);
    }
  });
}

}  // namespace fairlead
