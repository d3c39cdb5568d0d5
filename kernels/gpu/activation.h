// SPDX-License-Identifier: Apache-2.0
// The activations of gated MLPs. Those of Gaussians have the CPU's formulas and bits
// (kernels/cpu/simd_math-inl.h, which says how they are made).
#pragma once

#include "kernels/gpu/exp.h"
#include "kernels/gpu/gpu.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

GPU_DEVICE float Silu(float x) { return x / (1.0f + expf(-x)); }

GPU_DEVICE float GeluTanh(float x) {
  const float s = x * fmaf(x * x, 0.0713548162f, 1.5957691216f);
  const float e = ExpNonPositive(-fabsf(s));
  return x * ((s >= 0.0f ? 1.0f : e) / (1.0f + e));
}

GPU_DEVICE float Gelu(float x) {
  const float w = 4.25f / (fabsf(x) + 4.25f);
  const float z = fmaf(-2.0f, w, 1.0f);
  float q = -5.629344907e-5f;
  q = fmaf(q, z, -8.830137671e-5f);
  q = fmaf(q, z, 5.130606869e-4f);
  q = fmaf(q, z, -1.756488301e-4f);
  q = fmaf(q, z, -4.556293700e-3f);
  q = fmaf(q, z, 2.006390553e-2f);
  q = fmaf(q, z, -5.188603651e-2f);
  q = fmaf(q, z, 9.840648517e-2f);
  q = fmaf(q, z, -1.470893601e-1f);
  q = fmaf(q, z, 1.787186372e-1f);
  const float tail = ExpNonPositive(x * x * -0.5f) * (q * w);
  return x * (x >= 0.0f ? 1.0f - tail : tail);
}

// Of ActivateAndMulArgs. Comparisons keep what is not a number.
template <Activation kActivation>
GPU_DEVICE float ActivatedProduct(float gate, float up, float limit) {
  if constexpr (kActivation == Activation::kGeluTanh) return GeluTanh(gate) * up;
  if constexpr (kActivation == Activation::kGelu) return Gelu(gate) * up;
  if constexpr (kActivation == Activation::kClampedSilu) {
    const float x = gate > limit ? limit : gate;
    const float y = up > limit ? limit : up < -limit ? -limit : up;
    return x / (1.0f + expf(x * -1.702f)) * (y + 1.0f);
  }
  return Silu(gate) * up;
}

}  // namespace fairlead::FAIRLEAD_GPU
