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

// x / (1 + exp(-s)), with exp of -|s| only, which cannot overflow: 1 / (1 + e) for s >= 0 and
// e / (1 + e) below.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V TimesSigmoid(D d, V x, V s) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  const V e = ExpNonPositive(d, hn::Neg(hn::Abs(s)));
  const V numerator = hn::IfThenElse(hn::Ge(s, hn::Zero(d)), one, e);
  return hn::Mul(x, hn::Div(numerator, hn::Add(one, e)));
}

// (1 - e) / (1 + e) with e = exp(-2 |x|); below 1/4, where that would cancel, the Taylor series up
// to x^9, whose next term is less than 2^-26 of it.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Tanh(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  const V e = ExpNonPositive(d, hn::Mul(hn::Set(d, -2.0f), hn::Abs(x)));
  const V large = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
  const V square = hn::Mul(x, x);
  V p = hn::Set(d, 0.0218694885f);
  p = hn::MulAdd(p, square, hn::Set(d, -0.0539682540f));
  p = hn::MulAdd(p, square, hn::Set(d, 0.1333333333f));
  p = hn::MulAdd(p, square, hn::Set(d, -0.3333333333f));
  const V small = hn::MulAdd(hn::Mul(x, square), p, x);
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 0.25f)), small, large);
}

// (1 + tanh(u)) / 2 is the sigmoid of 2 u, so nothing cancels. 2 u = x (a + b x^2) with
// a = 2 sqrt(2 / pi) and b = 0.044715 a.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V GeluTanh(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V factor = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.0713548162f), hn::Set(d, 1.5957691216f));
  return TimesSigmoid(d, x, hn::Mul(x, factor));
}

// x times the normal distribution: P(x) = 1 - P(-x) for x >= 0, and below exp(-x^2 / 2) w q(z),
// with w = k / (k + |x|), z = 1 - 2 w and k = 4.25. q interpolates what it stands for at Chebyshev
// nodes of |x| <= 13.4, where exp is 0; its own relative error is 4e-9. Measured over every 1009th
// float: within 4.1 ulp from -4 on, and 33 below, as those of x^2 / 2 count in exp.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Gelu(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V one = hn::Set(d, 1.0f);
  const V k = hn::Set(d, 4.25f);
  const V w = hn::Div(k, hn::Add(hn::Abs(x), k));
  const V z = hn::MulAdd(hn::Set(d, -2.0f), w, one);
  V q = hn::Set(d, -5.629344907e-5f);
  q = hn::MulAdd(q, z, hn::Set(d, -8.830137671e-5f));
  q = hn::MulAdd(q, z, hn::Set(d, 5.130606869e-4f));
  q = hn::MulAdd(q, z, hn::Set(d, -1.756488301e-4f));
  q = hn::MulAdd(q, z, hn::Set(d, -4.556293700e-3f));
  q = hn::MulAdd(q, z, hn::Set(d, 2.006390553e-2f));
  q = hn::MulAdd(q, z, hn::Set(d, -5.188603651e-2f));
  q = hn::MulAdd(q, z, hn::Set(d, 9.840648517e-2f));
  q = hn::MulAdd(q, z, hn::Set(d, -1.470893601e-1f));
  q = hn::MulAdd(q, z, hn::Set(d, 1.787186372e-1f));
  const V e = ExpNonPositive(d, hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5f)));
  const V tail = hn::Mul(e, hn::Mul(q, w));
  return hn::Mul(x, hn::IfThenElse(hn::Ge(x, hn::Zero(d)), hn::Sub(one, tail), tail));
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
