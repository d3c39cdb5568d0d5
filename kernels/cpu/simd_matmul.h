// SPDX-License-Identifier: Apache-2.0
// The vector kernels of the CPU matmul, compiled for every instruction set Highway targets and
// picked at run time. Reduction order: an output element is one chain of fused multiply-adds over
// ascending k, in its own lane, from zero:
//   sum = fma(x[k], w[n, k], sum), w rounded to f32 as packed_weight.h defines the element,
// then bias and what was there are added. Nothing else enters, so the bits of an output row are the
// same for every number of rows, tile, thread and instruction set (except those without a fused
// multiply-add: SSE4 and below). All functions are thread-safe and allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/cpu/packed_weight.h"

namespace fairlead {

struct MatmulOutput {
  float* data;                  // row 0, column 0 of this product
  int64_t stride;               // floats from row to row
  const float* bias = nullptr;  // [rows of the weight]
  bool accumulate = false;
};

// Tokens of one call of SimdMultiplyTile: what its running sums hold.
inline constexpr int64_t kMaxTileTokens = 240;

// The instruction set in use: "AVX3_DL".
std::string_view SimdTargetName();
// Whether that instruction set fuses multiply and add, so that the bits are those of all others
// that do.
bool SimdHasFma();
// Panels that the tile kernel multiplies at once: the granularity at which to split N.
int SimdTilePanels();
// Up to this many tokens take the vector kernel, which dequantises in registers; more share a
// dequantised tile. 0 for the dtypes that have tiles only: all quantised ones but q8_0, q4_0 and
// q4_1.
int SimdVectorTokens(DType dtype);
// Panels that the vector kernel multiplies at once: the granularity at which to split N.
int SimdVectorPanels(int tokens);
// Floats of scratch that each worker needs for SimdMultiplyTile. 64-byte aligned, not initialised.
size_t SimdTileScratchFloats();

// out = x * weight^T for the panels [panel_begin, panel_end) and x [tokens, k], 1 <= tokens <=
// SimdVectorTokens(weight.dtype()).
void SimdMultiplyVectors(const CpuPackedWeight& weight, const float* x, int tokens,
                         int64_t panel_begin, int64_t panel_end, const MatmulOutput& out);

// The layout that the tile kernel reads: pairs of tokens, [tokens / 2 rounded up][k][2].
inline size_t PackedActivationFloats(int64_t tokens, int64_t k) {
  return static_cast<size_t>((tokens + 1) / 2 * 2 * k);
}
// Packs the tokens [begin, end) of x [.., k]; begin is even. Leaves the missing half of a last odd
// pair as it is.
void SimdPackActivations(const float* x, int64_t k, int64_t begin, int64_t end, float* packed);

// Tokens [token_begin, token_end), token_begin even, at most kMaxTileTokens, by panels [panel,
// panel + SimdTilePanels()).
void SimdMultiplyTile(const CpuPackedWeight& weight, const float* packed_activations,
                      int64_t token_begin, int64_t token_end, int64_t panel, float* scratch,
                      const MatmulOutput& out);

// out[first_token + t, first_row + c] = sums[t, c] (+ bias) (+ what is there), for `columns`
// columns c.
void SimdWriteSums(const float* sums, int64_t sum_stride, int64_t tokens, int64_t columns,
                   int64_t first_token, int64_t first_row, const MatmulOutput& out);

// To the nearest bf16, ties to even; NaN stays NaN.
void SimdRoundToBF16(const float* values, int64_t count, uint16_t* out);

}  // namespace fairlead
