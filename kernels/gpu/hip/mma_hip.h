// SPDX-License-Identifier: Apache-2.0
// mma.h for AMD: MFMA 16x16x16 on waves of 64 (gfx90a, gfx942, gfx950), WMMA 16x16x16 on waves of
// 32 (gfx11, gfx12). Layouts: the instruction set documents ("AMD Instinct MI200" 7.1.4,
// "RDNA3" 7.9, "RDNA4" 7.12). In all, a lane has one row and one token, lane % 16, and lanes with
// the same row differ in k alone, in the same way for rows and tokens.
#pragma once

#include "kernels/gpu/gpu.h"

#define GPU_UNROLL _Pragma("unroll")
#define GPU_THREADS(threads) __launch_bounds__(threads)

namespace fairlead::FAIRLEAD_GPU {

constexpr int kMmaTokens = 16;

#if defined(__GFX11__)
constexpr int kLaneQuads = 4;  // all of k, in both halves of the wave
constexpr int kSumValues = 8;
#elif defined(__GFX12__)
constexpr int kLaneQuads = 2;
constexpr int kSumValues = 8;
#else
constexpr int kLaneQuads = 1;
constexpr int kSumValues = 4;
#endif

typedef _Float16 HalfPair __attribute__((ext_vector_type(2)));
typedef _Float16 LaneHalves __attribute__((ext_vector_type(4 * kLaneQuads)));
typedef float LaneSums __attribute__((ext_vector_type(kSumValues)));

struct alignas(8 * kLaneQuads) RowFragment {
  static constexpr int kRows = 1, kQuads = kLaneQuads;
  static constexpr int kDistinctLanes = 64 / kLaneQuads;
  uint32_t pair[2 * kQuads];

  GPU_BOTH static constexpr int Row(int lane, int) { return lane % 16; }
  GPU_BOTH static constexpr int Quad(int lane, int q) { return (lane / 16 * kQuads + q) % 4; }
  GPU_METHOD void Set(int, int q, uint32_t first, uint32_t second) {
    pair[2 * q] = first;
    pair[2 * q + 1] = second;
  }
};

struct alignas(8 * kLaneQuads) TokenFragment {
  static constexpr int kQuads = kLaneQuads;
  uint32_t pair[2 * kQuads];

  GPU_BOTH static constexpr int Token(int lane) { return lane % 16; }
  GPU_BOTH static constexpr int Quad(int lane, int q) { return (lane / 16 * kQuads + q) % 4; }
};

struct TileSums {
  static constexpr int kValues = kSumValues;
  float value[kValues];

#if defined(__GFX11__)
  GPU_BOTH static constexpr int Row(int lane, int i) { return 2 * i + lane / 16; }
#else
  GPU_BOTH static constexpr int Row(int lane, int i) { return lane / 16 * kValues + i; }
#endif
  GPU_BOTH static constexpr int Token(int lane, int) { return lane % 16; }
};

GPU_DEVICE void Mma(const RowFragment& rows, const TokenFragment& tokens, TileSums* sums) {
  const LaneHalves a = __builtin_bit_cast(LaneHalves, rows);
  const LaneHalves b = __builtin_bit_cast(LaneHalves, tokens);
  LaneSums c;
  for (int i = 0; i < kSumValues; ++i) c[i] = sums->value[i];
#if defined(__GFX11__)
  c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
#elif defined(__GFX12__)
  c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
#else
  c = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
#endif
  for (int i = 0; i < kSumValues; ++i) sums->value[i] = c[i];
}

template <int kSteps>
GPU_DEVICE void Mma(const RowFragment (&rows)[kSteps], const TokenFragment (&tokens)[kSteps],
                    TileSums* sums) {
  GPU_UNROLL for (int i = 0; i < kSteps; ++i) Mma(rows[i], tokens[i], sums);
}

GPU_DEVICE uint32_t PackPair(float low, float high) {
  const HalfPair pair = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  return __builtin_bit_cast(uint32_t, pair);
}
GPU_DEVICE float PairLow(uint32_t pair) {
  return static_cast<float>(__builtin_bit_cast(HalfPair, pair)[0]);
}
GPU_DEVICE float PairHigh(uint32_t pair) {
  return static_cast<float>(__builtin_bit_cast(HalfPair, pair)[1]);
}
GPU_DEVICE uint32_t PairSub(uint32_t a, uint32_t b) {
  return __builtin_bit_cast(uint32_t,
                            __builtin_bit_cast(HalfPair, a) - __builtin_bit_cast(HalfPair, b));
}
GPU_DEVICE uint32_t PairFma(uint32_t a, uint32_t b, uint32_t c) {
  return __builtin_bit_cast(uint32_t, __builtin_elementwise_fma(__builtin_bit_cast(HalfPair, a),
                                                                __builtin_bit_cast(HalfPair, b),
                                                                __builtin_bit_cast(HalfPair, c)));
}
GPU_DEVICE uint32_t RaisedPair(uint32_t bytes, int i) {
  return __builtin_amdgcn_perm(0x64646464u, bytes, i == 0 ? 0x04010400u : 0x04030402u);
}
template <typename Table>
GPU_DEVICE uint32_t LookUpBytes(uint32_t indices) {
  const uint32_t selectors = indices & 0x07070707u;
  const uint32_t upper = (indices >> 3 & 0x01010101u) * 0xffu;
  const uint32_t low = __builtin_amdgcn_perm(Table::Word(1), Table::Word(0), selectors);
  const uint32_t high = __builtin_amdgcn_perm(Table::Word(3), Table::Word(2), selectors);
  return (low & ~upper) | (high & upper);
}

}  // namespace fairlead::FAIRLEAD_GPU
