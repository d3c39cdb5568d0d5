// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/simd_targets.h"
//
#include "kernels/cpu/simd_attention.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/cpu/kv_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd_attention.cc"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "kernels/cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fairlead {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
constexpr int kGroupVectors = 16 / kLanes;

// Register tiles: queries x vectors of keys (scores) or of dimensions (weighted values). AVX-512
// has 32 registers: 6 x 4 sums, 4 operands and a broadcast; the others keep 4 x 2.
constexpr int kTileQueries = kLanes == 16 ? 6 : 4;
constexpr int kTileGroups = kLanes == 16 ? 4 : 1;  // groups of 16 keys
constexpr int kTileDims = kLanes == 16 ? 4 : 2;    // vectors

HWY_INLINE V LoadKv(D d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE V LoadKv(D d, const uint16_t* p) {
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
}

// Keys and values as they are stored: f32, f16, or q8_0's integers, which want a scale.
HWY_INLINE V LoadKv(D d, const int8_t* p) {
  const hn::Rebind<int8_t, D> d8;
  const hn::RebindToSigned<D> di;
  return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, p)));
}
HWY_INLINE V LoadKv(D d, const hwy::bfloat16_t* p) {
  const hn::Rebind<hwy::bfloat16_t, D> db;
  return hn::PromoteTo(d, hn::LoadU(db, p));
}
// The sign stays, the 7 other bits go to where a float has them; the exponent's bias differs by
// 120.
HWY_INLINE V LoadKv(D d, const uint8_t* p) {
  const hn::Rebind<uint8_t, D> d8;
  const hn::RebindToSigned<D> di;
  const auto code = hn::PromoteTo(di, hn::LoadU(d8, p));
  const auto magnitude = hn::And(code, hn::Set(di, 0x7f));
  const auto sign = hn::ShiftLeft<24>(hn::Sub(code, magnitude));
  const auto bits = hn::Or(sign, hn::ShiftLeft<20>(magnitude));
  const auto nan = hn::RebindMask(d, hn::Eq(magnitude, hn::Set(di, 0x7f)));
  return hn::IfThenElse(nan, hn::NaN(d), hn::Mul(hn::BitCast(d, bits), hn::Set(d, 0x1p120f)));
}
template <typename T>
constexpr bool kScaled = std::is_same_v<T, int8_t>;

// Of the keys of kGroups groups, for 32 dimensions.
template <int kGroups>
HWY_INLINE void LoadKeyScales(const SplitArgs& args, int group, int index,
                              V (&scale)[kGroups * kGroupVectors]) {
  const D d;
#pragma GCC unroll 16
  for (int v = 0; v < kGroups * kGroupVectors; ++v) {
    const auto* from = static_cast<const uint16_t*>(args.k_scale[group + v / kGroupVectors]);
    scale[v] = LoadKv(d, from + size_t{1} * index * args.k_stride + v % kGroupVectors * kLanes);
  }
}

// score[m, key] = sum over dimensions, in order, of q[m, dim] * k[dim, key].
template <int kQueries, int kGroups, typename T>
HWY_INLINE void ScoreTile(const SplitArgs& args, int query, int group) {
  const D d;
  constexpr int kVectors = kGroups * kGroupVectors;
  V sum[kQueries][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < kQueries; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::Zero(d);
  }
  const float* q = args.q + query * args.head_dim;
  const T* k[kGroups];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) k[g] = static_cast<const T*>(args.k_group[group + g]);
  [[maybe_unused]] V scale[kVectors];
  for (int dim = 0; dim < args.head_dim; ++dim) {
    if constexpr (kScaled<T>) {
      if (dim % kKvScaleDims == 0) LoadKeyScales<kGroups>(args, group, dim / kKvScaleDims, scale);
    }
    V key[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      key[v] = LoadKv(
          d, k[v / kGroupVectors] + size_t{1} * dim * args.k_stride + v % kGroupVectors * kLanes);
      if constexpr (kScaled<T>) key[v] = hn::Mul(key[v], scale[v]);
    }
#pragma GCC unroll 16
    for (int m = 0; m < kQueries; ++m) {
      const V broadcast = hn::Set(d, q[m * args.head_dim + dim]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::MulAdd(broadcast, key[v], sum[m][v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kQueries; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[m][v], d, args.score + (query + m) * kSplitKeys + group * 16 + v * kLanes);
    }
  }
}

template <int kQueries, typename T>
HWY_NOINLINE void ScoreQueries(const SplitArgs& args, int query) {
  const int groups = (args.limit[query + kQueries - 1] + 15) / 16;
  int group = args.begin[query] / 16;
  for (; group + kTileGroups <= groups; group += kTileGroups) {
    ScoreTile<kQueries, kTileGroups, T>(args, query, group);
  }
  for (; group < groups; ++group) ScoreTile<kQueries, 1, T>(args, query, group);
}

void CapScores(float cap, int count, float* score) {
  const D d;
  for (int key = 0; key < count; key += kLanes) {
    const V x = hn::Div(hn::LoadU(d, score + key), hn::Set(d, cap));
    hn::StoreU(hn::Mul(hn::Set(d, cap), Tanh(d, x)), d, score + key);
  }
}

// Scores of [begin, limit) become exp(score - max), the others of their groups 0.
HWY_NOINLINE void SoftmaxRow(int begin, int limit, float* score, float* max_out, float* sum_out) {
  const D d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const int first_group = begin / 16 * 16, last_group = (limit - 1) / 16 * 16;
  for (int key = first_group; key < begin; key += kLanes) {
    const auto unseen = hn::FirstN(d, std::clamp(begin - key, 0, kLanes));
    hn::StoreU(hn::IfThenElse(unseen, lowest, hn::LoadU(d, score + key)), d, score + key);
  }
  V max = lowest;
  for (int key = first_group; key < last_group; key += kLanes)
    max = hn::Max(max, hn::LoadU(d, score + key));
  for (int key = last_group; key < last_group + 16; key += kLanes) {
    const auto seen = hn::FirstN(d, std::clamp(limit - key, 0, kLanes));
    const V last = hn::IfThenElse(seen, hn::LoadU(d, score + key), lowest);
    hn::StoreU(last, d, score + key);
    max = hn::Max(max, last);
  }
  *max_out = hn::GetLane(hn::MaxOfLanes(d, max));
  max = hn::Set(d, *max_out);
  V sum[kGroupVectors];
  for (V& s : sum) s = hn::Zero(d);
  for (int key = first_group; key < limit; key += 16) {
#pragma GCC unroll 16
    for (int v = 0; v < kGroupVectors; ++v) {
      float* at = score + key + v * kLanes;
      const V e = ExpNonPositive(d, hn::Sub(hn::LoadU(d, at), max));
      hn::StoreU(e, d, at);
      sum[v] = hn::Add(sum[v], e);
    }
  }
  *sum_out = Sum16(d, sum);
}

// out[m, dims] += sum over keys [begin, end), in order, of weight[m, key] * value[key, dims]; to
// nothing where begin is 0.
template <int kQueries, int kVectors, typename T>
HWY_INLINE void ValueTile(const SplitArgs& args, int query, int dim, int begin, int end) {
  const D d;
  float* out = args.sums.out + size_t{1} * query * args.v_stride + dim;
  const float* weight = args.score + query * kSplitKeys;
  V sum[kQueries][kVectors];
#pragma GCC unroll 16
  for (int m = 0; m < kQueries; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      sum[m][v] = begin == 0 ? hn::Zero(d) : hn::LoadU(d, out + m * args.v_stride + v * kLanes);
    }
  }
  for (int key = begin; key < end;) {
    const T* value = static_cast<const T*>(args.v_group[key / 16]) +
                     size_t{1} * (key % 16) * args.v_stride + dim;
    const int group_end = std::min(end, key / 16 * 16 + 16);
    for (; key < group_end; ++key, value += args.v_stride) {
      V lanes[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        lanes[v] = LoadKv(d, value + v * kLanes);
        if constexpr (kScaled<T>) {
          const int index = key * args.v_scales + (dim + v * kLanes) / kKvScaleDims;
          lanes[v] = hn::Mul(lanes[v], hn::Set(d, args.v_scale_values[index]));
        }
      }
#pragma GCC unroll 16
      for (int m = 0; m < kQueries; ++m) {
        const V broadcast = hn::Set(d, weight[m * kSplitKeys + key]);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sum[m][v] = hn::MulAdd(broadcast, lanes[v], sum[m][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kQueries; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[m][v], d, out + m * args.v_stride + v * kLanes);
    }
  }
}

template <int kQueries, typename T>
HWY_NOINLINE void ValueKeys(const SplitArgs& args, int query, int begin, int end) {
  const int vectors = args.v_stride / kLanes;
  int v = 0;
  for (; v + kTileDims <= vectors; v += kTileDims) {
    ValueTile<kQueries, kTileDims, T>(args, query, v * kLanes, begin, end);
  }
  if constexpr (kTileDims > 2) {
    for (; v + 2 <= vectors; v += 2) {
      ValueTile<kQueries, 2, T>(args, query, v * kLanes, begin, end);
    }
  }
  for (; v < vectors; ++v) ValueTile<kQueries, 1, T>(args, query, v * kLanes, begin, end);
}

// Keys that all queries of the tile see are summed together; the rest of each query's on its own,
// in the same order. So no query ever multiplies a value that it must not see (0 * NaN).
template <int kQueries, typename T>
HWY_INLINE void AttendTile(const SplitArgs& args, int query) {
  ScoreQueries<kQueries, T>(args, query);
  const int* begin = args.begin + query;
  const int* limit = args.limit + query;
  for (int m = 0; m < kQueries; ++m) {
    if (args.soft_cap > 0) {
      const int first = begin[m] / 16 * 16;
      CapScores(args.soft_cap, (limit[m] + 15) / 16 * 16 - first,
                args.score + (query + m) * kSplitKeys + first);
    }
    SoftmaxRow(begin[m], limit[m], args.score + (query + m) * kSplitKeys, args.sums.max + query + m,
               args.sums.sum + query + m);
  }
  int common = 0;
  if (begin[kQueries - 1] > 0) {
    std::fill_n(args.sums.out + size_t{1} * query * args.v_stride, kQueries * args.v_stride, 0.0f);
    common = begin[kQueries - 1];
    for (int m = 0; m < kQueries; ++m) {
      const int end = std::min(common, limit[m]);
      if (begin[m] < end) ValueKeys<1, T>(args, query + m, begin[m], end);
    }
  }
  if (limit[0] > common) {
    ValueKeys<kQueries, T>(args, query, common, limit[0]);
    common = limit[0];
  }
  for (int m = 0; m < kQueries; ++m) {
    if (limit[m] > common) ValueKeys<1, T>(args, query + m, common, limit[m]);
  }
}

// The split's scales of values as f32.
struct ValueScales {
  HWY_ALIGN float value[kSplitKeys * KvShape::kMaxHeadDim / kKvScaleDims];

  explicit ValueScales(const SplitArgs& args) {
    const D d;
    const int groups = (args.limit[args.queries - 1] + 15) / 16, count = 16 * args.v_scales;
    for (int g = args.begin[0] / 16; g < groups; ++g) {
      const auto* from = static_cast<const uint16_t*>(args.v_scale[g]);
      for (int i = 0; i < count; i += kLanes) {
        hn::StoreU(LoadKv(d, from + i), d, value + g * count + i);
      }
    }
  }
};

template <typename T>
void AttendQueries(const SplitArgs& args) {
  int query = 0;
  for (; query + kTileQueries <= args.queries; query += kTileQueries) {
    AttendTile<kTileQueries, T>(args, query);
  }
  switch (args.queries - query) {
    case 5:
      AttendTile<5, T>(args, query);
      break;
    case 4:
      AttendTile<4, T>(args, query);
      break;
    case 3:
      AttendTile<3, T>(args, query);
      break;
    case 2:
      AttendTile<2, T>(args, query);
      break;
    case 1:
      AttendTile<1, T>(args, query);
      break;
    default:
      break;
  }
}

void AttendSplit(const SplitArgs& args) {
  if (args.kv_dtype == DType::kF16) {
    AttendQueries<uint16_t>(args);
  } else if (args.kv_dtype == DType::kBF16) {
    AttendQueries<hwy::bfloat16_t>(args);
  } else if (args.kv_dtype == DType::kF8_E4M3) {
    AttendQueries<uint8_t>(args);
  } else if (args.kv_dtype == DType::kQ8_0) {
    const ValueScales scales(args);
    SplitArgs with_scales = args;
    with_scales.v_scale_values = scales.value;
    AttendQueries<int8_t>(with_scales);
  } else {
    AttendQueries<float>(args);
  }
}

void MergeSums(int queries, int v_stride, const SoftmaxSums& later, const SoftmaxSums& total) {
  const D d;
  for (int m = 0; m < queries; ++m) {
    const V max = hn::Max(hn::Set(d, total.max[m]), hn::Set(d, later.max[m]));
    const V old_factor = ExpNonPositive(d, hn::Sub(hn::Set(d, total.max[m]), max));
    const V new_factor = ExpNonPositive(d, hn::Sub(hn::Set(d, later.max[m]), max));
    total.max[m] = hn::GetLane(max);
    total.sum[m] = hn::GetLane(hn::MulAdd(hn::Set(d, later.sum[m]), new_factor,
                                          hn::Mul(hn::Set(d, total.sum[m]), old_factor)));
    float* out = total.out + size_t{1} * m * v_stride;
    const float* add = later.out + size_t{1} * m * v_stride;
    for (int i = 0; i < v_stride; i += kLanes) {
      const V scaled = hn::Mul(hn::LoadU(d, out + i), old_factor);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, add + i), new_factor, scaled), d, out + i);
    }
  }
}

void FinishRow(const SoftmaxSums& sums, int query, int head_dim, int v_stride, float sink,
               float* out) {
  const D d;
  const float* in = sums.out + size_t{1} * query * v_stride;
  V factor = hn::Set(d, 1.0f), sum = hn::Set(d, sums.sum[query]);
  if (sink != -std::numeric_limits<float>::infinity()) {
    const V max = hn::Set(d, std::max(sums.max[query], sink));
    factor = ExpNonPositive(d, hn::Sub(hn::Set(d, sums.max[query]), max));
    sum = hn::MulAdd(sum, factor, ExpNonPositive(d, hn::Sub(hn::Set(d, sink), max)));
  }
  int i = 0;
  for (; i + kLanes <= head_dim; i += kLanes) {
    hn::StoreU(hn::Div(hn::Mul(hn::LoadU(d, in + i), factor), sum), d, out + i);
  }
  for (; i < head_dim; ++i) out[i] = in[i] * hn::GetLane(factor) / hn::GetLane(sum);
}

void Scale(const float* x, int n, float scale, float* out) {
  const D d;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale)), d, out + i);
  }
  for (; i < n; ++i) out[i] = x[i] * scale;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fairlead {

HWY_EXPORT(AttendSplit);
HWY_EXPORT(CapScores);
HWY_EXPORT(MergeSums);
HWY_EXPORT(FinishRow);
HWY_EXPORT(Scale);

void SimdAttendSplit(const SplitArgs& args) { HWY_DYNAMIC_DISPATCH(AttendSplit)(args); }

void SimdCapScores(float cap, int count, float* score) {
  HWY_DYNAMIC_DISPATCH(CapScores)(cap, count, score);
}

void SimdMergeSums(int queries, int v_stride, const SoftmaxSums& later, const SoftmaxSums& total) {
  HWY_DYNAMIC_DISPATCH(MergeSums)(queries, v_stride, later, total);
}

void SimdClearSums(int queries, int v_stride, const SoftmaxSums& sums) {
  std::fill_n(sums.max, queries, -std::numeric_limits<float>::infinity());
  std::fill_n(sums.sum, queries, 0.0f);
  std::fill_n(sums.out, int64_t{queries} * v_stride, 0.0f);
}

void SimdFinishRow(const SoftmaxSums& sums, int query, int head_dim, int v_stride, float sink,
                   float* out) {
  HWY_DYNAMIC_DISPATCH(FinishRow)(sums, query, head_dim, v_stride, sink, out);
}

void SimdScale(const float* x, int n, float scale, float* out) {
  HWY_DYNAMIC_DISPATCH(Scale)(x, n, scale, out);
}

}  // namespace fairlead
#endif  // HWY_ONCE
