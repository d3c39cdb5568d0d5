// SPDX-License-Identifier: Apache-2.0
// Quantises rows of activations (int8_matmul.h). Included once by each int8_*.cc, in an unnamed
// namespace; plain C++ that the compiler vectorises, compiled without contraction of a product and
// a sum, so that all instruction sets round alike.

// The largest magnitude of 32 values as bits: those of numbers that are not finite are the largest.
inline uint32_t LargestMagnitude(const float* x) {
  uint32_t bits[kInt8Block];
  std::memcpy(bits, x, sizeof(bits));
  uint32_t lanes[8] = {};
  for (int i = 0; i < kInt8Block; i += 8) {
    for (int j = 0; j < 8; ++j) lanes[j] = std::max(lanes[j], bits[i + j] & 0x7fffffffu);
  }
  return *std::max_element(lanes, lanes + 8);
}

// Nearest integers, ties to even, of x * factor, which are below 2^22.
inline void RoundBlock(const float* x, float factor, int32_t* __restrict out) {
  for (int i = 0; i < kInt8Block; ++i) {
    // 1.5 * 2^23: its ulp is 1, so the addition rounds.
    const float shifted = x[i] * factor + 12582912.0f;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    out[i] = bits - 0x4b400000;
  }
}

// Within each 8: the values at even places, then those at odd ones.
inline void StoreQuads(const int32_t* values, int8_t* __restrict out) {
  for (int g = 0; g < kInt8Block; g += 8) {
    for (int i = 0; i < 4; ++i) out[g + i] = static_cast<int8_t>(values[g + 2 * i]);
    for (int i = 0; i < 4; ++i) out[g + 4 + i] = static_cast<int8_t>(values[g + 2 * i + 1]);
  }
}

inline void QuantizeBlock(const float* x, int terms, int8_t* quads, float* scale, float* sum,
                          int32_t* half) {
  const float limit = terms == 2 ? 2032.0f : 127.0f;
  const uint32_t largest_bits = LargestMagnitude(x);
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof(largest));
  if (largest_bits >= 0x7f800000u || largest < 0x1p-100f) {
    const bool finite = largest_bits < 0x7f800000u;
    std::memset(quads, 0, terms * kInt8Block);
    *scale = *sum = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    half[0] = half[1] = 0;
    return;
  }
  int32_t values[kInt8Block];
  RoundBlock(x, limit / largest, values);
  half[0] = half[1] = 0;
  for (int i = 0; i < kInt8Block / 2; ++i) half[0] += values[i];
  for (int i = kInt8Block / 2; i < kInt8Block; ++i) half[1] += values[i];
  *scale = largest / limit;
  *sum = *scale * static_cast<float>(half[0] + half[1]);
  if (terms == 1) return StoreQuads(values, quads);
  int32_t high[kInt8Block];
  for (int i = 0; i < kInt8Block; ++i) {
    high[i] = (values[i] + 8) >> 4;
    values[i] -= 16 * high[i];
  }
  StoreQuads(high, quads);
  StoreQuads(values, quads + kInt8Block);
}

void Quantize(const float* x, int64_t k, int64_t token, const Int8Activations& out) {
  for (int64_t b = 0; b < k / kInt8Block; ++b) {
    const int64_t at = out.At(token, b);
    QuantizeBlock(x + b * kInt8Block, out.terms, out.quads + at * out.terms * kInt8Block,
                  out.scale + at, out.sum + at, out.half + 2 * at);
  }
}
