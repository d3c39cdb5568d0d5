// SPDX-License-Identifier: Apache-2.0
// A comparator that accepts a wrong value hides every bug behind it, so each is fed wrong values of
// every kind.
#include "tests/kernels/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fairlead {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool Accepts(const std::vector<float>& got, const std::vector<float>& want, double max_error,
             double max_nmse = 0) {
  return CompareFloats(got, want, {std::vector<double>(want.size(), max_error), max_nmse}).empty();
}

TEST(CompareFloats, AcceptsValuesWithinTheBound) {
  EXPECT_TRUE(Accepts({1, -2, 0}, {1, -2, 0}, 0));
  EXPECT_TRUE(Accepts({1.0625f, -2.0625f, 0.0625f}, {1, -2, 0}, 0.0625));
  EXPECT_TRUE(Accepts({}, {}, 0));
  EXPECT_TRUE(Accepts({0.0f}, {-0.0f}, 0));
}

TEST(CompareFloats, RejectsAWrongValueOfEachSignAtEachPlace) {
  for (const float want : {5.0f, -5.0f, 0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f}) {
    for (const float wrong : {9.0f, -9.0f, 1e-3f, -1e-3f, -want + 0.5f, want * 2 + 1e-10f}) {
      if (wrong == want) continue;
      const double half_the_gap = std::fabs(double{wrong} - want) / 2;
      for (size_t place = 0; place < 3; ++place) {
        std::vector<float> got(3, want);
        got[place] = wrong;
        EXPECT_FALSE(Accepts(got, std::vector<float>(3, want), half_the_gap))
            << wrong << " for " << want << " at " << place;
      }
    }
  }
}

TEST(CompareFloats, RejectsNaNAndInfinity) {
  for (const float want : {5.0f, -5.0f, 0.0f}) {
    for (const float wrong : {kNaN, -kNaN, kInfinity, -kInfinity}) {
      EXPECT_FALSE(Accepts({wrong}, {want}, 1e30)) << wrong;
      EXPECT_FALSE(Accepts({want}, {wrong}, 1e30)) << wrong;
    }
  }
  EXPECT_FALSE(Accepts({kInfinity}, {-kInfinity}, 1e30));
  EXPECT_FALSE(Accepts({kNaN}, {kInfinity}, 1e30));
  EXPECT_TRUE(Accepts({kInfinity, -kInfinity, kNaN}, {kInfinity, -kInfinity, kNaN}, 0));
}

TEST(CompareFloats, RejectsSwappedRows) {
  EXPECT_FALSE(Accepts({3, 4, 1, 2}, {1, 2, 3, 4}, 0.5));
  EXPECT_FALSE(Accepts({-3, -4, -1, -2}, {-1, -2, -3, -4}, 0.5));
}

TEST(CompareFloats, RejectsAnotherCount) {
  EXPECT_FALSE(Accepts({1, 2}, {1, 2, 3}, 1));
  EXPECT_FALSE(Accepts({1, 2, 3}, {1, 2}, 1));
  EXPECT_FALSE(Accepts({}, {1}, 1));
  EXPECT_NE(CompareFloats({{1.0f, 2.0f}}, {{1.0f, 2.0f}}, {{1.0}, 0}), "") << "a bound is missing";
}

TEST(CompareFloats, NmseSeesManySmallErrors) {
  std::vector<float> want(1000), got(1000);
  for (int i = 0; i < 1000; ++i) {
    want[i] = i % 2 == 0 ? 1.0f : -1.0f;
    got[i] = want[i] + (i % 4 < 2 ? 0.01f : -0.01f);
  }
  EXPECT_TRUE(Accepts(got, want, 0.02));
  EXPECT_TRUE(Accepts(got, want, 0.02, 2e-4));
  EXPECT_FALSE(Accepts(got, want, 0.02, 5e-5));
}

TEST(CompareFloats, NmseOfZerosAcceptsOnlyZeros) {
  const std::vector<float> zeros(100, 0.0f);
  EXPECT_TRUE(Accepts(zeros, zeros, 1, 1e-3));
  EXPECT_FALSE(Accepts(std::vector<float>(100, 1e-10f), zeros, 1, 1e-3));
}

TEST(CompareFloats, AnInfiniteBoundSkipsOnlyItsElement) {
  const FloatBound bound = {{0, std::numeric_limits<double>::infinity(), 0}, 0};
  EXPECT_EQ(CompareFloats({{1.0f, kNaN, 3.0f}}, {{1.0f, 2.0f, 3.0f}}, bound), "");
  EXPECT_NE(CompareFloats({{1.0f, 2.0f, 4.0f}}, {{1.0f, 2.0f, 3.0f}}, bound), "");
}

TEST(CompareInts, RejectsWrongValuesSwapsAndCounts) {
  EXPECT_EQ(CompareInts({{1, -2, 3}}, {{1, -2, 3}}), "");
  EXPECT_NE(CompareInts({{1, 2, 3}}, {{1, -2, 3}}), "");
  EXPECT_NE(CompareInts({{-1, -2, 3}}, {{1, -2, 3}}), "");
  EXPECT_NE(CompareInts({{-2, 1, 3}}, {{1, -2, 3}}), "");
  EXPECT_NE(CompareInts({{1, -2}}, {{1, -2, 3}}), "");
}

TEST(CompareChoices, AcceptsOnlyWhatIsAllowedAtThatPlace) {
  const std::vector<std::vector<int32_t>> allowed = {{1, 2}, {-1}};
  EXPECT_EQ(CompareChoices({{2, -1}}, allowed), "");
  EXPECT_NE(CompareChoices({{-1, 2}}, allowed), "");
  EXPECT_NE(CompareChoices({{3, -1}}, allowed), "");
  EXPECT_NE(CompareChoices({{1}}, allowed), "");
}

TEST(CompareBytes, NamesTheFirstByteThatDiffers) {
  const std::vector<std::byte> a = {std::byte{1}, std::byte{2}, std::byte{3}};
  std::vector<std::byte> b = a;
  EXPECT_EQ(CompareBytes(a, b), "");
  b[2] = std::byte{255};
  EXPECT_EQ(CompareBytes(a, b), "byte 2 is 3, expected 255");
  b.pop_back();
  EXPECT_NE(CompareBytes(a, b), "");
}

}  // namespace
}  // namespace fairlead
