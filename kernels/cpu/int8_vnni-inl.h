// SPDX-License-Identifier: Apache-2.0
// The AVX-512 VNNI inner kernel, for int8_avx512.cc. Included in an unnamed namespace after
// int8_avx512-inl.h and int8_driver-inl.h.
#pragma once

// kTokens x kPanels running sums in registers, and as many integer ones: 12 + 12 of 32, beside two
// words of weights and a broadcast. vpdpbusd takes 5 cycles, 2 start a cycle at best: with fewer
// than 10 chains of them, high and low terms get chains of their own.
template <DType kType, int kTerms, int kTokens, int kPanels>
struct VnniTile {
  static constexpr Int8Type kInfo = TypeOf(kType);
  static constexpr int kHalfQuads = kQuads / kInfo.halves;
  static constexpr bool kApart = kTerms == 2 && kTokens * kPanels < 10;
  using Sums = __m512i[kTokens][kPanels];

  // sums += weights * activations over the words of one half, one term.
  [[gnu::always_inline]] static inline void Dot(const PanelTile* tiles, int b, int half,
                                                const int8_t* const (&x)[kTokens], Sums& sums) {
#pragma GCC unroll 8
    for (int q = half * kHalfQuads; q < (half + 1) * kHalfQuads; ++q) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_si512(tiles[p].quads[b][q]);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512i quad = Broadcast(x[t] + 4 * q);
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], w[p], quad);
      }
    }
  }

  [[gnu::always_inline]] static inline void Clear(Sums& sums) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_setzero_si512();
    }
  }

  [[gnu::always_inline]] static inline void HalfBlock(const PanelTile* tiles, int b, int half,
                                                      const int8_t* const (&x)[kTokens],
                                                      Sums& sums) {
    Clear(sums);
    Dot(tiles, b, half, x, sums);
    if constexpr (kTerms == 2) {
      const int8_t* low_x[kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) low_x[t] = x[t] + kInt8Block;
      if constexpr (kApart) {
        Sums low;
        Clear(low);
        Dot(tiles, b, half, low_x, low);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
          for (int p = 0; p < kPanels; ++p) {
            sums[t][p] = _mm512_add_epi32(_mm512_slli_epi32(sums[t][p], 4), low[t][p]);
          }
        }
      } else {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
          for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_slli_epi32(sums[t][p], 4);
        }
        Dot(tiles, b, half, low_x, sums);
      }
    }
  }

  static void Run(const Stretch<kPanels>& s, int64_t first) {
    constexpr int kStride = kPanels * kPanelRows;
    const Int8Activations& a = *s.x;
    float* sums = s.sums + first * kStride;
    __m512 total[kTokens][kPanels];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        total[t][p] = _mm512_load_ps(sums + t * kStride + p * kPanelRows);
      }
    }
    int64_t at[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) at[t] = a.At(s.token + first + t, s.block);
    for (int b = 0; b < s.count; ++b) {
      const int8_t* x[kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        x[t] = a.quads + (at[t] + b * kInt8TokenGroup) * kTerms * kInt8Block;
      }
#pragma GCC unroll 2
      for (int half = 0; half < kInfo.halves; ++half) {
        Sums sum;
        HalfBlock(s.tile, b, half, x, sum);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const int64_t i = at[t] + b * kInt8TokenGroup;
          const __m512 dx = _mm512_set1_ps(a.scale[i]);
          __m512i offset;
          if constexpr (kInfo.offset != 0) {
            const int32_t q =
                kInfo.halves == 2 ? a.half[2 * i + half] : a.half[2 * i] + a.half[2 * i + 1];
            offset = _mm512_set1_epi32(kInfo.offset * q);
          }
#pragma GCC unroll 4
          for (int p = 0; p < kPanels; ++p) {
            if constexpr (kInfo.offset != 0) sum[t][p] = _mm512_sub_epi32(sum[t][p], offset);
            const __m512 scale = _mm512_mul_ps(_mm512_load_ps(s.tile[p].scale[b][half]), dx);
            total[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][p]), scale, total[t][p]);
          }
        }
        if constexpr (kInfo.minimum) {
#pragma GCC unroll 8
          for (int t = 0; t < kTokens; ++t) {
            const __m512 x_sum =
                _mm512_set1_ps(ActivationSum<kType>(a, at[t] + b * kInt8TokenGroup, half));
#pragma GCC unroll 4
            for (int p = 0; p < kPanels; ++p) {
              const __m512 minimum = _mm512_load_ps(s.tile[p].minimum[b][half]);
              total[t][p] = _mm512_fmadd_ps(minimum, x_sum, total[t][p]);
            }
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        _mm512_store_ps(sums + t * kStride + p * kPanelRows, total[t][p]);
      }
    }
  }
};

// Register tiles of equal numbers of tokens, as nearly as can be.
template <int kPanelsAtOnce, int kMaxTokens, int kBlocksAtOnce>
struct VnniKernel {
  static constexpr int kPanels = kPanelsAtOnce;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kBlocksAtOnce;
  static constexpr bool kOneTerm = true;
  static constexpr bool kTiles = true;
  static constexpr bool kWrites = false;
  template <DType, int>
  static constexpr bool Signed() {
    return false;
  }

  template <DType kType, int kTerms>
  static void Run(const Stretch<kPanels>& stretch, int64_t tokens) {
    const int64_t tiles = (tokens + kMaxTokens - 1) / kMaxTokens;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = tokens * i / tiles;
      RunTokens<kType, kTerms>(stretch, begin, static_cast<int>(tokens * (i + 1) / tiles - begin));
    }
  }

  template <DType kType, int kTerms, int kTokens = kMaxTokens>
  static void RunTokens(const Stretch<kPanels>& stretch, int64_t first, int tokens) {
    if constexpr (kTokens > 1) {
      if (tokens < kTokens) {
        return RunTokens<kType, kTerms, kTokens - 1>(stretch, first, tokens);
      }
    }
    VnniTile<kType, kTerms, kTokens, kPanels>::Run(stretch, first);
  }
};

// Few tokens wait for memory: short stretches, so that reading and computing alternate quickly.
using VnniFewTokens = VnniKernel<4, 2, 2>;
using VnniManyTokens = VnniKernel<2, 6, kMaxStretch>;

inline void MultiplyVnni(const CpuPackedWeight& weight, const Int8Activations& x,
                         int64_t token_begin, int64_t token_end, int64_t panel_begin,
                         int64_t panel_end, std::byte* scratch, const MatmulOutput& out) {
  const auto multiply =
      token_end - token_begin <= 2 ? &MultiplyWith<VnniFewTokens> : &MultiplyWith<VnniManyTokens>;
  multiply(weight, x, token_begin, token_end, panel_begin, panel_end, scratch, out);
}
