// SPDX-License-Identifier: Apache-2.0
// mma.h for NVIDIA, sm_80 and later: mma.sync.m16n8k16. Layouts: PTX ISA, "Matrix Fragments for
// mma.m16n8k16". A lane's quad is elements 2 c, 2 c + 1, 2 c + 8 and 2 c + 9 of the instruction's
// k, where c is the lane in its group of four.
#pragma once

#include "kernels/gpu/gpu.h"

#define GPU_UNROLL _Pragma("unroll")
// Told of the threads, ptxas spills a little so that another block fits.
#define GPU_THREADS(threads)

namespace fairlead::FAIRLEAD_GPU {

constexpr int kMmaTokens = 8;

struct alignas(16) RowFragment {
  static constexpr int kRows = 2, kQuads = 1, kDistinctLanes = 32;
  uint32_t pair[4];  // in the instruction's order: the first pairs of both rows, then the second

  GPU_BOTH static constexpr int Row(int lane, int r) { return lane / 4 + 8 * r; }
  GPU_BOTH static constexpr int Quad(int lane, int) { return lane % 4; }
  GPU_METHOD void Set(int r, int, uint32_t first, uint32_t second) {
    pair[r] = first;
    pair[r + 2] = second;
  }
};

struct alignas(8) TokenFragment {
  static constexpr int kQuads = 1;
  uint32_t pair[2];

  GPU_BOTH static constexpr int Token(int lane) { return lane / 4; }
  GPU_BOTH static constexpr int Quad(int lane, int) { return lane % 4; }
};

struct TileSums {
  static constexpr int kValues = 4;
  float value[kValues];

  GPU_BOTH static constexpr int Row(int lane, int i) { return lane / 4 + i / 2 * 8; }
  GPU_BOTH static constexpr int Token(int lane, int i) { return lane % 4 * 2 + i % 2; }
};

GPU_DEVICE void Mma(const RowFragment& rows, const TokenFragment& tokens, TileSums* sums) {
  float* d = sums->value;
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(rows.pair[0]), "r"(rows.pair[1]), "r"(rows.pair[2]), "r"(rows.pair[3]),
        "r"(tokens.pair[0]), "r"(tokens.pair[1]));
}

template <int kSteps>
GPU_DEVICE void Mma(const RowFragment (&rows)[kSteps], const TokenFragment (&tokens)[kSteps],
                    TileSums* sums) {
  GPU_UNROLL for (int i = 0; i < kSteps; ++i) Mma(rows[i], tokens[i], sums);
}

GPU_DEVICE uint32_t PackPair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
GPU_DEVICE float PairLow(uint32_t pair) {
  float value;
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(value) : "r"(pair));
  return value;
}
GPU_DEVICE float PairHigh(uint32_t pair) {
  float value;
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(pair));
  return value;
}
GPU_DEVICE uint32_t PairSub(uint32_t a, uint32_t b) {
  uint32_t pair;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
GPU_DEVICE uint32_t PairFma(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t pair;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
  return pair;
}
GPU_DEVICE uint32_t RaisedPair(uint32_t bytes, int i) {
  return __byte_perm(bytes, 0x64646464u, i == 0 ? 0x4140u : 0x4342u);
}
template <typename Table>
GPU_DEVICE uint32_t LookUpBytes(uint32_t indices) {
  // Selectors of three bits, one after another; where the fourth is set, all of a byte of `upper`.
  const uint32_t selectors = __byte_perm(indices | indices >> 4, 0, 0x4420u) & 0x7777u;
  const uint32_t upper = (indices >> 3 & 0x01010101u) * 0xffu;
  const uint32_t low = __byte_perm(Table::Word(0), Table::Word(1), selectors);
  const uint32_t high = __byte_perm(Table::Word(2), Table::Word(3), selectors);
  return (low & ~upper) | (high & upper);
}

}  // namespace fairlead::FAIRLEAD_GPU
