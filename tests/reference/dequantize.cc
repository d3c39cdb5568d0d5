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

// value = scale * (q - zero) + minimum
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

Parts QuantizedElement(DType dtype, const std::byte* data, int64_t index) {
  const std::byte* block = data + index / 32 * Info(dtype).block_bytes;
  const int64_t i = index % 32;
  const float scale = F16ToF32(Load16(block));
  switch (dtype) {
    case DType::kQ8_0:
      return {scale, static_cast<int8_t>(block[2 + i]), 0, 0.0f};
    case DType::kQ4_0:
      return {scale, Nibble(block + 2, i), 8, 0.0f};
    case DType::kQ4_1:
      return {scale, Nibble(block + 4, i), 0, F16ToF32(Load16(block + 2))};
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
  return {};
}

}  // namespace

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
      return dtype == DType::kQ4_1 ? value + p.minimum
                                   : value;  // adding 0 would lose the sign of -0
    }
  }
}

float ElementMagnitude(DType dtype, const std::byte* data, int64_t index) {
  if (!IsQuantized(dtype)) return std::fabs(DequantizeElement(dtype, data, index));
  const Parts p = QuantizedElement(dtype, data, index);
  return std::fabs(p.scale) * static_cast<float>(std::abs(p.q) + p.zero) + std::fabs(p.minimum);
}

}  // namespace fairlead::reference
