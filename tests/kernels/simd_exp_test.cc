// SPDX-License-Identifier: Apache-2.0
// The exponential of all softmaxes and sigmoids, against the C library's in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cpu/simd_sampling.h"
#include "tests/kernels/simd_targets_for_test.h"

namespace fairlead {
namespace {

std::vector<float> Exp(const std::vector<float>& x) {
  std::vector<float> out(x.size());
  SimdWeights(x.data(), static_cast<int>(x.size()), 0.0f, 1.0f, out.data());
  return out;
}

// Distance from the exact value in units of the result's last place.
double UlpError(float got, double exact) {
  const double ulp = std::ldexp(1.0, std::ilogb(static_cast<float>(exact)) - 23);
  return std::abs(got - exact) / ulp;
}

TEST(SimdExp, WithinAboutOneUlp) {
  ForEachSimdTarget([] {
    double worst = 0;
    std::vector<float> x;
    const uint32_t last = std::bit_cast<uint32_t>(-87.33f);
    for (uint32_t bits = std::bit_cast<uint32_t>(-0.0f); bits <= last; bits += 997) {
      x.push_back(std::bit_cast<float>(bits));
      if (x.size() < 4099 && bits + 997 <= last) continue;
      const std::vector<float> got = Exp(x);
      for (size_t i = 0; i < x.size(); ++i) {
        const double error = UlpError(got[i], std::exp(double{x[i]}));
        ASSERT_FALSE(std::isnan(error)) << x[i];
        worst = std::max(worst, error);
      }
      x.clear();
    }
    EXPECT_LE(worst, 1.1);  // the largest of every 7th float is 1.053
    EXPECT_GT(worst, 0.5);  // no float result is always better than half: the comparison works
    testing::Test::RecordProperty("worst_ulp_x1000", static_cast<int>(worst * 1000));
  });
}

TEST(SimdExp, SpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  ForEachSimdTarget([&] {
    for (const int size : {1, 16, 19}) {  // whole vectors and tails
      for (const float zero : {0.0f, -0.0f}) {
        for (const float y : Exp(std::vector<float>(size, zero))) EXPECT_EQ(y, 1.0f);
      }
      for (const float x : {-88.0f, -1e30f, -infinity}) {
        for (const float y : Exp(std::vector<float>(size, x))) EXPECT_EQ(y, 0.0f);
      }
      for (const float y : Exp(std::vector<float>(size, std::nanf("")))) {
        EXPECT_TRUE(std::isnan(y));
      }
    }
  });
}

// A comparator that cannot fail proves nothing.
TEST(SimdExp, UlpErrorSeesWrongValues) {
  EXPECT_EQ(UlpError(1.0f, 1.0), 0.0);
  EXPECT_EQ(UlpError(std::nextafter(1.0f, 2.0f), 1.0), 1.0);
  EXPECT_EQ(UlpError(0.5f - 0x1p-24f, 0.5), 1.0);
  EXPECT_FALSE(UlpError(std::nanf(""), 1.0) <= 1.0);
}

}  // namespace
}  // namespace fairlead
