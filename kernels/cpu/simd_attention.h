// SPDX-License-Identifier: Apache-2.0
// The vector loops of attention, for the best instruction set of this machine. Any thread; no
// state; nothing allocated. f32 arithmetic throughout: narrower keys and values are widened
// exactly.
#pragma once

#include "kernels/dtype.h"

namespace fairlead {

// Keys of one sequence are cut at multiples of this absolute position. Each split is summed on its
// own and splits are merged in order, so the sums of a query row depend on its position alone. 256:
// a decode at 1,024 tokens gives 4 splits x kv heads tasks, and a tile's scores stay in the L2
// cache.
inline constexpr int kSplitKeys = 256;
inline constexpr int kSplitGroups = kSplitKeys / 16;

// Softmax over some keys, not divided yet: max of the scores, sum of exp(score - max), and the sum
// of exp(score - max) * value. The rows of `out` are `v_stride` floats.
struct SoftmaxSums {
  float* max;  // [queries]
  float* sum;  // [queries]
  float* out;  // [queries, v_stride]
};

struct SplitArgs {
  DType kv_dtype;  // kF32, kF16, kBF16, kQ8_0 or kF8_E4M3
  int queries;     // rows of q
  int head_dim;
  int v_stride;    // a multiple of 16
  int k_stride;    // elements between two dimensions of a key
  const float* q;  // [queries, head_dim], scaled
  // [queries]: the keys [begin, limit) of the split are seen, one at least; both ascending.
  const int* begin;
  const int* limit;
  float soft_cap;  // 0: none
  // [ceil(limit / 16)], those before the first begin / 16 unused: K of 16 keys, [head_dim,
  // k_stride]
  const void* const* k_group;
  const void* const* v_group;  // likewise: V of 16 keys, [16, v_stride]
  // Of q8_0: the scales of 16 keys, [dimensions / 32 rounded up, k_stride], and of 16 values, [16,
  // v_scales].
  const void* const* k_scale = nullptr;
  const void* const* v_scale = nullptr;
  int v_scales = 0;
  const float* v_scale_values = nullptr;  // set within
  float* score;                           // scratch [queries, kSplitKeys]
  SoftmaxSums sums;                       // written
};

// One split for some queries. What a query gets does not depend on its neighbours; keys that it
// does not see are not used even when their bits are NaN.
void SimdAttendSplit(const SplitArgs& args);

// score[i] = cap * tanh(score[i] / cap) for `count` scores, a multiple of 16.
void SimdCapScores(float cap, int count, float* score);

// Adds a later split's sums to those of the splits before it.
void SimdMergeSums(int queries, int v_stride, const SoftmaxSums& later, const SoftmaxSums& total);

// Sums of no keys, for SimdMergeSums to add to.
void SimdClearSums(int queries, int v_stride, const SoftmaxSums& sums);

// out[d] = sums.out[query, d] / sums.sum[query], of which `sink` is one more score, without a
// value; -infinity: none.
void SimdFinishRow(const SoftmaxSums& sums, int query, int head_dim, int v_stride, float sink,
                   float* out);

// out[i] = x[i] * scale.
void SimdScale(const float* x, int n, float scale, float* out);

}  // namespace fairlead
