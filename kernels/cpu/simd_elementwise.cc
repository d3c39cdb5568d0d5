// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/simd_targets.h"
//
#include "kernels/cpu/simd_elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "kernels/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd_elementwise.cc"
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
constexpr int kQ8Block = 32;
constexpr uint16_t kF16NaN = 0x7e00;

// The last, incomplete vector of a row goes through a copy, so that nothing outside it is touched.
HWY_INLINE V LoadTail(D d, const float* p, int n) {
  HWY_ALIGN float lanes[kLanes] = {};
  std::memcpy(lanes, p, n * sizeof(float));
  return hn::Load(d, lanes);
}
HWY_INLINE V LoadUpTo(D d, const float* p, int n) {
  return n == kLanes ? hn::LoadU(d, p) : LoadTail(d, p, n);
}
HWY_INLINE void StoreTail(D d, V v, float* p, int n) {
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, d, lanes);
  std::memcpy(p, lanes, n * sizeof(float));
}

// 16 sums of every 16th square, whatever the width of a vector: the order depends on n alone.
float SumOfSquares(const float* x, int n) {
  const D d;
  constexpr int kVectors = 16 / kLanes;
  V sum[kVectors];
  for (V& s : sum) s = hn::Zero(d);
  int i = 0;
  for (; i + 16 <= n; i += 16) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const V y = hn::LoadU(d, x + i + v * kLanes);
      sum[v] = hn::MulAdd(y, y, sum[v]);
    }
  }
  if (i < n) {
    HWY_ALIGN float tail[16] = {};
    std::memcpy(tail, x + i, (n - i) * sizeof(float));
    for (int v = 0; v < kVectors; ++v) {
      const V y = hn::Load(d, tail + v * kLanes);
      sum[v] = hn::MulAdd(y, y, sum[v]);
    }
  }
  return Sum16(d, sum);
}

// 16 sums alike, of the differences from `mean` or of their squares.
template <bool kSquares>
HWY_INLINE float SumOfDifferences(const float* x, int n, float mean) {
  const D d;
  constexpr int kVectors = 16 / kLanes;
  V sum[kVectors];
  for (V& s : sum) s = hn::Zero(d);
  for (int i = 0; i < n; i += 16) {
    HWY_ALIGN float tail[16];
    const float* from = x + i;
    if (n - i < 16) {
      std::fill(std::begin(tail), std::end(tail), mean);
      std::memcpy(tail, from, (n - i) * sizeof(float));
      from = tail;
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const V y = hn::Sub(hn::LoadU(d, from + v * kLanes), hn::Set(d, mean));
      sum[v] = kSquares ? hn::MulAdd(y, y, sum[v]) : hn::Add(sum[v], y);
    }
  }
  return Sum16(d, sum);
}

template <bool kAdd>
HWY_INLINE void RmsNorm(const float* x, const float* weight, int n, float epsilon, float* out) {
  const D d;
  const float factor = 1.0f / std::sqrt(SumOfSquares(x, n) / static_cast<float>(n) + epsilon);
  const V scale = hn::Set(d, factor);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V y = hn::Mul(hn::Mul(hn::LoadU(d, x + i), scale), hn::LoadU(d, weight + i));
    hn::StoreU(kAdd ? hn::Add(hn::LoadU(d, out + i), y) : y, d, out + i);
  }
  for (; i < n; ++i) {
    const float y = x[i] * factor * weight[i];
    out[i] = kAdd ? out[i] + y : y;
  }
}

void RmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out) {
  RmsNorm<false>(x, weight, n, epsilon, out);
}

void AddRmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out) {
  RmsNorm<true>(x, weight, n, epsilon, out);
}

void LayerNormRow(const float* x, const float* weight, const float* bias, int n, float epsilon,
                  float* out) {
  const D d;
  const auto count = static_cast<float>(n);
  const float mean = SumOfDifferences<false>(x, n, 0.0f) / count;
  const float factor = 1.0f / std::sqrt(SumOfDifferences<true>(x, n, mean) / count + epsilon);
  for (int i = 0; i < n; i += kLanes) {
    const int lanes = std::min(kLanes, n - i);
    V y = hn::Mul(hn::Sub(LoadUpTo(d, x + i, lanes), hn::Set(d, mean)), hn::Set(d, factor));
    if (weight != nullptr) y = hn::Mul(y, LoadUpTo(d, weight + i, lanes));
    if (bias != nullptr) y = hn::Add(y, LoadUpTo(d, bias + i, lanes));
    if (lanes == kLanes) {
      hn::StoreU(y, d, out + i);
    } else {
      StoreTail(d, y, out + i, lanes);
    }
  }
}

void AddRow(const float* x, int n, float* sum) {
  const D d;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, sum + i), hn::LoadU(d, x + i)), d, sum + i);
  }
  for (; i < n; ++i) sum[i] += x[i];
}

void NormalizeRow(float* x, int n, float least) {
  const D d;
  const float norm = std::sqrt(SumOfSquares(x, n));
  const float divisor = norm < least ? least : norm;  // NaN stays
  const V divisors = hn::Set(d, divisor);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Div(hn::LoadU(d, x + i), divisors), d, x + i);
  }
  for (; i < n; ++i) x[i] /= divisor;
}

// What is not a number stays so, whatever the instruction's minimum makes of it.
HWY_INLINE V AtMost(D d, V x, float limit) {
  const V most = hn::Set(d, limit);
  return hn::IfThenElse(hn::Gt(x, most), most, x);
}

template <Activation kActivation>
HWY_INLINE V ActivatedProduct(D d, V gate, V up, float limit) {
  if constexpr (kActivation == Activation::kSilu) return hn::Mul(TimesSigmoid(d, gate, gate), up);
  if constexpr (kActivation == Activation::kGeluTanh) return hn::Mul(GeluTanh(d, gate), up);
  if constexpr (kActivation == Activation::kGelu) return hn::Mul(Gelu(d, gate), up);
  if constexpr (kActivation == Activation::kClampedSilu) {
    gate = AtMost(d, gate, limit);
    up = hn::Neg(AtMost(d, hn::Neg(AtMost(d, up, limit)), limit));
    const V activated = TimesSigmoid(d, gate, hn::Mul(gate, hn::Set(d, 1.702f)));
    return hn::Mul(activated, hn::Add(up, hn::Set(d, 1.0f)));
  }
}

// Without `up` it is 1, which changes no bit.
template <Activation kActivation>
HWY_INLINE void ActivateAndMul(float limit, const float* gate, const float* up, int n, float* out) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V x = hn::LoadU(d, gate + i), y = up == nullptr ? one : hn::LoadU(d, up + i);
    hn::StoreU(ActivatedProduct<kActivation>(d, x, y, limit), d, out + i);
  }
  if (i < n) {
    const V x = LoadTail(d, gate + i, n - i), y = up == nullptr ? one : LoadTail(d, up + i, n - i);
    StoreTail(d, ActivatedProduct<kActivation>(d, x, y, limit), out + i, n - i);
  }
}

void ActivateAndMulRow(Activation activation, float limit, const float* gate, const float* up,
                       int n, float* out) {
  switch (activation) {
    case Activation::kSilu:
      return ActivateAndMul<Activation::kSilu>(limit, gate, up, n, out);
    case Activation::kGeluTanh:
      return ActivateAndMul<Activation::kGeluTanh>(limit, gate, up, n, out);
    case Activation::kGelu:
      return ActivateAndMul<Activation::kGelu>(limit, gate, up, n, out);
    case Activation::kClampedSilu:
      return ActivateAndMul<Activation::kClampedSilu>(limit, gate, up, n, out);
  }
}

void SigmoidRow(const float* x, int n, float* out) {
  const D d;
  const V one = hn::Set(d, 1.0f);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(TimesSigmoid(d, one, hn::LoadU(d, x + i)), d, out + i);
  }
  if (i < n) StoreTail(d, TimesSigmoid(d, one, LoadTail(d, x + i, n - i)), out + i, n - i);
}

HWY_INLINE V Scaled(D d, V x, float factor, float soft_cap) {
  const V y = hn::Mul(x, hn::Set(d, factor));
  if (soft_cap == 0) return y;
  const V cap = hn::Set(d, soft_cap);
  return hn::Mul(cap, Tanh(d, hn::Div(y, cap)));
}

void ScaleRow(float factor, float soft_cap, int n, float* x) {
  const D d;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(Scaled(d, hn::LoadU(d, x + i), factor, soft_cap), d, x + i);
  }
  if (i < n) {
    StoreTail(d, Scaled(d, LoadTail(d, x + i, n - i), factor, soft_cap), x + i, n - i);
  }
}

// (a, b) -> (a cos - b sin, a sin + b cos).
HWY_INLINE void RotatePairs(V cos, V sin, V& a, V& b) {
  const V rotated = hn::NegMulAdd(b, sin, hn::Mul(a, cos));
  b = hn::MulAdd(a, sin, hn::Mul(b, cos));
  a = rotated;
}

void RotateHalves(const float* x, const float* cos_sin, int half, float* out) {
  const D d;
  int i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    V a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
    RotatePairs(hn::LoadU(d, cos_sin + i), hn::LoadU(d, cos_sin + half + i), a, b);
    hn::StoreU(a, d, out + i);
    hn::StoreU(b, d, out + half + i);
  }
  if (i < half) {
    const int n = half - i;
    V a = LoadTail(d, x + i, n), b = LoadTail(d, x + half + i, n);
    RotatePairs(LoadTail(d, cos_sin + i, n), LoadTail(d, cos_sin + half + i, n), a, b);
    StoreTail(d, a, out + i, n);
    StoreTail(d, b, out + half + i, n);
  }
}

void RotateAdjacent(const float* x, const float* cos_sin, int half, float* out) {
  const D d;
  for (int i = 0; i < half; i += kLanes) {
    const int n = std::min(half - i, kLanes);
    HWY_ALIGN float pairs[2 * kLanes] = {};
    const float* in = x + 2 * i;
    if (n < kLanes) {
      std::memcpy(pairs, in, 2 * n * sizeof(float));
      in = pairs;
    }
    V a, b;
    hn::LoadInterleaved2(d, in, a, b);
    const V cos = n == kLanes ? hn::LoadU(d, cos_sin + i) : LoadTail(d, cos_sin + i, n);
    const V sin =
        n == kLanes ? hn::LoadU(d, cos_sin + half + i) : LoadTail(d, cos_sin + half + i, n);
    RotatePairs(cos, sin, a, b);
    if (n == kLanes) {
      hn::StoreInterleaved2(a, b, d, out + 2 * i);
    } else {
      hn::StoreInterleaved2(a, b, d, pairs);
      std::memcpy(out + 2 * i, pairs, 2 * n * sizeof(float));
    }
  }
}

void RopeRow(const RopeRowArgs& args) {
  const int half = args.rotary_dim / 2;
  for (int head = 0; head < args.heads; ++head) {
    const float* x = args.x + head * args.head_dim;
    float* out = args.out + head * args.head_dim;
    if (args.pairing == RopePairing::kHalves) {
      RotateHalves(x, args.cos_sin, half, out);
    } else {
      RotateAdjacent(x, args.cos_sin, half, out);
    }
    if (out != x) {
      std::copy(x + args.rotary_dim, x + args.head_dim, out + args.rotary_dim);
    }
  }
}

void StoreF16(const float* x, int n, int64_t stride, uint16_t* out) {
  int i = 0;
// Older instruction sets have no conversion that rounds, so they take the scalar one below.
#if HWY_TARGET <= HWY_AVX2 || HWY_ARCH_ARM_A64
  const D d;
  const hn::Rebind<hwy::float16_t, D> dh;
  for (; i + kLanes <= n; i += kLanes) {
    const auto half = hn::DemoteTo(dh, hn::LoadU(d, x + i));
    if (stride == 1) {
      hn::StoreU(half, dh, reinterpret_cast<hwy::float16_t*>(out + i));
      continue;
    }
    HWY_ALIGN hwy::float16_t lanes[kLanes];
    hn::Store(half, dh, lanes);
    for (int j = 0; j < kLanes; ++j) std::memcpy(out + (i + j) * stride, lanes + j, 2);
  }
#endif
  for (; i < n; ++i) out[i * stride] = F32ToF16(x[i]);
}

void StoreQ8(const float* x, int n, int64_t stride, int8_t* out, int64_t scale_stride,
             uint16_t* scale) {
  const D d;
  const hn::Rebind<int8_t, D> d8;
  for (int begin = 0; begin < n; begin += kQ8Block, scale += scale_stride) {
    HWY_ALIGN float block[kQ8Block] = {};
    std::copy(x + begin, x + std::min(begin + kQ8Block, n), block);
    float largest = 0;
    bool finite = true;
    for (const float value : block) {
      finite = finite && std::abs(value) <= std::numeric_limits<float>::max();
      largest = std::max(largest, std::abs(value));
    }
    const uint16_t bits = finite ? F32ToF16(largest / 127) : kF16NaN;
    *scale = bits;
    const bool zero = !finite || (bits & 0x7fff) == 0;
    const V factor = hn::Set(d, zero ? 0.0f : 1 / F16ToF32(bits));
    HWY_ALIGN int8_t integers[kQ8Block] = {};
    for (int i = 0; i < kQ8Block && !zero; i += kLanes) {
      const auto rounded = hn::NearestInt(hn::Mul(hn::Load(d, block + i), factor));
      hn::Store(hn::DemoteTo(d8, rounded), d8, integers + i);
    }
    for (int i = begin; i < std::min(begin + kQ8Block, n); ++i) {
      out[i * stride] = integers[i - begin];
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fairlead {

HWY_EXPORT(RmsNormRow);
HWY_EXPORT(AddRmsNormRow);
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(ActivateAndMulRow);
HWY_EXPORT(SigmoidRow);
HWY_EXPORT(ScaleRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(NormalizeRow);
HWY_EXPORT(RopeRow);
HWY_EXPORT(StoreF16);
HWY_EXPORT(StoreQ8);

void SimdRmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormRow)(x, weight, n, epsilon, out);
}

void SimdAddRmsNormRow(const float* x, const float* weight, int n, float epsilon, float* out) {
  HWY_DYNAMIC_DISPATCH(AddRmsNormRow)(x, weight, n, epsilon, out);
}

void SimdLayerNormRow(const float* x, const float* weight, const float* bias, int n, float epsilon,
                      float* out) {
  HWY_DYNAMIC_DISPATCH(LayerNormRow)(x, weight, bias, n, epsilon, out);
}

void SimdActivateAndMulRow(Activation activation, float limit, const float* gate, const float* up,
                           int n, float* out) {
  HWY_DYNAMIC_DISPATCH(ActivateAndMulRow)(activation, limit, gate, up, n, out);
}

void SimdSigmoidRow(const float* x, int n, float* out) {
  HWY_DYNAMIC_DISPATCH(SigmoidRow)(x, n, out);
}

void SimdScaleRow(float factor, float soft_cap, int n, float* x) {
  HWY_DYNAMIC_DISPATCH(ScaleRow)(factor, soft_cap, n, x);
}

void SimdAddRow(const float* x, int n, float* sum) { HWY_DYNAMIC_DISPATCH(AddRow)(x, n, sum); }

void SimdNormalizeRow(float* x, int n, float least) {
  HWY_DYNAMIC_DISPATCH(NormalizeRow)(x, n, least);
}

void SimdRopeRow(const RopeRowArgs& args) { HWY_DYNAMIC_DISPATCH(RopeRow)(args); }

void SimdStoreF16(const float* x, int n, int64_t stride, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(StoreF16)(x, n, stride, out);
}

void SimdStoreQ8(const float* x, int n, int64_t stride, int8_t* out, int64_t scale_stride,
                 uint16_t* scale) {
  HWY_DYNAMIC_DISPATCH(StoreQ8)(x, n, stride, out, scale_stride, scale);
}

void SimdStoreF32(const float* x, int n, int64_t stride, float* out) {
  for (int i = 0; i < n; ++i) out[i * stride] = x[i];
}

}  // namespace fairlead
#endif  // HWY_ONCE
