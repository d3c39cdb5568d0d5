// SPDX-License-Identifier: Apache-2.0
// Tensor cores: the product of a tile of 16 rows by 16 k with one of 16 k by kMmaTokens tokens,
// both f16, added to f32 sums. A warp holds a tile in the registers of its lanes; which lane has
// what is the target's business, and only what is declared here may be relied on.
//
// k is held by quads, 4 elements each: quad q of a row is multiplied with quad q of a token, and so
// its 4 elements in order. Which k a quad stands for is the caller's choice.
//
//   struct RowFragment     kRows x kQuads quads of a lane
//     static Row(lane, r)    0 to 15, for r < kRows
//     static Quad(lane, q)   0 to 3, for q < kQuads
//     pair[]                 f16, two a word, the lower half first; of quad (r, q) from At(r, q) on
//     kDistinctLanes         lane l has what lane l % kDistinctLanes has
//   struct TokenFragment   kQuads quads, of one token
//     static Token(lane), static Quad(lane, q); pair[2 * q] on
//   struct TileSums        kValues values of a lane
//     static Row(lane, i), static Token(lane, i); value[i]
//   void Mma(rows, tokens, &sums)   all lanes of the warp; of arrays: step after step
//
// Per sum, products are exact and the order of the additions is the hardware's: the same for every
// row, token and lane, but another from vendor to vendor. On the host: ascending quads, in a quad
// ascending elements, each a fused multiply-add. Subnormal f16 may count as zero (gfx90a).
//
// And arithmetic on pairs of f16, to make fragments of: rounded to nearest, ties to even.
//   uint32_t PackPair(float low, float high)
//   float PairLow(uint32_t), PairHigh(uint32_t)
//   uint32_t PairSub(a, b), PairFma(a, b, c)
//   uint32_t RaisedPair(uint32_t bytes, int i)   1024 + each of bytes 2 i, 2 i + 1; i is constant
// And of bytes:
//   uint32_t LookUpBytes<Table>(uint32_t indices)   of each byte, 0 to 15, the byte of Table::Word
//
// GPU_UNROLL before a loop: fragments stay in registers only where indices are constants.
// GPU_KERNEL void GPU_THREADS(n) Name(...): of a block, for the compiler to share out registers.
#pragma once

#include "kernels/gpu/gpu.h"

#if defined(__CUDACC__)
#include "kernels/gpu/cuda/mma_cuda.h"
#elif defined(__HIPCC__)
#include "kernels/gpu/hip/mma_hip.h"
#else
#include "kernels/gpu/host/mma_host.h"
#endif

namespace fairlead::FAIRLEAD_GPU {

constexpr int kMmaRows = 16;
constexpr int kMmaQuads = 4;

}  // namespace fairlead::FAIRLEAD_GPU
