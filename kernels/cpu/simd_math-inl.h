// SPDX-License-Identifier: Apache-2.0
// Arithmetic that several simd_*.cc files share. Included once per instruction set, hence no
// #pragma once.
#if defined(FAIRLEAD_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FAIRLEAD_SIMD_MATH_INL_H_
#undef FAIRLEAD_SIMD_MATH_INL_H_
#else
#define FAIRLEAD_SIMD_MATH_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fairlead {
namespace HWY_NAMESPACE {

// exp for arguments that are not positive: softmax weights and sigmoids.
// x = n ln 2 + r with |r| <= ln 2 / 2, and exp(x) = 2^n (1 + r + r^2 p(r)). p interpolates
// (exp(r) - 1 - r) / r^2 at Chebyshev nodes; its own relative error is 1e-8. Measured over every
// 7th float: at most 1.06 ulp (simd_exp_test). exp(0) is exactly 1, exp(-infinity) is 0, NaN stays
// NaN, and below -87.33, where the result would not be a normal number, it is 0.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V ExpNonPositive(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<int32_t, D> di;
  // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the float.
  const V shifter = hn::Set(d, 12582912.0f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shifter);
  const V n = hn::Sub(shifted, shifter);
  // ln 2 in two parts: n times the first, of 10 bits, is exact.
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.392637600e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 8.363333082e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.166655346e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.666657606e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  const V y = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto exponent =
      hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 0x3f800000));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33f)), hn::Mul(y, hn::BitCast(d, exponent)));
}

// The sum of 16 lanes, held in 16 / Lanes vectors: always the same tree, so that instruction sets
// of different widths give the same bits.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE float Sum16(D d, const V* vectors) {
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  HWY_ALIGN float lane[16];
  for (int i = 0; i < 16; i += kLanes) hn::Store(vectors[i / kLanes], d, lane + i);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#endif
