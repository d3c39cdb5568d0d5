// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/knee.h"

#include <gtest/gtest.h>

#include <vector>

namespace fairlead::serve_bench {
namespace {

// Searches a server that carries every rate up to `capacity`; the rates that were tried.
std::vector<double> Search(KneeSearch& search, double capacity) {
  std::vector<double> tried;
  while (const std::optional<double> rate = search.NextRate()) {
    tried.push_back(*rate);
    search.Report(*rate, *rate <= capacity);
  }
  return tried;
}

TEST(KneeSearch, FindsCapacityFromBelowAndAbove) {
  for (const double first : {0.1, 1.0, 7.3, 500.0}) {
    for (const double capacity : {0.9, 7.3, 42.0}) {
      KneeSearch search(first, 0.05, 100);
      Search(search, capacity);
      ASSERT_TRUE(search.knee());
      EXPECT_TRUE(search.bounded());
      EXPECT_LE(*search.knee(), capacity);
      EXPECT_GE(*search.knee() * 1.05, capacity) << first << " " << capacity;
    }
  }
}

TEST(KneeSearch, DoublesThenBisects) {
  KneeSearch search(1, 0.5, 100);
  const std::vector<double> tried = Search(search, 5);
  ASSERT_EQ(tried.size(), 5u);
  EXPECT_EQ(tried[0], 1);
  EXPECT_EQ(tried[1], 2);
  EXPECT_EQ(tried[2], 4);
  EXPECT_EQ(tried[3], 8);
  EXPECT_NEAR(tried[4], 5.65685424949, 1e-9);  // sqrt(4 * 8); then 5.66 / 4 <= 1.5
  EXPECT_EQ(*search.knee(), 4);
}

TEST(KneeSearch, StopsAfterSoManyPoints) {
  KneeSearch endless(1, 0.05, 4);
  EXPECT_EQ(Search(endless, 1e30), (std::vector<double>{1, 2, 4, 8}));
  EXPECT_EQ(*endless.knee(), 8);
  EXPECT_FALSE(endless.bounded());
  KneeSearch hopeless(1, 0.05, 3);
  EXPECT_EQ(Search(hopeless, 0), (std::vector<double>{1, 0.5, 0.25}));
  EXPECT_FALSE(hopeless.knee());
}

}  // namespace
}  // namespace fairlead::serve_bench
