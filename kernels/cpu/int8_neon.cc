// SPDX-License-Identifier: Apache-2.0
// Arm with the dot product extension (Armv8.2 DotProd): sdot adds four products of signed bytes to
// each of four rows.
#include "kernels/codebooks.h"
#include "kernels/cpu/int8_matmul.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

#include <algorithm>
#include <cstring>
#include <limits>

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
namespace fairlead {
namespace {

struct Isa {
  static void HalfToFloat(const std::byte* half, float* out) {
    for (int i = 0; i < kPanelRows; i += 4) {
      const uint16x4_t bits = vld1_u16(reinterpret_cast<const uint16_t*>(half) + i);
      vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(bits)));
    }
  }

  static void LookUp(const uint8_t (&table)[16], uint32_t (*quads)[kPanelRows]) {
    const uint8x16_t values = vld1q_u8(table);
    auto* bytes = reinterpret_cast<uint8_t*>(quads);
    for (int i = 0; i < kInt8Block * kPanelRows; i += 16) {
      vst1q_u8(bytes + i, vqtbl1q_u8(values, vld1q_u8(bytes + i)));
    }
  }

  static uint32_t LargestMagnitude(const float* x) {
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < kInt8Block; i += 4) {
      const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + i));
      largest = vmaxq_u32(largest, vandq_u32(bits, vdupq_n_u32(0x7fffffff)));
    }
    return vmaxvq_u32(largest);
  }

  static void Quads(const float* x, float factor, int terms, int8_t* quads, int32_t* half) {
    for (int i = 0; i < 2; ++i) {
      int32x4_t values[4], high[4];
      int32x4_t sum = vdupq_n_s32(0);
      for (int v = 0; v < 4; ++v) {
        values[v] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 16 * i + 4 * v), factor));
        sum = vaddq_s32(sum, values[v]);
      }
      half[i] = vaddvq_s32(sum);
      if (terms == 1) {
        StoreQuads(values, quads + 16 * i);
        continue;
      }
      for (int v = 0; v < 4; ++v) {
        high[v] = vshrq_n_s32(vaddq_s32(values[v], vdupq_n_s32(8)), 4);
        values[v] = vsubq_s32(values[v], vshlq_n_s32(high[v], 4));
      }
      StoreQuads(high, quads + 16 * i);
      StoreQuads(values, quads + kInt8Block + 16 * i);
    }
  }

 private:
  // Of each 8: the even ones, then the odd ones.
  static void StoreQuads(const int32x4_t (&values)[4], int8_t* out) {
    static constexpr uint8_t kOrder[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
    const int16x8_t low = vcombine_s16(vmovn_s32(values[0]), vmovn_s32(values[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(values[2]), vmovn_s32(values[3]));
    const int8x16_t bytes = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
    vst1q_s8(out, vqtbl1q_s8(bytes, vld1q_u8(kOrder)));
  }
};

#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"
#include "kernels/cpu/int8_quantize-inl.h"

constexpr int kVectors = kPanelRows / 4;

// kTokens by one panel: 16 integer sums of 32 registers at most. The f32 ones stay in the cache.
template <DType kType, int kTerms, int kTokens>
struct NeonTile {
  static constexpr Int8Type kInfo = TypeOf(kType);
  static constexpr int kHalfQuads = kQuads / kInfo.halves;
  using Sums = int32x4_t[kTokens][kVectors];

  // sums += weights * activations over the words of one half of block `b`, one term.
  [[gnu::always_inline]] static inline void Dot(const PanelTile& tile, int b, int half,
                                                const int8_t* const (&x)[kTokens], int offset,
                                                Sums& sums) {
    for (int q = half * kHalfQuads; q < (half + 1) * kHalfQuads; ++q) {
      int8x16_t w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        w[v] = vreinterpretq_s8_u32(vld1q_u32(tile.quads[b][q] + 4 * v));
      }
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32_t word;
        std::memcpy(&word, x[t] + offset + 4 * q, sizeof(word));
        const int8x16_t quad = vreinterpretq_s8_s32(vdupq_n_s32(word));
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[t][v] = vdotq_s32(sums[t][v], w[v], quad);
      }
    }
  }

  static void Run(const Stretch<1>& s, int64_t first) {
    const Int8Activations& a = *s.x;
    for (int b = 0; b < s.count; ++b) {
      const int8_t* x[kTokens];
      int64_t at[kTokens];
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        at[t] = a.At(s.token + first + t, s.block + b);
        x[t] = a.quads + at[t] * kTerms * kInt8Block;
      }
      for (int half = 0; half < kInfo.halves; ++half) {
        Sums dots;
#pragma GCC unroll 16
        for (int i = 0; i < kTokens * kVectors; ++i)
          dots[i / kVectors][i % kVectors] = vdupq_n_s32(0);
        Dot(*s.tile, b, half, x, 0, dots);
        if constexpr (kTerms == 2) {
#pragma GCC unroll 16
          for (int i = 0; i < kTokens * kVectors; ++i) {
            int32x4_t& dot = dots[i / kVectors][i % kVectors];
            dot = vshlq_n_s32(dot, 4);
          }
          Dot(*s.tile, b, half, x, kInt8Block, dots);
        }
        Add(s, first, b, half, at, dots);
      }
    }
  }

  // Adds the sums of a half, and the minimums after the last.
  [[gnu::always_inline]] static inline void Add(const Stretch<1>& s, int64_t first, int b, int half,
                                                const int64_t (&at)[kTokens], const Sums& dots) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      float* sums = s.sums + (first + t) * kPanelRows;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const float32x4_t scale =
            vmulq_n_f32(vld1q_f32(s.tile->scale[b][half] + 4 * v), s.x->scale[at[t]]);
        float32x4_t total = vfmaq_f32(vld1q_f32(sums + 4 * v), vcvtq_f32_s32(dots[t][v]), scale);
        if constexpr (kInfo.minimum) {
          const float32x4_t minimum = vld1q_f32(s.tile->minimum[b][half] + 4 * v);
          total = vfmaq_n_f32(total, minimum, ActivationSum<kType>(*s.x, at[t], half));
        }
        vst1q_f32(sums + 4 * v, total);
      }
    }
  }
};

struct NeonKernel {
  static constexpr int kPanels = 1;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kMaxStretch;
  static constexpr bool kOneTerm = true;
  static constexpr bool kTiles = true;
  static constexpr bool kWrites = false;
  static constexpr int kMaxTokens = 4;
  template <DType, int>
  static constexpr bool Signed() {
    return true;
  }

  template <DType kType, int kTerms>
  static void Run(const Stretch<1>& stretch, int64_t tokens) {
    int64_t t = 0;
    for (; t + kMaxTokens <= tokens; t += kMaxTokens) {
      NeonTile<kType, kTerms, kMaxTokens>::Run(stretch, t);
    }
    for (; t < tokens; ++t) NeonTile<kType, kTerms, 1>::Run(stretch, t);
  }
};

bool Supported() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }

}  // namespace

const Int8Kernels kInt8Neon = {.name = "neon_dotprod",
                               .supported = &Supported,
                               .fast_terms = 1,
                               .precise_terms = 0,
                               .spans = false,
                               .quantize = &Quantize,
                               .multiply = &MultiplyWith<NeonKernel>};

}  // namespace fairlead
#pragma GCC pop_options
#endif
