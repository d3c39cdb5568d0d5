// SPDX-License-Identifier: Apache-2.0
// What int8_unpack-inl.h and int8_quantize-inl.h want of AVX-512, and a helper of its kernels.
// Included in an unnamed namespace.
#pragma once

inline __m512i Broadcast(const int8_t* quad) {
  int32_t word;
  std::memcpy(&word, quad, sizeof(word));
  return _mm512_set1_epi32(word);
}

struct Isa {
  static void HalfToFloat(const std::byte* half, float* out) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half));
    _mm512_storeu_ps(out, _mm512_cvtph_ps(bits));
  }

  static void LookUp(const uint8_t (&table)[16], uint32_t (*quads)[kPanelRows]) {
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
    for (int q = 0; q < kInt8Block / 4; ++q) {
      _mm512_store_si512(quads[q], _mm512_shuffle_epi8(values, _mm512_load_si512(quads[q])));
    }
  }

  static uint32_t LargestMagnitude(const float* x) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i low = _mm512_and_si512(_mm512_loadu_si512(x), magnitude);
    const __m512i high = _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(low, high));
  }

  static void Quads(const float* x, float factor, int terms, int8_t* quads, int32_t* half) {
    for (int i = 0; i < 2; ++i) {
      const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(factor));
      const __m512i values = _mm512_cvtps_epi32(scaled);
      half[i] = _mm512_reduce_add_epi32(values);
      if (terms == 1) {
        StoreQuads(values, quads + 16 * i);
        continue;
      }
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(values, _mm512_set1_epi32(8)), 4);
      StoreQuads(high, quads + 16 * i);
      StoreQuads(_mm512_sub_epi32(values, _mm512_slli_epi32(high, 4)), quads + kInt8Block + 16 * i);
    }
  }

 private:
  // Of each 8: the even ones, then the odd ones.
  static void StoreQuads(__m512i values, int8_t* out) {
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m128i bytes = _mm_shuffle_epi8(_mm512_cvtepi32_epi8(values), order);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
  }
};
