// SPDX-License-Identifier: Apache-2.0
// Quantises rows of activations to 16 bits over spans of 256 k (int8_matmul.h). For int8_amx.cc;
// included in an unnamed namespace after int8_span-inl.h.
#pragma once

// Of each 8: the even ones, then the odd ones.
alignas(64) constexpr uint16_t kQuadOrder[32] = {0,  2,  4,  6,  1,  3,  5,  7,  8,  10, 12,
                                                 14, 9,  11, 13, 15, 16, 18, 20, 22, 17, 19,
                                                 21, 23, 24, 26, 28, 30, 25, 27, 29, 31};

// The sums of the first and of the last 16 of 32 as 16 bits each, the first low.
inline int32_t HalfSums(__m512i values) {
  const __m512i pairs = _mm512_madd_epi16(values, _mm512_set1_epi16(1));
  const auto sum = [](__m256i part) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(part), _mm256_extracti128_si256(part, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1))));
  };
  const uint32_t first = sum(_mm512_castsi512_si256(pairs));
  const uint32_t second = sum(_mm512_extracti64x4_epi64(pairs, 1));
  return static_cast<int32_t>((first & 0xffff) | second << 16);
}

inline void StoreTerm(__m512i values, int8_t* out) {
  const __m512i ordered = _mm512_permutexvar_epi16(_mm512_load_si512(kQuadOrder), values);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi16_epi8(ordered));
}

// One span of x to 16 bits: `blocks` blocks of 32.
inline void QuantizeSpan(const float* x, int blocks, int64_t token, int64_t first,
                         const Int8Activations& out) {
  __m512i most = _mm512_setzero_si512();
  for (int i = 0; i < blocks * kInt8Block; i += 16) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
  }
  const uint32_t largest_bits = _mm512_reduce_max_epu32(most);
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof(largest));
  const bool finite = largest_bits < 0x7f800000u;
  const bool zero = !finite || largest < 0x1p-100f;
  out.scale[out.SpanAt(token, first / kSpanBlocks)] = !finite
                                                          ? std::numeric_limits<float>::quiet_NaN()
                                                      : zero ? 0.0f
                                                             : largest / kInt8SpanLimit;
  const __m512 factor = _mm512_set1_ps(zero ? 0.0f : kInt8SpanLimit / largest);
  for (int b = 0; b < blocks; ++b) {
    __m256i words[2];
    for (int i = 0; i < 2; ++i) {
      const __m512 values = _mm512_loadu_ps(x + b * kInt8Block + 16 * i);
      // Not finite times zero is NaN, whose integer is not zero.
      const __m512i integers = _mm512_cvtps_epi32(_mm512_mul_ps(values, factor));
      words[i] = _mm512_cvtepi32_epi16(zero ? _mm512_setzero_si512() : integers);
    }
    const __m512i value = _mm512_inserti64x4(_mm512_castsi256_si512(words[0]), words[1], 1);
    const __m512i high = _mm512_srai_epi16(_mm512_add_epi16(value, _mm512_set1_epi16(128)), 8);
    const __m512i low = _mm512_sub_epi16(value, _mm512_slli_epi16(high, 8));
    int8_t* to = out.SpanQuads(token, first + b);
    StoreTerm(high, to);
    StoreTerm(low, to + kInt8SpanTermBytes);
    if (out.half == nullptr) continue;
    int32_t* half = out.half + 2 * out.At(token, first + b);
    half[0] = HalfSums(high);
    half[1] = HalfSums(low);
  }
  if (blocks % 2 != 0) {
    int8_t* to = out.SpanQuads(token, first + blocks);
    std::memset(to, 0, kInt8Block);
    std::memset(to + kInt8SpanTermBytes, 0, kInt8Block);
  }
}

void QuantizeSpans(const float* x, int64_t k, int64_t token, const Int8Activations& out) {
  const int64_t blocks = k / kInt8Block;
  for (int64_t b = 0; b < blocks; b += kSpanBlocks) {
    const int count = static_cast<int>(std::min<int64_t>(kSpanBlocks, blocks - b));
    QuantizeSpan(x + b * kInt8Block, count, token, b, out);
  }
}
