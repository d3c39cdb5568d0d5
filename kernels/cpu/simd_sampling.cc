// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/simd_targets.h"
//
#include "kernels/cpu/simd_sampling.h"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd_sampling.cc"
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
using DI = hn::Rebind<int32_t, D>;
using DD = hn::Repartition<double, D>;
using V = hn::Vec<D>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A vector of x[i...]; lanes at or after n are `pad`.
HWY_INLINE V LoadPadded(D d, const float* x, int i, int n, float pad) {
  if (i + kLanes <= n) return hn::LoadU(d, x + i);
  HWY_ALIGN float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, pad);
  std::memcpy(lanes, x + i, (n - i) * sizeof(float));
  return hn::Load(d, lanes);
}

void CopyAllowed(const float* logit, const uint32_t* allowed, int n, float* out) {
  const D d;
  const DI di;
  HWY_ALIGN int32_t lane_bits[kLanes];
  for (int i = 0; i < kLanes; ++i) lane_bits[i] = 1 << i;
  const auto bit = hn::Load(di, lane_bits);
  const V lowest = hn::Set(d, -kInfinity);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto bits = hn::Set(di, static_cast<int32_t>(allowed[i / 32] >> i % 32));
    const auto keep = hn::RebindMask(d, hn::TestBit(bits, bit));
    hn::StoreU(hn::IfThenElse(keep, hn::LoadU(d, logit + i), lowest), d, out + i);
  }
  for (; i < n; ++i) out[i] = (allowed[i / 32] >> i % 32 & 1) != 0 ? logit[i] : -kInfinity;
}

bool ScanLogits(const float* logit, int n, float* max, float* chunk_max) {
  const D d;
  const V infinity = hn::Set(d, kInfinity);
  const V lowest = hn::Set(d, -kInfinity);
  auto all_below = hn::Eq(lowest, lowest);
  float row_max = -kInfinity;
  for (int begin = 0, chunk = 0; begin < n; begin += kLogitChunk, ++chunk) {
    const int end = std::min(n, begin + kLogitChunk);
    V best = lowest;
    for (int i = begin; i < end; i += kLanes) {
      const V x = LoadPadded(d, logit, i, end, -kInfinity);
      all_below = hn::And(all_below, hn::Lt(x, infinity));  // false for NaN
      best = hn::Max(best, x);
    }
    chunk_max[chunk] = hn::GetLane(hn::MaxOfLanes(d, best));
    row_max = std::max(row_max, chunk_max[chunk]);
  }
  *max = row_max;
  return hn::AllTrue(d, all_below) && row_max > -kInfinity;
}

CountAbove Count(const float* x, int n, float threshold) {
  const D d;
  const V t = hn::Set(d, threshold);
  CountAbove count = {0, 0};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V v = hn::LoadU(d, x + i);
    count.greater += static_cast<int>(hn::CountTrue(d, hn::Gt(v, t)));
    count.equal += static_cast<int>(hn::CountTrue(d, hn::Eq(v, t)));
  }
  for (; i < n; ++i) {
    count.greater += x[i] > threshold;
    count.equal += x[i] == threshold;
  }
  return count;
}

int Select(const float* key, const float* logit, const int32_t* id, int n, float threshold,
           float* out_logit, int32_t* out_id) {
  const D d;
  const DI di;
  const V t = hn::Set(d, threshold);
  int selected = 0;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto keep = hn::Ge(hn::LoadU(d, key + i), t);
    if (hn::AllFalse(d, keep)) continue;
    // Both are loaded before either is stored: the outputs may be the inputs.
    const V x = hn::LoadU(d, logit + i);
    const auto ids = id == nullptr ? hn::Iota(di, i) : hn::LoadU(di, id + i);
    hn::CompressStore(ids, hn::RebindMask(di, keep), di, out_id + selected);
    selected += static_cast<int>(hn::CompressStore(x, keep, d, out_logit + selected));
  }
  for (; i < n; ++i) {
    if (!(key[i] >= threshold)) continue;
    const float x = logit[i];
    out_id[selected] = id == nullptr ? i : id[i];
    out_logit[selected++] = x;
  }
  return selected;
}

void Weights(const float* logit, int n, float max, float temperature, float* out) {
  const D d;
  const V m = hn::Set(d, max);
  const V t = hn::Set(d, temperature);
  for (int i = 0; i < n; i += kLanes) {
    const V x = LoadPadded(d, logit, i, n, -kInfinity);
    const V w = ExpNonPositive(d, hn::Div(hn::Sub(x, m), t));
    if (i + kLanes <= n) {
      hn::StoreU(w, d, out + i);
    } else {
      HWY_ALIGN float lanes[kLanes];
      hn::Store(w, d, lanes);
      std::memcpy(out + i, lanes, (n - i) * sizeof(float));
    }
  }
}

using VD = hn::Vec<DD>;

// Adds a vector of floats to two vectors of doubles.
HWY_INLINE void AddTo(V x, VD& low, VD& high) {
  const DD dd;
  const hn::Half<D> dh;
  low = hn::Add(low, hn::PromoteTo(dd, hn::LowerHalf(dh, x)));
  high = hn::Add(high, hn::PromoteTo(dd, hn::UpperHalf(dh, x)));
}
HWY_INLINE double Total(VD low, VD high) {
  const DD dd;
  return hn::GetLane(hn::SumOfLanes(dd, hn::Add(low, high)));
}

double Sum(const float* x, int n) {
  const D d;
  VD low = hn::Zero(DD()), high = hn::Zero(DD());
  for (int i = 0; i < n; i += kLanes) AddTo(LoadPadded(d, x, i, n, 0.0f), low, high);
  return Total(low, high);
}

double SumAtLeast(const float* key, const float* x, int n, float threshold) {
  const D d;
  const V t = hn::Set(d, threshold);
  VD low = hn::Zero(DD()), high = hn::Zero(DD());
  for (int i = 0; i < n; i += kLanes) {
    const auto keep = hn::Ge(LoadPadded(d, key, i, n, -kInfinity), t);
    AddTo(hn::IfThenElseZero(keep, LoadPadded(d, x, i, n, 0.0f)), low, high);
  }
  return Total(low, high);
}

double SumExp(const float* logit, int n, float max) {
  const D d;
  const V m = hn::Set(d, max);
  VD low = hn::Zero(DD()), high = hn::Zero(DD());
  for (int i = 0; i < n; i += kLanes) {
    const V x = LoadPadded(d, logit, i, n, -kInfinity);
    AddTo(ExpNonPositive(d, hn::Sub(x, m)), low, high);
  }
  return Total(low, high);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fairlead {

HWY_EXPORT(CopyAllowed);
HWY_EXPORT(ScanLogits);
HWY_EXPORT(Count);
HWY_EXPORT(Select);
HWY_EXPORT(Weights);
HWY_EXPORT(Sum);
HWY_EXPORT(SumAtLeast);
HWY_EXPORT(SumExp);

void SimdCopyAllowed(const float* logit, const uint32_t* allowed, int n, float* out) {
  HWY_DYNAMIC_DISPATCH(CopyAllowed)(logit, allowed, n, out);
}

bool SimdScanLogits(const float* logit, int n, float* max, float* chunk_max) {
  return HWY_DYNAMIC_DISPATCH(ScanLogits)(logit, n, max, chunk_max);
}

CountAbove SimdCountAbove(const float* x, int n, float threshold) {
  return HWY_DYNAMIC_DISPATCH(Count)(x, n, threshold);
}

int SimdSelect(const float* key, const float* logit, const int32_t* id, int n, float threshold,
               float* out_logit, int32_t* out_id) {
  return HWY_DYNAMIC_DISPATCH(Select)(key, logit, id, n, threshold, out_logit, out_id);
}

void SimdWeights(const float* logit, int n, float max, float temperature, float* out) {
  HWY_DYNAMIC_DISPATCH(Weights)(logit, n, max, temperature, out);
}

double SimdSum(const float* x, int n) { return HWY_DYNAMIC_DISPATCH(Sum)(x, n); }

double SimdSumAtLeast(const float* key, const float* x, int n, float threshold) {
  return HWY_DYNAMIC_DISPATCH(SumAtLeast)(key, x, n, threshold);
}

double SimdSumExp(const float* logit, int n, float max) {
  return HWY_DYNAMIC_DISPATCH(SumExp)(logit, n, max);
}

}  // namespace fairlead
#endif  // HWY_ONCE
