// SPDX-License-Identifier: Apache-2.0
// What the matmul kernels have in common.
#pragma once

#include "kernels/gpu/experts.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

struct alignas(16) Floats {
  float value[4];
};

// Which matrix of the weight multiplies a token, where each token chooses one (GroupedMatmul). The
// product's tokens are the pairs of experts.h.
struct Routing {
  ExpertTiles tiles;            // without any, tile i is pair i
  const int* expert = nullptr;  // of each pair
  int shared = 1;               // pairs that multiply the same row of x
  int plane_tiles = 0;          // of rows of a matrix
};

struct MatmulCall {
  GpuPlanes planes;
  const float* x;     // [tokens, cols], or as Routing says
  const float* bias;  // [rows] (of each matrix) or null
  float* out;         // row 0, column 0 of this product
  int64_t out_stride;
  int rows, cols, tokens;  // rows: of a matrix
  bool vectors;            // rows of x are 16-byte aligned
  bool accumulate;
  Routing routing;  // of kernels that are kRouted
};

// A tile of tokens that a block multiplies: [first, end) of the product's, or, where kRouted, of
// the order of pairs. `end` is that of all tokens in the first case.
template <bool kRouted>
struct TokenTile {
  const MatmulCall& call;
  int first, end;
  int expert = 0;

  // Tiles of `size` tokens.
  GPU_BOTH static int Count(const MatmulCall& call, int size) {
    if constexpr (kRouted) {
      return call.routing.tiles.count > 0 ? call.routing.tiles.count : call.tokens;
    } else {
      return (call.tokens + size - 1) / size;
    }
  }
  GPU_METHOD TokenTile(const MatmulCall& of_call, int index, int size)
      : call(of_call), first(index * size), end(of_call.tokens) {
    if constexpr (kRouted) {
      const Routing& routing = call.routing;
      ExpertTile tile = {0, index, index + 1};
      if (routing.tiles.count > 0) {
        tile = routing.tiles.tiles[index];
      } else {
        tile.expert = routing.expert[index];
      }
      first = tile.first;
      end = tile.end;
      expert = tile.expert;
    }
  }
  GPU_METHOD bool empty() const { return kRouted && first >= end; }

  GPU_METHOD int OutRow(int token) const {
    return kRouted && call.routing.tiles.count > 0 ? call.routing.tiles.order[token] : token;
  }
  GPU_METHOD int XRow(int token) const {
    return kRouted ? OutRow(token) / call.routing.shared : token;
  }
  GPU_METHOD int PlaneTile(int tile) const {
    return kRouted ? expert * call.routing.plane_tiles + tile : tile;
  }
  GPU_METHOD int PlaneRow(int row) const { return PlaneTile(0) * kTileRows + row; }
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
          .accumulate = args.accumulate,
          .routing = {}};
}

inline MatmulCall MakeGroupedCall(const GroupedMatmulArgs& args) {
  const int64_t tokens = args.expert.dim[0], slots = args.expert.dim[1];
  MatmulCall call =
      MakeMatmulCall({.x = args.x, .weight = args.weight, .out = args.out, .bias = args.bias});
  call.rows = static_cast<int>(args.weight->group_rows());
  call.tokens = static_cast<int>(tokens * slots);
  call.routing.expert = args.expert.As<int>();
  call.routing.shared = static_cast<int>(tokens * slots / args.x.dim[0]);
  call.routing.plane_tiles = (call.rows + kTileRows - 1) / kTileRows;
  return call;
}

// Elements k to k + 3 of a row of x; zeros past the end.
GPU_DEVICE Floats ReadFour(const MatmulCall& call, int x_row, int k) {
  const float* x = call.x + int64_t{1} * x_row * call.cols;
  if (call.vectors && k < call.cols) return *reinterpret_cast<const Floats*>(x + k);
  Floats four;
  for (int i = 0; i < 4; ++i) four.value[i] = k + i < call.cols ? x[k + i] : 0.0f;
  return four;
}

// Stores a finished sum.
template <bool kRouted>
GPU_DEVICE void StoreProduct(const TokenTile<kRouted>& tile, int row, int token, float total) {
  const MatmulCall& call = tile.call;
  if (call.bias != nullptr) total += call.bias[int64_t{1} * tile.expert * call.rows + row];
  float* out = call.out + tile.OutRow(token) * call.out_stride + row;
  *out = call.accumulate ? *out + total : total;
}

}  // namespace fairlead::FAIRLEAD_GPU
