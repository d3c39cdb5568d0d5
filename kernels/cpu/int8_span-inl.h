// SPDX-License-Identifier: Apache-2.0
// Weights as 16-bit integers over spans of 256 k (int8_matmul.h). For int8_amx.cc; included in an
// unnamed namespace after int8_driver-inl.h. Rows are lanes throughout.
#pragma once

constexpr int kSpanBlocks = kInt8SpanBlocks;
static_assert(kSpanBlocks == kMaxStretch && kSpanBlocks == kSuperBlocks);

// A span of a panel, read where it is: the layouts are those of packed_weight.h.
template <DType kType>
struct SpanSource {
  static constexpr Int8Type kInfo = TypeOf(kType);
  static constexpr bool kSuper = IsSuperBlock(kType);
  static constexpr int kVector = 4 * kPanelRows;  // bytes of a word a row
  static constexpr int kHalves = 2 * kPanelRows;  // of an f16 a row
  static constexpr int kFactors = FactorBytes(kType) * kPanelRows;
  static constexpr int kScales = PartScaleBytes(kType) * kPanelRows;
  static constexpr int kHigh = kFactors + kScales;  // where the fifth and sixth bits start
  static constexpr int kBits = StoredBits(kType);
  static constexpr bool kTwoBits = kBits < 4;  // stand together, or else four do
  static constexpr int kHighVectors = kBits == 3 || kBits == 5 ? 1 : kBits == 6 ? 2 : 0;  // of 32 k
  static constexpr int kLow = kHigh + kHighVectors * kVector * (kSuper ? kSuperBlocks : 1);

  const std::byte* block;  // the first
  size_t block_bytes;

  template <int kPanels>
  static SpanSource Of(const Stretch<kPanels>& s, int panel) {
    return {.block = s.data[panel] + s.block / (kSuper ? kSuperBlocks : 1) * s.block_bytes,
            .block_bytes = s.block_bytes};
  }

  // Of block `b` of 32.
  const std::byte* Block(int b) const { return kSuper ? block : block + b * block_bytes; }
  static int Sub(int b) { return kSuper ? b : 0; }

  static __m512 Half(const std::byte* at) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  }
  static __m512 Bytes(const std::byte* at, bool is_signed) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes)
                                        : _mm512_cvtepu8_epi32(bytes));
  }
  // Four bits of each byte.
  template <int kShift>
  static __m512 Nibbles(const std::byte* at) {
    const __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(bytes, kShift), _mm512_set1_epi32(15)));
  }
  // As ExponentScales.
  static __m512 Exponents(const std::byte* at) {
    const __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    const __m512i bits =
        _mm512_max_epu32(_mm512_slli_epi32(bytes, 23), _mm512_set1_epi32(0x00400000));
    return _mm512_mul_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(0.5f));
  }
  __m512 Scale(int b, int half) const {
    if constexpr (kType == DType::kMXFP4) return Exponents(Block(b));
    const __m512 d = Half(Block(b));
    if constexpr (!kSuper) return d;
    const std::byte* scale = Block(b) + kFactors + (b * kInfo.halves + half) * kPanelRows;
    if constexpr (kType == DType::kQ2_K) return _mm512_mul_ps(d, Nibbles<0>(scale));
    constexpr bool kSigned =
        kType == DType::kQ6_K || kType == DType::kQ3_K || kType == DType::kIQ4_XS;
    return _mm512_mul_ps(d, Bytes(scale, kSigned));
  }
  __m512 Minimum(int b, int half) const {
    const __m512 m = Half(Block(b) + kHalves);
    if constexpr (!kSuper) return m;
    if constexpr (kType == DType::kQ2_K) {
      const std::byte* both = Block(b) + kFactors + (2 * b + half) * kPanelRows;
      return _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(m, Nibbles<4>(both)));
    }
    const std::byte* scale = Block(b) + kFactors + (kSuperBlocks + b) * kPanelRows;
    return _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(m, Bytes(scale, false)));
  }

  // Four stored integers a row, as packed_weight.h numbers the quads.
  [[gnu::always_inline]] __m512i Quad(int b, int q) const {
    const std::byte* low = Block(b) + kLow;
    if constexpr (kBits == 8) {
      return _mm512_xor_si512(_mm512_loadu_si512(low + q * kVector),
                              _mm512_set1_epi32(static_cast<int>(0x80808080u)));
    }
    constexpr int kLowBits = kTwoBits ? 2 : 4, kJoined = 8 / kLowBits;  // quads of a word
    const __m512i words =
        _mm512_loadu_si512(low + (Sub(b) * (kQuads / kJoined) + q / kJoined) * kVector);
    const __m512i quad = _mm512_and_si512(_mm512_srli_epi32(words, q % kJoined * kLowBits),
                                          _mm512_set1_epi32(kTwoBits ? 0x03030303 : 0x0f0f0f0f));
    if constexpr (HasTable(kType)) {
      const auto* table = reinterpret_cast<const __m128i*>(kIntegerTable<kType>.of);
      return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(table)), quad);
    }
    if constexpr (kHighVectors == 0) return quad;
    constexpr int kHighBits = kBits - kLowBits;
    constexpr int kVectorQuads = kQuads / (kHighVectors + (kHighVectors == 0));
    const std::byte* high = Block(b) + kHigh;
    const __m512i bits = _mm512_srli_epi32(
        _mm512_loadu_si512(high + (Sub(b) * kHighVectors + q / kVectorQuads) * kVector),
        q % kVectorQuads * kHighBits);
    const __m512i mask = _mm512_set1_epi32(kHighBits == 1 ? 0x01010101 : 0x03030303);
    return _mm512_or_si512(quad, _mm512_slli_epi32(_mm512_and_si512(bits, mask), kLowBits));
  }
};

// A weight of the span is (slope * q + base) * unit, q the stored, unsigned integer.
struct alignas(64) SpanFactors {
  int32_t slope[kSpanBlocks][2][kPanelRows];
  uint32_t base[kSpanBlocks][kPanelRows];  // both halves' as 16 bits, the first half's low
  float unit[kPanelRows];
};

inline __m512i Pack16(__m512i low, __m512i high) {
  constexpr int kPick = 0xca;  // mask ? first : second
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xffff), low, _mm512_slli_epi32(high, 16),
                                   kPick);
}

// Bits of the largest |weight| that a block of the type can have; of NaN if a factor is.
template <DType kType>
inline __m512i LargestWeight(const SpanSource<kType>& source, int b) {
  constexpr Int8Type kInfo = TypeOf(kType);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const auto bits = [&](__m512 value) {
    return _mm512_and_si512(_mm512_castps_si512(value), magnitude);
  };
  if constexpr (kInfo.minimum) {
    __m512i largest = _mm512_setzero_si512();
    for (int half = 0; half < kInfo.halves; ++half) {
      const __m512 m = source.Minimum(b, half);
      const __m512 end =
          _mm512_fmadd_ps(_mm512_set1_ps((1 << kInfo.bits) - 1), source.Scale(b, half), m);
      largest = _mm512_max_epu32(largest, _mm512_max_epu32(bits(m), bits(end)));
    }
    return largest;
  }
  const __m512 d = source.Scale(b, 0);
  const __m512 offset = _mm512_set1_ps(kInfo.offset);
  const __m512i largest = bits(_mm512_mul_ps(d, offset));
  if constexpr (kInfo.halves == 1) return largest;
  return _mm512_max_epu32(largest, bits(_mm512_mul_ps(source.Scale(b, 1), offset)));
}

template <DType kType>
inline void MakeSpanFactors(const SpanSource<kType>& source, int count, SpanFactors& out) {
  constexpr Int8Type kInfo = TypeOf(kType);
  constexpr int kCentreBits = kInfo.bits - 1;
  __m512i largest = _mm512_setzero_si512();
  for (int b = 0; b < count; ++b) {
    largest = _mm512_max_epu32(largest, LargestWeight<kType>(source, b));
  }
  // A factor that is not finite makes the row NaN, whatever the integers.
  const __mmask16 finite = _mm512_cmplt_epu32_mask(largest, _mm512_set1_epi32(0x7f800000));
  const __m512 unit =
      _mm512_mask_div_ps(_mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()), finite,
                         _mm512_castsi512_ps(largest), _mm512_set1_ps(SpanWeightLimit(kInfo.bits)));
  _mm512_store_ps(out.unit, unit);
  // A span of zeros, or of weights below 2^-100: all integers 0.
  const __mmask16 some = _mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32((127 - 100) << 23));
  const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), unit);
  for (int b = 0; b < count; ++b) {
    __m512i base[2];
    for (int half = 0; half < kInfo.halves; ++half) {
      const __m512 d = source.Scale(b, half);
      const __m512i slope = _mm512_cvtps_epi32(_mm512_mul_ps(d, inverse));
      _mm512_store_si512(out.slope[b][half], slope);
      __m512i middle = _mm512_setzero_si512();
      if constexpr (kInfo.minimum) {
        const __m512 centre = _mm512_set1_ps(1 << kCentreBits);
        middle = _mm512_cvtps_epi32(
            _mm512_mul_ps(_mm512_fmadd_ps(centre, d, source.Minimum(b, half)), inverse));
      }
      base[half] = _mm512_sub_epi32(middle, _mm512_slli_epi32(slope, kCentreBits));
    }
    _mm512_store_si512(out.base[b], Pack16(base[0], base[kInfo.halves - 1]));
  }
}

// A span's weights as AMX wants them: bytes of 64 k by 16 rows, high ones signed, low ones not.
struct alignas(64) SpanWeights {
  uint32_t high[kSpanBlocks / 2][2 * kQuads][kPanelRows];
  uint32_t low[kSpanBlocks / 2][2 * kQuads][kPanelRows];
};

// Of each two bytes, to the first the second, and to the second the first.
inline __m512i SwapBytes() {
  return _mm512_broadcast_i32x4(
      _mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
}

// Writes the weights of a quad: 16 bits each of the even bytes, then of the odd ones. Few shifts:
// they run on one port only, which multiplies besides.
inline void WidenQuad(__m512i quad, __m512i slope, __m512i base, uint32_t* high, uint32_t* low) {
  constexpr __mmask64 kFirst = 0x5555555555555555u;
  const __m512i even = _mm512_add_epi16(
      _mm512_mullo_epi16(_mm512_and_si512(quad, _mm512_set1_epi16(0xff)), slope), base);
  const __m512i odd = _mm512_add_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(quad, 8), slope), base);
  _mm512_store_si512(high, _mm512_mask_shuffle_epi8(odd, kFirst, even, SwapBytes()));
  _mm512_store_si512(low, _mm512_mask_shuffle_epi8(even, ~kFirst, odd, SwapBytes()));
}

// Widens the blocks 2 pair and 2 pair + 1 of a span of `count`, zeros where the last is missing.
// between(0) to between(3) are called in turn, each after a quarter of the work.
template <DType kType, typename Between>
[[gnu::always_inline]] inline void WidenPair(const SpanSource<kType>& source,
                                             const SpanFactors& factors, int pair, int count,
                                             SpanWeights& out, Between between) {
  constexpr int kHalfQuads = kQuads / TypeOf(kType).halves;
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const int b = 2 * pair + i;
    uint32_t(*high)[kPanelRows] = out.high[pair] + i * kQuads;
    uint32_t(*low)[kPanelRows] = out.low[pair] + i * kQuads;
    if (b == count) {
      std::memset(high, 0, sizeof(out.high[0]) / 2);
      std::memset(low, 0, sizeof(out.low[0]) / 2);
      between(2);
      between(3);
      return;
    }
    const __m512i base = _mm512_load_si512(factors.base[b]);
#pragma GCC unroll 8
    for (int q = 0; q < kQuads; ++q) {
      const int half = q / kHalfQuads;
      const __m512i slope = _mm512_load_si512(factors.slope[b][half]);
      const __m512i half_base = half == 0 ? base : _mm512_srli_epi32(base, 16);
      WidenQuad(source.Quad(b, q), Pack16(slope, slope), Pack16(half_base, half_base), high[q],
                low[q]);
      if (q % 4 == 3) between(2 * i + q / 4);
    }
  }
}

// sums + (256 * high + low) * unit * scale: a token's 16 rows of one span.
inline __m512 AddSpan(__m512i high, __m512i low, const SpanFactors& factors, float scale,
                      const float* sums) {
  const __m512 sum =
      _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(low));
  const __m512 factor = _mm512_mul_ps(_mm512_load_ps(factors.unit), _mm512_set1_ps(scale));
  return _mm512_fmadd_ps(sum, factor, _mm512_load_ps(sums));
}
