// SPDX-License-Identifier: Apache-2.0
// Weights as 16-bit integers over spans of 256 k (int8_matmul.h). For int8_amx.cc; included in an
// unnamed namespace after int8_unpack-inl.h.
#pragma once

constexpr int kSpanBlocks = kInt8SpanBlocks;
static_assert(kSpanBlocks == kMaxStretch && kSpanBlocks == kSuperBlocks);

// A weight of the span is (slope * q + base) * unit, q the stored, unsigned integer. Rows are
// lanes.
struct alignas(64) SpanFactors {
  int32_t slope[kSpanBlocks][2][kPanelRows];
  uint32_t base[kSpanBlocks][kPanelRows];  // both halves' as 16 bits, the first half's low
  float unit[kPanelRows];
};

inline __m512i Duplicate16(__m512i values) {
  return _mm512_or_si512(_mm512_and_si512(values, _mm512_set1_epi32(0xffff)),
                         _mm512_slli_epi32(values, 16));
}

// Bits of the largest |weight| that a block of the type can have; of NaN if a factor is.
template <DType kType>
inline __m512i LargestWeight(const PanelTile& tile, int b) {
  constexpr Int8Type kInfo = TypeOf(kType);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const auto bits = [&](__m512 value) {
    return _mm512_and_si512(_mm512_castps_si512(value), magnitude);
  };
  const __m512 d = _mm512_load_ps(tile.scale[b][0]);
  if constexpr (kInfo.minimum) {
    const __m512 m = _mm512_load_ps(tile.minimum[b]);
    const __m512 end = _mm512_fmadd_ps(_mm512_set1_ps((1 << kInfo.bits) - 1), d, m);
    return _mm512_max_epu32(bits(m), bits(end));
  }
  const __m512 offset = _mm512_set1_ps(kInfo.offset);
  __m512i largest = bits(_mm512_mul_ps(d, offset));
  if constexpr (kInfo.halves == 2) {
    const __m512 second = _mm512_load_ps(tile.scale[b][1]);
    largest = _mm512_max_epu32(largest, bits(_mm512_mul_ps(second, offset)));
  }
  return largest;
}

template <DType kType>
inline void MakeSpanFactors(const PanelTile& tile, int count, SpanFactors& out) {
  constexpr Int8Type kInfo = TypeOf(kType);
  constexpr int kCentre = 1 << (kInfo.bits - 1);
  __m512i largest = _mm512_setzero_si512();
  for (int b = 0; b < count; ++b) {
    largest = _mm512_max_epu32(largest, LargestWeight<kType>(tile, b));
  }
  const __m512 unit =
      _mm512_div_ps(_mm512_castsi512_ps(largest), _mm512_set1_ps(SpanWeightLimit(kInfo.bits)));
  _mm512_store_ps(out.unit, unit);
  // A span of zeros: all integers 0.
  const __mmask16 some = _mm512_test_epi32_mask(largest, largest);
  const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), unit);
  for (int b = 0; b < count; ++b) {
    __m512i base[2];
    for (int half = 0; half < kInfo.halves; ++half) {
      const __m512 d = _mm512_load_ps(tile.scale[b][half]);
      const __m512i slope = _mm512_cvtps_epi32(_mm512_mul_ps(d, inverse));
      _mm512_store_si512(out.slope[b][half], slope);
      base[half] = _mm512_mullo_epi32(slope, _mm512_set1_epi32(-kCentre));
      if constexpr (kInfo.minimum) {
        const __m512 middle =
            _mm512_fmadd_ps(_mm512_set1_ps(kCentre), d, _mm512_load_ps(tile.minimum[b]));
        base[half] =
            _mm512_add_epi32(base[half], _mm512_cvtps_epi32(_mm512_mul_ps(middle, inverse)));
      }
    }
    const __m512i second = base[kInfo.halves - 1];
    _mm512_store_si512(
        out.base[b], _mm512_or_si512(_mm512_and_si512(base[0], _mm512_set1_epi32(0xffff)),
                                     _mm512_slli_epi32(second, 16)));
  }
}

// A span's weights as AMX wants them: bytes of 64 k by 16 rows, high ones signed, low ones not.
struct alignas(64) SpanWeights {
  uint32_t high[kSpanBlocks / 2][2 * kQuads][kPanelRows];
  uint32_t low[kSpanBlocks / 2][2 * kQuads][kPanelRows];
};

// Writes the weights of a quad: 16 bits each of the even bytes, then of the odd ones.
inline void WidenQuad(__m512i quad, __m512i slope, __m512i base, uint32_t* high, uint32_t* low) {
  const __m512i low_bytes = _mm512_set1_epi16(0xff);
  const __m512i even = _mm512_add_epi16(
      _mm512_mullo_epi16(_mm512_and_si512(quad, low_bytes), slope), base);
  const __m512i odd =
      _mm512_add_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(quad, 8), slope), base);
  constexpr int kPick = 0xca;  // mask ? first : second
  _mm512_store_si512(
      high, _mm512_ternarylogic_epi32(low_bytes, _mm512_srli_epi16(even, 8), odd, kPick));
  _mm512_store_si512(
      low, _mm512_ternarylogic_epi32(low_bytes, even, _mm512_slli_epi16(odd, 8), kPick));
}

template <DType kType>
void WidenWeights(const PanelTile& tile, const SpanFactors& factors, int count, SpanWeights& out) {
  constexpr int kHalfQuads = kQuads / TypeOf(kType).halves;
  for (int b = 0; b < count; ++b) {
    const __m512i base = _mm512_load_si512(factors.base[b]);
    for (int half = 0; half < TypeOf(kType).halves; ++half) {
      const __m512i slope = Duplicate16(_mm512_load_si512(factors.slope[b][half]));
      const __m512i half_base =
          half == 0 ? Duplicate16(base) : Duplicate16(_mm512_srli_epi32(base, 16));
      for (int q = half * kHalfQuads; q < (half + 1) * kHalfQuads; ++q) {
        const int row = b % 2 * kQuads + q;
        WidenQuad(_mm512_load_si512(tile.quads[b][q]), slope, half_base, out.high[b / 2][row],
                  out.low[b / 2][row]);
      }
    }
  }
  if (count % 2 != 0) {
    std::memset(out.high[count / 2][kQuads], 0, sizeof(out.high[0]) / 2);
    std::memset(out.low[count / 2][kQuads], 0, sizeof(out.low[0]) / 2);
  }
}

// sums += (256 * high + low) * unit * scale: a token's 16 rows of one span.
inline void AddSpan(__m512i high, __m512i low, const SpanFactors& factors, float scale,
                    float* sums) {
  const __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256.0f),
                                     _mm512_cvtepi32_ps(low));
  const __m512 factor = _mm512_mul_ps(_mm512_load_ps(factors.unit), _mm512_set1_ps(scale));
  _mm512_store_ps(sums, _mm512_fmadd_ps(sum, factor, _mm512_load_ps(sums)));
}
