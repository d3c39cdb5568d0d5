// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/dequantize.h"

#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/half.h"

namespace fairlead::reference {
namespace {

uint16_t Load16(const std::byte* data) {
  uint16_t bits;
  std::memcpy(&bits, data, sizeof bits);
  return bits;
}

// value = scale * (q - zero) + minimum, both products exact
struct Parts {
  float scale;
  int q;
  int zero;
  float minimum;
};

// Element i of 32 nibbles: the low halves of the 16 bytes come first, then the high ones.
int Nibble(const std::byte* bytes, int64_t i) {
  const int byte = std::to_integer<int>(bytes[i % 16]);
  return i < 16 ? byte & 15 : byte >> 4;
}

int Byte(const std::byte* bytes, int64_t i) { return std::to_integer<int>(bytes[i]); }

// Sub-block s's scale and minimum of q4_K and q5_K, 6 bits each in 12 bytes (ggml-quants.c,
// get_scale_min_k4).
int KScale(const std::byte* q, int64_t s) {
  return s < 4 ? Byte(q, s) & 63 : (Byte(q, s + 4) & 15) | (Byte(q, s - 4) >> 6 << 4);
}
int KMinimum(const std::byte* q, int64_t s) {
  return s < 4 ? Byte(q, s + 4) & 63 : Byte(q, s + 4) >> 4 | (Byte(q, s) >> 6 << 4);
}

// Element i of block_q4_K or block_q5_K (ggml-common.h): d, dmin, scales[12], qh[32] in q5_K,
// qs[128]. 64 elements share 32 bytes of qs: the low nibbles come first.
Parts KElement(const std::byte* block, int64_t i, bool fifth_bits) {
  const int64_t s = i / 32, l = i % 32;
  const std::byte* qs = block + (fifth_bits ? 48 : 16);
  int q = Byte(qs, i / 64 * 32 + l) >> (s % 2 == 0 ? 0 : 4) & 15;
  if (fifth_bits) q += (Byte(block + 16, l) >> s & 1) * 16;
  return {F16ToF32(Load16(block)) * static_cast<float>(KScale(block + 4, s)), q, 0,
          -F16ToF32(Load16(block + 2)) * static_cast<float>(KMinimum(block + 4, s))};
}

// Element i of block_q6_K: ql[128], qh[64], scales[16], d. In either half of 128 elements, l, l +
// 32, l + 64, l + 96 have the low nibbles of ql[l], ql[l + 32], then the high ones, and two bits
// each of qh[l].
Parts Q6KElement(const std::byte* block, int64_t i) {
  const int64_t half = i / 128, quarter = i % 128 / 32, l = i % 32;
  const int low = Byte(block, 64 * half + 32 * (quarter % 2) + l) >> (quarter < 2 ? 0 : 4) & 15;
  const int high = Byte(block + 128, 32 * half + l) >> 2 * quarter & 3;
  const auto scale = static_cast<int8_t>(block[192 + i / 16]);
  return {F16ToF32(Load16(block + 208)) * static_cast<float>(scale), low + 16 * high, 32, 0.0f};
}

// d, qs[16] or an exponent e, qs[16]; the values of indices as ggml-common.h has them.
constexpr int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// block_iq4_xs: d, high bits of the scales in 16 bits, low ones in 4 bytes, qs[128].
Parts Iq4XsElement(const std::byte* block, int64_t i) {
  const int64_t s = i / 32;
  const int low = Byte(block + 4, s / 2) >> 4 * (s % 2) & 15, high = Load16(block + 2) >> 2 * s & 3;
  return {F16ToF32(Load16(block)) * static_cast<float>((low | high << 4) - 32),
          kIq4[Nibble(block + 8 + 16 * s, i % 32)], 0, 0.0f};
}

// block_q3_K: hmask[32], qs[64], scales[12], d. Two bits of l, l + 32, l + 64, l + 96 in qs[l], in
// either half of 128; bit s of hmask[l] is element 32 s + l's third. The 16 scales have their low
// nibbles in 8 bytes, two bits each in 4 more.
Parts Q3KElement(const std::byte* block, int64_t i) {
  const int low = Byte(block + 32, i / 128 * 32 + i % 32) >> 2 * (i % 128 / 32) & 3;
  const int q = low + (Byte(block, i % 32) >> i / 32 & 1) * 4;
  const int64_t s = i / 16;
  const std::byte* scales = block + 96;
  const int scale = (Byte(scales, s % 8) >> (s < 8 ? 0 : 4) & 15) |
                    (Byte(scales, 8 + s % 4) >> 2 * (s / 4) & 3) << 4;
  return {F16ToF32(Load16(block + 108)) * static_cast<float>(scale - 32), q, 4, 0.0f};
}

// block_q2_K: scales[16], of 16 elements each, the minimum in the high nibble, qs[64], d, dmin.
Parts Q2KElement(const std::byte* block, int64_t i) {
  const int q = Byte(block + 16, i / 128 * 32 + i % 32) >> 2 * (i % 128 / 32) & 3;
  const int both = Byte(block, i / 16);
  return {F16ToF32(Load16(block + 80)) * static_cast<float>(both & 15), q, 0,
          -F16ToF32(Load16(block + 82)) * static_cast<float>(both >> 4)};
}

Parts QuantizedElement(DType dtype, const std::byte* data, int64_t index) {
  const int64_t elements = Info(dtype).block_elements;
  const std::byte* block = data + index / elements * Info(dtype).block_bytes;
  const int64_t i = index % elements;
  const float scale = F16ToF32(Load16(block));
  switch (dtype) {
    case DType::kQ8_0:
      return {scale, static_cast<int8_t>(block[2 + i]), 0, 0.0f};
    case DType::kQ4_0:
      return {scale, Nibble(block + 2, i), 8, 0.0f};
    case DType::kQ4_1:
      return {scale, Nibble(block + 4, i), 0, F16ToF32(Load16(block + 2))};
    case DType::kQ5_0:  // d, qh[4], qs[16]
      return {scale, Nibble(block + 6, i) + (Byte(block + 2, i / 8) >> i % 8 & 1) * 16, 16, 0.0f};
    case DType::kQ5_1:  // d, m, qh[4], qs[16]
      return {scale, Nibble(block + 8, i) + (Byte(block + 4, i / 8) >> i % 8 & 1) * 16, 0,
              F16ToF32(Load16(block + 2))};
    case DType::kQ4_K:
    case DType::kQ5_K:
      return KElement(block, i, dtype == DType::kQ5_K);
    case DType::kQ6_K:
      return Q6KElement(block, i);
    case DType::kIQ4_NL:
      return {scale, kIq4[Nibble(block + 2, i)], 0, 0.0f};
    case DType::kMXFP4:
      return {std::ldexp(1.0f, Byte(block, 0) - 128), kFp4[Nibble(block + 1, i)], 0, 0.0f};
    case DType::kIQ4_XS:
      return Iq4XsElement(block, i);
    case DType::kQ3_K:
      return Q3KElement(block, i);
    case DType::kQ2_K:
      return Q2KElement(block, i);
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
  return {};
}

}  // namespace

ScalePlaces ScalesAt(DType dtype) {
  switch (dtype) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208, -1};
    case DType::kQ3_K:
      return {108, -1};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kMXFP4:
      return {-1, -1};
    default:
      return {0, -1};
  }
}

float DequantizeElement(DType dtype, const std::byte* data, int64_t index) {
  switch (dtype) {
    case DType::kF32: {
      float value;
      std::memcpy(&value, data + index * 4, sizeof value);
      return value;
    }
    case DType::kF16:
      return F16ToF32(Load16(data + index * 2));
    case DType::kBF16:
      return BF16ToF32(Load16(data + index * 2));
    default: {
      const Parts p = QuantizedElement(dtype, data, index);
      const float value = p.scale * static_cast<float>(p.q - p.zero);
      const bool has_minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1 ||
                               dtype == DType::kQ4_K || dtype == DType::kQ5_K ||
                               dtype == DType::kQ2_K;
      return has_minimum ? value + p.minimum : value;  // adding 0 would lose the sign of -0
    }
  }
}

float ElementMagnitude(DType dtype, const std::byte* data, int64_t index) {
  if (!IsQuantized(dtype)) return std::fabs(DequantizeElement(dtype, data, index));
  const Parts p = QuantizedElement(dtype, data, index);
  return std::fabs(p.scale) * static_cast<float>(std::abs(p.q) + p.zero) + std::fabs(p.minimum);
}

}  // namespace fairlead::reference
