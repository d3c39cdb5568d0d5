// SPDX-License-Identifier: Apache-2.0
// Bits of floats and the 16-bit formats, in code that runs on every target (kernels/half.h is the
// host's, and rounds alike).
#pragma once

#include <cstring>

#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {

GPU_DEVICE uint32_t FloatBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}
GPU_DEVICE float BitsFloat(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// IEEE binary16, exact.
GPU_DEVICE float F16Value(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return BitsFloat(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // The exponent's bias differs by 112; the product makes subnormals right, too.
  return BitsFloat(sign | FloatBits(BitsFloat(magnitude << 13) * 0x1p112f));
}

// To the nearest binary16, ties to even; NaN stays NaN.
GPU_DEVICE uint16_t F16Bits(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal: add a float whose ulp is 2^-24, so it is rounded
    const uint32_t shifted = FloatBits(BitsFloat(magnitude) + 0.5f);
    return static_cast<uint16_t>(sign | (shifted - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace fairlead::FAIRLEAD_GPU
