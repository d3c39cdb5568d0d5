// SPDX-License-Identifier: Apache-2.0
// mma.h on the SIMT executor. Warps of 32 hold tiles as NVIDIA's m16n8k16 does, those of 64 as
// AMD's MFMA 16x16x16, so that kernels meet both. One lane computes for all (mma_host.cc).
#pragma once

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <source_location>

#include "kernels/gpu/bits.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/host/simt_mma.h"

#define GPU_UNROLL
#define GPU_THREADS(threads)

namespace fairlead::FAIRLEAD_GPU {

constexpr bool kLikeNvidia = kWarp == 32;
constexpr int kMmaTokens = kLikeNvidia ? 8 : 16;

struct alignas(16) RowFragment {
  static constexpr int kRows = kLikeNvidia ? 2 : 1, kQuads = 1, kDistinctLanes = kWarp;
  uint32_t pair[2 * kRows];

  static constexpr int Row(int lane, int r) { return kLikeNvidia ? lane / 4 + 8 * r : lane % 16; }
  static constexpr int Quad(int lane, int) { return kLikeNvidia ? lane % 4 : lane / 16; }
  void Set(int r, int, uint32_t first, uint32_t second) {
    pair[r] = first;
    pair[r + kRows] = second;
  }
};

struct alignas(8) TokenFragment {
  static constexpr int kQuads = 1;
  uint32_t pair[2];

  static constexpr int Token(int lane) { return kLikeNvidia ? lane / 4 : lane % 16; }
  static constexpr int Quad(int lane, int) { return kLikeNvidia ? lane % 4 : lane / 16; }
};

struct TileSums {
  static constexpr int kValues = 4;
  float value[kValues];

  static constexpr int Row(int lane, int i) {
    return kLikeNvidia ? lane / 4 + i / 2 * 8 : lane / 16 * 4 + i;
  }
  static constexpr int Token(int lane, int i) {
    return kLikeNvidia ? lane % 4 * 2 + i % 2 : lane % 16;
  }
};

constexpr simt::MmaLayout MakeMmaLayout() {
  simt::MmaLayout layout = {};
  layout.warp = kWarp;
  layout.rows = RowFragment::kRows;
  layout.sums = TileSums::kValues;
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int r = 0; r < RowFragment::kRows; ++r) layout.row[lane][r] = RowFragment::Row(lane, r);
    layout.quad[lane] = RowFragment::Quad(lane, 0);
    layout.token[lane] = TokenFragment::Token(lane);
    for (int i = 0; i < TileSums::kValues; ++i) {
      layout.sum_row[lane][i] = TileSums::Row(lane, i);
      layout.sum_token[lane][i] = TileSums::Token(lane, i);
    }
  }
  return layout;
}
inline constexpr simt::MmaLayout kMmaLayout = MakeMmaLayout();

template <int kSteps>
GPU_DEVICE void Mma(const RowFragment (&rows)[kSteps], const TokenFragment (&tokens)[kSteps],
                    TileSums* sums,
                    const std::source_location& where = std::source_location::current()) {
  simt::MmaLane lane = {.steps = kSteps, .sums = sums->value};
  static_assert(kSteps <= simt::MmaLane::kMaxSteps);
  for (int i = 0; i < kSteps; ++i) {
    lane.row_pairs[i] = rows[i].pair;
    lane.token_pairs[i] = tokens[i].pair;
  }
  simt::Mma(kMmaLayout, &lane, where);
}

GPU_DEVICE void Mma(const RowFragment& rows, const TokenFragment& tokens, TileSums* sums,
                    const std::source_location& where = std::source_location::current()) {
  simt::MmaLane lane = {.steps = 1, .sums = sums->value};
  lane.row_pairs[0] = rows.pair;
  lane.token_pairs[0] = tokens.pair;
  simt::Mma(kMmaLayout, &lane, where);
}

GPU_DEVICE float PairLow(uint32_t pair) { return F16Value(static_cast<uint16_t>(pair & 0xffffu)); }
GPU_DEVICE float PairHigh(uint32_t pair) { return F16Value(static_cast<uint16_t>(pair >> 16)); }
#if defined(__F16C__)
// Many times faster: a kernel makes a pair of each weight.
GPU_DEVICE __m128 PairFloats(uint32_t pair) {
  return _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(pair)));
}
GPU_DEVICE uint32_t PackFloats(__m128 pair) {
  return static_cast<uint32_t>(
      _mm_cvtsi128_si32(_mm_cvtps_ph(pair, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
}
GPU_DEVICE uint32_t PackPair(float low, float high) {
  return PackFloats(_mm_setr_ps(low, high, 0.0f, 0.0f));
}
GPU_DEVICE uint32_t PairSub(uint32_t a, uint32_t b) {
  return PackFloats(_mm_sub_ps(PairFloats(a), PairFloats(b)));
}
// Rounded to f32 first, which differs from one rounding in few of 2^12 cases.
GPU_DEVICE uint32_t PairFma(uint32_t a, uint32_t b, uint32_t c) {
  return PackFloats(_mm_fmadd_ps(PairFloats(a), PairFloats(b), PairFloats(c)));
}
#else
GPU_DEVICE uint32_t PackPair(float low, float high) {
  return F16Bits(low) | static_cast<uint32_t>(F16Bits(high)) << 16;
}
GPU_DEVICE uint32_t PairSub(uint32_t a, uint32_t b) {
  return PackPair(PairLow(a) - PairLow(b), PairHigh(a) - PairHigh(b));
}
GPU_DEVICE uint32_t PairFma(uint32_t a, uint32_t b, uint32_t c) {
  return PackPair(fmaf(PairLow(a), PairLow(b), PairLow(c)),
                  fmaf(PairHigh(a), PairHigh(b), PairHigh(c)));
}
#endif
GPU_DEVICE uint32_t RaisedPair(uint32_t bytes, int i) {
  bytes >>= 16 * i;
  return 0x64006400u | (bytes & 0xffu) | (bytes & 0xff00u) << 8;
}
template <typename Table>
GPU_DEVICE uint32_t LookUpBytes(uint32_t indices) {
  uint32_t bytes = 0;
  for (int b = 0; b < 32; b += 8) {
    const uint32_t index = indices >> b & 15u;
    bytes |= (Table::Word(index / 4) >> 8 * (index % 4) & 0xffu) << b;
  }
  return bytes;
}

}  // namespace fairlead::FAIRLEAD_GPU
