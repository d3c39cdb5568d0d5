// SPDX-License-Identifier: Apache-2.0
// How many drafts pay, on costs that are written down here: no clock.
#include "runtime/speculation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;
constexpr double kUnknown = std::numeric_limits<double>::infinity();

StepCosts CostsOf(const std::vector<std::pair<int, double>>& milliseconds) {
  StepCosts costs;
  for (const auto& [tokens, ms] : milliseconds) costs.Record(tokens, absl::Milliseconds(ms));
  return costs;
}

std::vector<int> Choose(const StepCosts& costs, int rows, int max_drafts,
                        std::vector<DraftCandidate> candidates) {
  ChooseDrafts(costs, rows, max_drafts, absl::MakeSpan(candidates));
  std::vector<int> drafts;
  for (const DraftCandidate& candidate : candidates) drafts.push_back(candidate.drafts);
  return drafts;
}

TEST(StepCostsTest, KnowsWhatWasMeasuredAndGuessesBetween) {
  const StepCosts costs = CostsOf({{2, 10}, {6, 18}});
  EXPECT_EQ(costs.Of(1), kUnknown);
  // Every later record lets the earlier ones sink by 1/4096.
  EXPECT_NEAR(costs.Of(2), 0.010, 0.00002);
  EXPECT_NEAR(costs.Of(3), 0.012, 0.00002);
  EXPECT_NEAR(costs.Of(5), 0.016, 0.00002);
  EXPECT_NEAR(costs.Of(6), 0.018, 1e-9);
  EXPECT_NEAR(costs.Of(12), 0.018, 1e-9);  // hoped for, so that it is tried
  EXPECT_EQ(costs.Of(13), kUnknown);
  EXPECT_TRUE(costs.measured(2));
  EXPECT_FALSE(costs.measured(3));
  EXPECT_EQ(costs.Of(100000), kUnknown);
  EXPECT_FALSE(costs.measured(100000));
}

TEST(StepCostsTest, IgnoresWhatIsNoMeasurement) {
  StepCosts costs;
  costs.Record(0, absl::Milliseconds(1));
  costs.Record(StepCosts::kMaxTokens + 1, absl::Milliseconds(1));
  costs.Record(1, absl::ZeroDuration());
  costs.Record(2, -absl::Milliseconds(1));  // a clock that was set back
  for (int n = 1; n <= StepCosts::kMaxTokens; ++n) EXPECT_EQ(costs.Of(n), kUnknown);
}

TEST(StepCostsTest, AnOutlierMovesAnEstimateByAQuarterOfItself) {
  const StepCosts costs = CostsOf({{4, 8}, {4, 8000}});
  EXPECT_NEAR(costs.Of(4), 0.010, 1e-9);
}

TEST(StepCostsTest, AFreshMeasurementCorrectsWhatContradictsIt) {
  const StepCosts smaller = CostsOf({{1, 50}, {8, 20}});
  EXPECT_NEAR(smaller.Of(1), 0.020, 1e-9);
  const StepCosts larger = CostsOf({{8, 20}, {4, 30}});
  EXPECT_NEAR(larger.Of(8), 0.030, 1e-9);  // forgotten, so the guess beyond 4
  EXPECT_EQ(larger.Of(9), kUnknown);
}

TEST(StepCostsTest, WhatIsNotRenewedBecomesHopeful) {
  StepCosts costs = CostsOf({{2, 500}, {1, 10}});  // the one measurement was very wrong
  std::vector<DraftCandidate> candidate = {{.acceptance = 0.9, .limit = 1}};
  int steps = 0;
  for (; Choose(costs, 1, 1, candidate)[0] == 0 && steps < 30000; ++steps)
    costs.Record(1, absl::Milliseconds(10));
  // 500 ms sinks to 1.9 / 1.05 of 10 ms: ln(27.6) * 4096 steps.
  EXPECT_NEAR(steps, std::log(500 / 10.0 * 1.05 / 1.9) * 4096, 160);
}

TEST(ChooseDraftsTest, NothingBeforePlainDecodingIsMeasured) {
  EXPECT_THAT(Choose(StepCosts(), 1, 16, {{.acceptance = 1, .limit = 8}}), ElementsAre(0));
  EXPECT_THAT(Choose(CostsOf({{2, 1}}), 1, 16, {{.acceptance = 1, .limit = 8}}), ElementsAre(0));
  EXPECT_THAT(Choose(CostsOf({{1, 1}}), 1, 16, {}), ElementsAre());
}

// cost(n) = 2 + n: with p = 0.5 the rates are 1/3, 1.5/4, 1.75/5, ..: one draft. With p = 0.9:
// 1.9/4, 2.71/5, 3.439/6, 4.095/7, 4.686/8, 5.217/9, ..: four is 0.585, five 0.586, six 0.580.
TEST(ChooseDraftsTest, TheBestRateByHand) {
  const StepCosts costs = CostsOf({{1, 3}, {16, 18}});
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.5, .limit = 8}}), ElementsAre(1));
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.9, .limit = 8}}), ElementsAre(5));
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.9, .limit = 3}}), ElementsAre(3));
  EXPECT_THAT(Choose(costs, 1, 2, {{.acceptance = 0.9, .limit = 8}}), ElementsAre(2));
  EXPECT_THAT(Choose(costs, 1, 0, {{.acceptance = 0.9, .limit = 8}}), ElementsAre(0));
  // 1.33 / 4 is less than 1 / 3.
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.33, .limit = 8}}), ElementsAre(0));
}

TEST(ChooseDraftsTest, ASmallGainIsNotWorthIt) {
  // 1.36 / 4 is 2 % more than 1 / 3; 1.41 / 4 is 6 % more.
  const StepCosts costs = CostsOf({{1, 3}, {16, 18}});
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.36, .limit = 1}}), ElementsAre(0));
  EXPECT_THAT(Choose(costs, 1, 15, {{.acceptance = 0.41, .limit = 1}}), ElementsAre(1));
}

TEST(ChooseDraftsTest, TheLikeliestGoesFirst) {
  // Free up to 8 tokens: the drafts of 3 rows share 5.
  const StepCosts costs = CostsOf({{3, 10}, {8, 10.001}});
  EXPECT_THAT(Choose(costs, 3, 5,
                     {{.acceptance = 0.5, .limit = 8},    // 0.5, 0.25
                      {.acceptance = 0, .limit = 0},      // no match
                      {.acceptance = 0.8, .limit = 8}}),  // 0.8, 0.64, 0.512, 0.41
              ElementsAre(1, 0, 4));
}

TEST(ChooseDraftsTest, BacksOffUnderLoad) {
  // A batch of 16 costs what its tokens cost: drafts that are right half of the time lose.
  const StepCosts loaded = CostsOf({{1, 3}, {16, 17}, {256, 257}});
  const DraftCandidate half = {.acceptance = 0.5, .limit = 8};
  const DraftCandidate sure = {.acceptance = 0.98, .limit = 8};
  EXPECT_THAT(Choose(loaded, 1, 200, {half})[0], ::testing::Gt(0));
  EXPECT_THAT(Choose(loaded, 16, 200, std::vector(16, half)), ::testing::Each(0));
  // What is nearly sure gains next to nothing where cost is proportional to tokens.
  const StepCosts proportional = CostsOf({{1, 1}, {16, 16}, {256, 256}});
  EXPECT_THAT(Choose(proportional, 16, 200, std::vector(16, sure)), ::testing::Each(0));
}

// A machine whose steps cost `truth`, and a sequence whose drafts are right with chance p. Tokens
// per second of speculation against plain decoding, after it has learned.
double Gain(const std::function<double(int)>& truth, double p) {
  StepCosts costs;
  double tokens = 0, time = 0;
  for (int step = 0; step < 20000; ++step) {
    DraftCandidate candidate = {.acceptance = p, .limit = 16};
    ChooseDrafts(costs, 1, 255, absl::MakeSpan(&candidate, 1));
    double expected = 1;
    for (int i = 1; i <= candidate.drafts; ++i) expected += std::pow(p, i);
    const double ms = truth(1 + candidate.drafts);
    costs.Record(1 + candidate.drafts, absl::Milliseconds(ms));
    tokens += expected;
    time += ms;
  }
  return tokens / time * truth(1);
}

TEST(ChooseDraftsTest, NeverSlowerThanPlainDecodingWhateverStepsCost) {
  for (const double p : {0.0, 0.1, 0.3, 0.5, 0.8, 0.95}) {
    EXPECT_GT(Gain([](int n) { return 1.0 * n; }, p), 0.97) << p;
    EXPECT_GT(Gain([](int n) { return 3.0 + n; }, p), 0.97) << p;
    EXPECT_GT(Gain([](int n) { return 5.0 + (n + 7) / 8; }, p), 0.97) << p;  // tiles of 8
    EXPECT_GT(Gain([](int n) { return n == 1 ? 1.0 : 20.0 + n; }, p), 0.97) << p;
  }
}

TEST(ChooseDraftsTest, FindsTheGain) {
  // cost(1 + k) = 3 + 1 + k; p = 0.95: the best of 4 * (1 - p^(k+1)) / (1 - p) / (4 + k) is 2.47,
  // at k = 9.
  EXPECT_GT(Gain([](int n) { return 3.0 + n; }, 0.95), 2.3);
  // Tiles of 8: 15 drafts in two tiles make 6 * (1 - p^16) / (1 - p) / 7 = 9.6.
  EXPECT_GT(Gain([](int n) { return 5.0 + (n + 7) / 8; }, 0.95), 9.0);
}

}  // namespace
}  // namespace fairlead
