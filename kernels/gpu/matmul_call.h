// SPDX-License-Identifier: Apache-2.0
// What the matmul kernels have in common.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

struct alignas(16) Floats {
  float value[4];
};

struct MatmulCall {
  GpuPlanes planes;
  const float* x;     // [tokens, cols]
  const float* bias;  // [rows] or null
  float* out;         // row 0, column 0 of this product
  int64_t out_stride;
  int rows, cols, tokens;
  bool vectors;  // rows of x are 16-byte aligned
  bool accumulate;
};

// Whether every row of a matrix of floats begins at a multiple of 16 bytes.
inline bool HasVectors(const void* data, int64_t cols) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && cols % 4 == 0;
}

inline MatmulCall MakeMatmulCall(const MatmulArgs& args) {
  const auto& weight = static_cast<const GpuPackedWeight&>(*args.weight);
  return {.planes = weight.planes(),
          .x = args.x.As<float>(),
          .bias = args.bias.As<float>(),
          .out = args.out.As<float>() + args.out_column,
          .out_stride = args.out.dim[1],
          .rows = static_cast<int>(weight.rows()),
          .cols = static_cast<int>(weight.cols()),
          .tokens = static_cast<int>(args.x.dim[0]),
          .vectors = HasVectors(args.x.data, weight.cols()),
          .accumulate = args.accumulate};
}

// Elements k to k + 3 of a token; zeros past the end.
GPU_DEVICE Floats ReadFour(const MatmulCall& call, int token, int k) {
  const float* x = call.x + int64_t{1} * token * call.cols;
  if (call.vectors && k < call.cols) return *reinterpret_cast<const Floats*>(x + k);
  Floats four;
  for (int i = 0; i < 4; ++i) four.value[i] = k + i < call.cols ? x[k + i] : 0.0f;
  return four;
}

// Stores a finished sum.
GPU_DEVICE void StoreProduct(const MatmulCall& call, int row, int token, float total) {
  if (call.bias != nullptr) total += call.bias[row];
  float* out = call.out + token * call.out_stride + row;
  *out = call.accumulate ? *out + total : total;
}

}  // namespace fairlead::FAIRLEAD_GPU
