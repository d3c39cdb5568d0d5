// SPDX-License-Identifier: Apache-2.0
// exp and tanh of attention, of fused multiply-adds alone: the same bits on every target (and exp
// those of kernels/cpu/simd_math-inl.h, which says how it is made).
#pragma once

#include "kernels/gpu/bits.h"

namespace fairlead::FAIRLEAD_GPU {

// For arguments that are not positive. 0 below -87.33; NaN stays NaN.
GPU_DEVICE float ExpNonPositive(float x) {
  const float shifted = fmaf(x, 1.44269504f, 12582912.0f);
  const float n = shifted - 12582912.0f;
  float r = fmaf(-n, 0.693359375f, x);
  r = fmaf(-n, -2.12194440e-4f, r);
  float p = 1.392637600e-3f;
  p = fmaf(p, r, 8.363333082e-3f);
  p = fmaf(p, r, 4.166655346e-2f);
  p = fmaf(p, r, 1.666657606e-1f);
  p = fmaf(p, r, 0.5f);
  const float y = fmaf(p, r * r, r) + 1.0f;
  const float power = BitsFloat((FloatBits(shifted) << 23) + 0x3f800000u);
  return x < -87.33f ? 0.0f : y * power;
}

// (1 - e) / (1 + e) with e = exp(-2 |x|); below 1/4, where that would cancel, the Taylor series up
// to x^9, whose next term is less than 2^-26 of it.
GPU_DEVICE float Tanh(float x) {
  const float magnitude = fabsf(x);
  if (magnitude < 0.25f) {
    const float s = x * x;
    float p = 0.0218694885f;         // 62 / 2835
    p = fmaf(p, s, -0.0539682540f);  // -17 / 315
    p = fmaf(p, s, 0.1333333333f);   // 2 / 15
    p = fmaf(p, s, -0.3333333333f);
    return fmaf(x * s, p, x);
  }
  const float e = ExpNonPositive(-2.0f * magnitude);
  const float t = (1.0f - e) / (1.0f + e);
  return x < 0.0f ? -t : t;
}

}  // namespace fairlead::FAIRLEAD_GPU
