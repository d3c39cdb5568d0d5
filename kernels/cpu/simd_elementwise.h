// SPDX-License-Identifier: Apache-2.0
// The vector loops of the element-wise ops, one row at a time, for the best instruction set of this
// machine. Any thread; no state; nothing allocated. What a row gets depends on that row alone.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace fairlead {

// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]. out may be x. The second adds that to
// out[i].
void SimdRmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out);
void SimdAddRmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out);

// Of LayerNormArgs; weight and bias may be null, out may be x.
void SimdLayerNormRow(const float* x, const float* weight, const float* bias, int n, float epsilon,
                      float* out);

// Of ActivateAndMulArgs, without gated if `up` is null; then out may be gate.
void SimdActivateAndMulRow(Activation activation, float limit, const float* gate, const float* up,
                           int n, float* out);

// out[i] = 1 / (1 + exp(-x[i])).
void SimdSigmoidRow(const float* x, int n, float* out);

// Of ScaleArgs.
void SimdScaleRow(float factor, float soft_cap, int n, float* x);

// sum[i] += x[i].
void SimdAddRow(const float* x, int n, float* sum);

// x[i] /= max(sqrt(sum of x^2), least).
void SimdNormalizeRow(float* x, int n, float least);

struct RopeRowArgs {
  const float* x;        // [heads, head_dim]
  const float* cos_sin;  // [rotary_dim]: rotary_dim / 2 cosines, then as many sines
  int heads;
  int head_dim;
  int rotary_dim;  // even; the dimensions after it are copied
  RopePairing pairing;
  float* out;  // [heads, head_dim]; may be x
};
void SimdRopeRow(const RopeRowArgs& args);

// out[i * stride] = x[i], rounded to nearest even for f16.
void SimdStoreF16(const float* x, int n, int64_t stride, uint16_t* out);
void SimdStoreF32(const float* x, int n, int64_t stride, float* out);

// Blocks of 32 (the last may be shorter) as q8_0: scale = f16(max |x| / 127), and out[i * stride]
// is x[i] * (1 / scale) to the nearest integer, ties to even, at most 127; scales are
// `scale_stride` apart. A block with a value that is not finite gets a NaN as its scale; one whose
// scale is 0, zeros.
void SimdStoreQ8(const float* x, int n, int64_t stride, int8_t* out, int64_t scale_stride,
                 uint16_t* scale);

}  // namespace fairlead
