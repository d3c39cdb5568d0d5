// SPDX-License-Identifier: Apache-2.0
// Quantises rows of activations (int8_matmul.h). Included once by each int8_*.cc, in an unnamed
// namespace, after a struct Isa with
//   static uint32_t LargestMagnitude(const float* x)
//     Bits of the largest |x| of 32; those of numbers that are not finite are the largest.
//   static void Quads(const float* x, float factor, int terms, int8_t* quads, int32_t* half)
//     The integers nearest x * factor, ties to even, as Int8Activations has them.
// The file must be compiled without contraction of a product and a sum: all round alike.
#pragma once

inline void QuantizeBlock(const float* x, int terms, int8_t* quads, float* scale, float* sum,
                          int32_t* half) {
  const float limit = terms == 2 ? 2032.0f : 127.0f;
  const uint32_t largest_bits = Isa::LargestMagnitude(x);
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof(largest));
  if (largest_bits >= 0x7f800000u || largest < 0x1p-100f) {
    const bool finite = largest_bits < 0x7f800000u;
    std::memset(quads, 0, terms * kInt8Block);
    *scale = *sum = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    half[0] = half[1] = 0;
    return;
  }
  Isa::Quads(x, limit / largest, terms, quads, half);
  *scale = largest / limit;
  *sum = *scale * static_cast<float>(half[0] + half[1]);
}

void Quantize(const float* x, int64_t k, int64_t token, const Int8Activations& out) {
  for (int64_t b = 0; b < k / kInt8Block; ++b) {
    const int64_t at = out.At(token, b);
    QuantizeBlock(x + b * kInt8Block, out.terms, out.quads + at * out.terms * kInt8Block,
                  out.scale + at, out.sum + at, out.half + 2 * at);
  }
}
