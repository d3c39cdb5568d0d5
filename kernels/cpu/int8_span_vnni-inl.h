// SPDX-License-Identifier: Apache-2.0
// Few tokens by spans (int8_matmul.h) with AVX-512 VNNI: a block's sums of q times both terms,
// times the slope, plus the base times the sums of the terms. All modulo 2^32, which the span's
// sums fit. For int8_amx.cc; included in an unnamed namespace after int8_avx512-inl.h,
// int8_driver-inl.h and int8_span-inl.h.
#pragma once

template <DType kType, int kTokens, int kPanels>
struct SpanVnniTile {
  static constexpr Int8Type kInfo = TypeOf(kType);
  using Source = SpanSource<kType>;
  static constexpr int kHalfQuads = kQuads / kInfo.halves;
  using Sums = __m512i[2][kTokens][kPanels];  // with the high and with the low terms

  [[gnu::always_inline]] static inline void Clear(Sums& sums) {
#pragma GCC unroll 16
    for (int i = 0; i < 2 * kTokens * kPanels; ++i) {
      sums[i / (kTokens * kPanels)][i / kPanels % kTokens][i % kPanels] = _mm512_setzero_si512();
    }
  }

  // sums += q * terms over a half of block `b`; x: the tokens' high terms of the block.
  [[gnu::always_inline]] static inline void Dot(const Source* sources, int b, int half,
                                                const int8_t* const (&x)[kTokens], Sums& sums) {
#pragma GCC unroll 8
    for (int q = half * kHalfQuads; q < (half + 1) * kHalfQuads; ++q) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = sources[p].Quad(b, q);
#pragma GCC unroll 2
      for (int term = 0; term < 2; ++term) {
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m512i quad = Broadcast(x[t] + term * kInt8SpanTermBytes + 4 * q);
#pragma GCC unroll 4
          for (int p = 0; p < kPanels; ++p) {
            sums[term][t][p] = _mm512_dpbusd_epi32(sums[term][t][p], w[p], quad);
          }
        }
      }
    }
  }

  // total += slope * dots
  [[gnu::always_inline]] static inline void AddSlopes(const SpanFactors* factors, int b, int half,
                                                      const Sums& dots, Sums& total) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const __m512i slope = _mm512_load_si512(factors[p].slope[b][half]);
#pragma GCC unroll 2
      for (int term = 0; term < 2; ++term) {
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          total[term][t][p] =
              _mm512_add_epi32(total[term][t][p], _mm512_mullo_epi32(dots[term][t][p], slope));
        }
      }
    }
  }

  // total += base * sums of the terms
  [[gnu::always_inline]] static inline void AddBases(const SpanFactors* factors, int b,
                                                     const int32_t* const (&half_sums)[kTokens],
                                                     Sums& total) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const __m512i base = _mm512_load_si512(factors[p].base[b]);
#pragma GCC unroll 2
      for (int term = 0; term < 2; ++term) {
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          total[term][t][p] =
              _mm512_dpwssd_epi32(total[term][t][p], base, _mm512_set1_epi32(half_sums[t][term]));
        }
      }
    }
  }

  static void Run(const Stretch<kPanels>& s, const Source* sources, const SpanFactors* factors) {
    constexpr int kStride = kPanels * kPanelRows;
    const Int8Activations& a = *s.x;
    const ReadAhead<kType, kPanels> ahead(s);
    Sums total;
    Clear(total);
    for (int b = 0; b < s.count; ++b) {
      for (int p = 0; p < kPanels; ++p) ahead.Prefetch(p, b);
      const int8_t* x[kTokens];
      const int32_t* half_sums[kTokens];
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        const int64_t token = s.token + t;
        x[t] = a.SpanQuads(token, s.block + b);
        half_sums[t] = a.half + 2 * a.At(token, s.block + b);
      }
#pragma GCC unroll 2
      for (int half = 0; half < kInfo.halves; ++half) {
        Sums dots;
        Clear(dots);
        Dot(sources, b, half, x, dots);
        AddSlopes(factors, b, half, dots, total);
      }
      AddBases(factors, b, half_sums, total);
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const float scale = a.scale[a.SpanAt(s.token + t, s.block / kSpanBlocks)];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        float* sums = s.sums + t * kStride + p * kPanelRows;
        _mm512_store_ps(sums, AddSpan(total[0][t][p], total[1][t][p], factors[p], scale, sums));
      }
    }
  }
};

template <int kPanelsAtOnce, int kTokens>
struct SpanVnniKernel {
  static constexpr int kPanels = kPanelsAtOnce;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kSpanBlocks;
  static constexpr bool kOneTerm = false;
  static constexpr bool kTiles = false;
  static constexpr bool kWrites = false;

  // tokens: kTokens.
  template <DType kType, int>
  static void Run(const Stretch<kPanels>& stretch, int64_t) {
    SpanFactors factors[kPanels];
    SpanSource<kType> sources[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      sources[p] = SpanSource<kType>::Of(stretch, p);
      MakeSpanFactors<kType>(sources[p], stretch.count, factors[p]);
    }
    SpanVnniTile<kType, kTokens, kPanels>::Run(stretch, sources, factors);
  }
};

// One to kInt8SpanFewTokens tokens. As many panels as there are registers for: 2 sums and 2 dots a
// token and panel.
inline void MultiplySpanVnni(const CpuPackedWeight& weight, const Int8Activations& x,
                             int64_t token_begin, int64_t token_end, int64_t panel_begin,
                             int64_t panel_end, std::byte* scratch, const MatmulOutput& out) {
  constexpr decltype(&MultiplySpanVnni) kByTokens[kInt8SpanFewTokens] = {
      &MultiplyWith<SpanVnniKernel<4, 1>>, &MultiplyWith<SpanVnniKernel<2, 2>>,
      &MultiplyWith<SpanVnniKernel<2, 3>>, &MultiplyWith<SpanVnniKernel<1, 4>>};
  kByTokens[token_end - token_begin - 1](weight, x, token_begin, token_end, panel_begin, panel_end,
                                         scratch, out);
}
