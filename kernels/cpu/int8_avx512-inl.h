// SPDX-License-Identifier: Apache-2.0
// What int8_unpack-inl.h wants of AVX-512. Included in an unnamed namespace.

struct Isa {
  static void HalfToFloat(const std::byte* half, float* out) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half));
    _mm512_storeu_ps(out, _mm512_cvtph_ps(bits));
  }
};
