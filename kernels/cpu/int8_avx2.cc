// SPDX-License-Identifier: Apache-2.0
// AVX2: vpmaddubsw gives sums of two products in 16 bits, which hold several of them: 4-bit weights
// allow all eight of a block (8 * 2 * 15 * 127 = 30480), 5 bits four, 6 bits two. 8-bit weights
// would saturate as unsigned bytes: there the sign moves to the activation (2 * 128 * 127 = 32512).
// Low terms, at most 8, always allow eight.
#include "kernels/codebooks.h"
#include "kernels/cpu/int8_matmul.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace fairlead {
namespace {

struct Isa {
  static void HalfToFloat(const std::byte* half, float* out) {
    for (int i = 0; i < kPanelRows; i += 8) {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(half + 2 * i));
      _mm256_storeu_ps(out + i, _mm256_cvtph_ps(bits));
    }
  }

  static void LookUp(const uint8_t (&table)[16], uint32_t (*quads)[kPanelRows]) {
    const __m256i values =
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
    auto* words = reinterpret_cast<__m256i*>(quads);
    for (int i = 0; i < kInt8Block / 4 * kPanelRows / 8; ++i) {
      _mm256_store_si256(words + i, _mm256_shuffle_epi8(values, _mm256_load_si256(words + i)));
    }
  }

  static uint32_t LargestMagnitude(const float* x) {
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < kInt8Block; i += 8) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
      largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    alignas(32) uint32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
    return *std::max_element(lanes, lanes + 8);
  }

  static void Quads(const float* x, float factor, int terms, int8_t* quads, int32_t* half) {
    __m256i values[4], high[4];
    alignas(32) int32_t sums[2][8];
    for (int i = 0; i < 4; ++i) {
      values[i] =
          _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(factor)));
    }
    for (int i = 0; i < 2; ++i) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums[i]),
                         _mm256_add_epi32(values[2 * i], values[2 * i + 1]));
      half[i] = std::accumulate(sums[i], sums[i] + 8, 0);
    }
    if (terms == 1) return StoreQuads(values, quads);
    for (int i = 0; i < 4; ++i) {
      high[i] = _mm256_srai_epi32(_mm256_add_epi32(values[i], _mm256_set1_epi32(8)), 4);
      values[i] = _mm256_sub_epi32(values[i], _mm256_slli_epi32(high[i], 4));
    }
    StoreQuads(high, quads);
    StoreQuads(values, quads + kInt8Block);
  }

 private:
  // Of each 8: the even ones, then the odd ones.
  static void StoreQuads(const __m256i (&values)[4], int8_t* out) {
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(values[0], values[1]),
                                             _mm256_packs_epi32(values[2], values[3]));
    // Packing works within halves of 128 bits.
    const __m256i in_order =
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_shuffle_epi8(in_order, order));
  }
};

#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"
#include "kernels/cpu/int8_quantize-inl.h"

constexpr int kVecs = 2;  // of 8 rows, in a panel

inline __m256i Load(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

// kTokens by one panel: 6 + 6 of 16 registers for integer sums of 16 and of 32 bits. The running
// sums stay in memory.
template <DType kType, int kTerms, int kTokens>
struct Avx2Tile {
  static constexpr Int8Type kInfo = TypeOf(kType);
  static constexpr bool kMoveSign = kInfo.bits == 8;
  static constexpr int kHalfQuads = kQuads / kInfo.halves;
  // Words whose 16-bit sums cannot overflow.
  static constexpr int kHighQuads =
      kInfo.bits == 8 ? 1 : std::min(kHalfQuads, 8 >> std::max(kInfo.bits - 4, 0));
  using Sums = __m256i[kTokens][kVecs];

  // sums += factor * (weights * activations) over the words [begin, begin + kCount).
  template <int kCount>
  [[gnu::always_inline]] static inline void Dot(const PanelTile& tile, int b, int begin,
                                                const int8_t* const (&x)[kTokens], int term,
                                                int factor, Sums& sums) {
    Sums pairs;
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) pairs[t][v] = _mm256_setzero_si256();
    }
    // Unrolled, GCC 12 would compute all products first and run out of registers.
#pragma GCC unroll 1
    for (int q = begin; q < begin + kCount; ++q) {
      __m256i w[kVecs], magnitude[kVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        w[v] = Load(tile.quads[b][q] + 8 * v);
        magnitude[v] = kMoveSign ? _mm256_abs_epi8(w[v]) : w[v];
      }
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        int32_t word;
        std::memcpy(&word, x[t] + term * kInt8Block + 4 * q, sizeof(word));
        const __m256i quad = _mm256_set1_epi32(word);
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) {
          const __m256i signed_quad = kMoveSign ? _mm256_sign_epi8(quad, w[v]) : quad;
          pairs[t][v] =
              _mm256_add_epi16(pairs[t][v], _mm256_maddubs_epi16(magnitude[v], signed_quad));
        }
      }
    }
    const __m256i factors = _mm256_set1_epi16(static_cast<int16_t>(factor));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        sums[t][v] = _mm256_add_epi32(sums[t][v], _mm256_madd_epi16(pairs[t][v], factors));
      }
    }
  }

  [[gnu::always_inline]] static inline void HalfBlock(const PanelTile& tile, int b, int half,
                                                      const int8_t* const (&x)[kTokens],
                                                      Sums& sums) {
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) sums[t][v] = _mm256_setzero_si256();
    }
    const int begin = half * kHalfQuads;
    for (int q = begin; q < begin + kHalfQuads; q += kHighQuads) {
      Dot<kHighQuads>(tile, b, q, x, 0, kTerms == 2 ? 16 : 1, sums);
    }
    if constexpr (kTerms == 2) Dot<kHalfQuads>(tile, b, begin, x, 1, 1, sums);
  }

  static void Run(const Stretch<1>& s, int64_t first) {
    const Int8Activations& a = *s.x;
    float* sums = s.sums + first * kPanelRows;
    int64_t at[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) at[t] = a.At(s.token + first + t, s.block);
    for (int b = 0; b < s.count; ++b) {
      const int8_t* x[kTokens];
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        x[t] = a.quads + (at[t] + b * kInt8TokenGroup) * kTerms * kInt8Block;
      }
      for (int half = 0; half < kInfo.halves; ++half) {
        Sums dot;
        HalfBlock(*s.tile, b, half, x, dot);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const int64_t i = at[t] + b * kInt8TokenGroup;
          int32_t offset = 0;
          if constexpr (!kMoveSign && kInfo.offset != 0) {
            offset = kInfo.offset *
                     (kInfo.halves == 2 ? a.half[2 * i + half] : a.half[2 * i] + a.half[2 * i + 1]);
          }
          AddBlock(*s.tile, b, half, dot[t], offset, a.scale[i], ActivationSum<kType>(a, i, half),
                   sums + t * kPanelRows);
        }
      }
    }
  }

  [[gnu::always_inline]] static inline void AddBlock(const PanelTile& tile, int b, int half,
                                                     const __m256i (&dot)[kVecs], int32_t offset,
                                                     float dx, float x_sum, float* sums) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) {
      const __m256 scale =
          _mm256_mul_ps(_mm256_load_ps(tile.scale[b][half] + 8 * v), _mm256_set1_ps(dx));
      const __m256i sum = _mm256_sub_epi32(dot[v], _mm256_set1_epi32(offset));
      __m256 total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_load_ps(sums + 8 * v));
      if constexpr (kInfo.minimum) {
        total = _mm256_fmadd_ps(_mm256_load_ps(tile.minimum[b][half] + 8 * v),
                                _mm256_set1_ps(x_sum), total);
      }
      _mm256_store_ps(sums + 8 * v, total);
    }
  }
};

struct Avx2Kernel {
  static constexpr int kPanels = 1;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kMaxStretch;
  static constexpr bool kOneTerm = true;
  static constexpr bool kTiles = true;
  static constexpr bool kWrites = false;
  static constexpr int kMaxTokens = 3;
  template <DType kType, int>
  static constexpr bool Signed() {
    return TypeOf(kType).bits == 8;
  }

  template <DType kType, int kTerms>
  static void Run(const Stretch<1>& stretch, int64_t tokens) {
    int64_t t = 0;
    for (; t + kMaxTokens <= tokens; t += kMaxTokens) Avx2Tile<kType, kTerms, 3>::Run(stretch, t);
    if (tokens - t == 2) Avx2Tile<kType, kTerms, 2>::Run(stretch, t);
    if (tokens - t == 1) Avx2Tile<kType, kTerms, 1>::Run(stretch, t);
  }
};

bool Supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

}  // namespace

const Int8Kernels kInt8Avx2 = {.name = "avx2",
                               .supported = &Supported,
                               .fast_terms = 1,
                               .precise_terms = 0,
                               .spans = false,
                               .quantize = &Quantize,
                               .multiply = &MultiplyWith<Avx2Kernel>};

}  // namespace fairlead
#pragma GCC pop_options
#endif
