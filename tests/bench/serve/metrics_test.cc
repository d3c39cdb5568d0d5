// SPDX-License-Identifier: Apache-2.0
// Figures worked out by hand beside each fixture.
#include "bench/serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace fairlead::serve_bench {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pair;

constexpr double kClose = 1e-9;

Time At(double ms) {
  return Time() + std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double, std::milli>(1000 + ms));
}

// Sent at `sent`, token events at the given times after the run's start, all in ms.
Record Answered(double sent, std::vector<double> events, int prompt, int completion) {
  Record record{.scheduled = At(sent), .sent = At(sent)};
  for (const double event : events) record.token_events.push_back(At(event));
  record.ended = At(events.back() + 5);  // the usage comes after the last token
  record.prompt_tokens = prompt;
  record.completion_tokens = completion;
  return record;
}

Record Failed(double sent, double ended, const char* kind) {
  Record record{.scheduled = At(sent), .sent = At(sent), .ended = At(ended)};
  record.outcome = Outcome::kError;
  record.error_kind = kind;
  record.completion_tokens = 7;  // whatever was counted before it failed must not be used
  return record;
}

TEST(Percentile, InterpolatesAsNumPyDoes) {
  // numpy.percentile([1, 2, 4, 8], [0, 25, 50, 90, 100]) = 1, 1.75, 3, 6.8, 8.
  const std::vector<double> sorted = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(PercentileOfSorted(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(sorted, 25), 1.75);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(sorted, 50), 3);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(sorted, 90), 6.8);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(sorted, 100), 8);
  EXPECT_DOUBLE_EQ(PercentileOfSorted({3}, 99), 3);
}

TEST(Spread, OfUnsortedSamples) {
  const Spread spread = SpreadOf({8, 1, 4, 2});
  EXPECT_EQ(spread.count, 4u);
  EXPECT_DOUBLE_EQ(spread.mean, 3.75);
  EXPECT_DOUBLE_EQ(spread.p50, 3);
  EXPECT_DOUBLE_EQ(spread.p90, 6.8);
  EXPECT_DOUBLE_EQ(spread.max, 8);
  EXPECT_EQ(SpreadOf({}).count, 0u);
}

TEST(MetricsOf, OneTokenAnEvent) {
  const auto metrics = MetricsOf(Answered(10, {110, 130, 160, 210}, 5, 4));
  ASSERT_TRUE(metrics);
  EXPECT_NEAR(metrics->ttft_ms, 100, kClose);
  EXPECT_NEAR(metrics->e2el_ms, 200, kClose);        // not to the usage at 215
  EXPECT_NEAR(metrics->tpot_ms, 100.0 / 3, kClose);  // (200 - 100) / (4 - 1)
  EXPECT_NEAR(metrics->ntpot_ms, 50, kClose);        // 200 / 4
}

TEST(MetricsOf, CountsTokensByUsageNotByEvents) {
  // Two events carry 11 tokens.
  const auto metrics = MetricsOf(Answered(0, {40, 140}, 5, 11));
  ASSERT_TRUE(metrics);
  EXPECT_NEAR(metrics->tpot_ms, 10, kClose);
  EXPECT_NEAR(metrics->ntpot_ms, 140.0 / 11, kClose);
}

TEST(MetricsOf, OneTokenHasNoTimePerOutputToken) {
  const auto metrics = MetricsOf(Answered(0, {70}, 5, 1));
  ASSERT_TRUE(metrics);
  EXPECT_NEAR(metrics->ttft_ms, 70, kClose);
  EXPECT_NEAR(metrics->e2el_ms, 70, kClose);
  EXPECT_EQ(metrics->tpot_ms, 0);
}

TEST(MetricsOf, TokensWithoutTextCountFromTheEnd) {
  Record record = Answered(0, {70}, 5, 1);
  record.token_events.clear();
  record.ended = At(90);
  ASSERT_TRUE(MetricsOf(record));
  EXPECT_NEAR(MetricsOf(record)->ttft_ms, 90, kClose);
}

TEST(MetricsOf, NothingForNoTokenCancelledOrFailed) {
  Record empty = Answered(0, {70}, 5, 0);
  EXPECT_FALSE(MetricsOf(empty));
  Record cancelled = Answered(0, {70, 80}, 5, 2);
  cancelled.outcome = Outcome::kCancelled;
  EXPECT_FALSE(MetricsOf(cancelled));
  EXPECT_FALSE(MetricsOf(Failed(0, 10, "timeout")));
}

// 0 ms: A is sent, 3 tokens at 100, 120, 150.
// 50 ms: B is sent, 1 token at 90; ends at 95.
// 60 ms: C is sent, 5 tokens in two events at 260 and 300; ends at 305.
// 100 ms: D is refused at 110. 200 ms: E is cancelled after a token, ends at 250.
// 100 ms: F fails by a time-out at 1000, the run's end.
std::vector<Record> SixRequests() {
  std::vector<Record> records = {
      Answered(0, {100, 120, 150}, 10, 3), Answered(50, {90}, 20, 1),
      Answered(60, {260, 300}, 30, 5),     Failed(100, 110, "http_429"),
      Answered(200, {245}, 99, 1),         Failed(100, 1000, "timeout"),
  };
  records[2].scheduled = At(58);
  records[2].cached_tokens = 16;
  records[4].outcome = Outcome::kCancelled;
  return records;
}

TEST(Summarize, CountsAndRates) {
  const Summary summary = Summarize(SixRequests(), {});
  EXPECT_EQ(summary.sent, 6);
  EXPECT_EQ(summary.ok, 3);
  EXPECT_EQ(summary.cancelled, 1);
  EXPECT_EQ(summary.failed, 2);
  EXPECT_THAT(summary.errors, ElementsAre(Pair("http_429", 1), Pair("timeout", 1)));
  EXPECT_NEAR(summary.duration_s, 1, kClose);
  EXPECT_EQ(summary.prompt_tokens, 60);
  EXPECT_EQ(summary.cached_tokens, 16);
  EXPECT_EQ(summary.completion_tokens, 9);  // 3 + 1 + 5
  EXPECT_NEAR(summary.output_tokens_per_s, 9, kClose);
  EXPECT_NEAR(summary.total_tokens_per_s, 69, kClose);
  EXPECT_NEAR(summary.requests_per_s, 3, kClose);
  EXPECT_FALSE(summary.goodput_per_s);
  // From 100 to 110 A, C, D and F; B ended at 95.
  EXPECT_EQ(summary.peak_concurrency, 4);
  EXPECT_NEAR(summary.tokens_per_event, 9.0 / 6, kClose);
}

TEST(Summarize, Latencies) {
  const Summary summary = Summarize(SixRequests(), {});
  // TTFT 100, 40, 200; E2EL 150, 40, 240.
  EXPECT_EQ(summary.ttft_ms.count, 3u);
  EXPECT_NEAR(summary.ttft_ms.mean, 340.0 / 3, kClose);
  EXPECT_NEAR(summary.ttft_ms.p50, 100, kClose);
  EXPECT_NEAR(summary.ttft_ms.p90, 180, kClose);  // 100 + 0.8 * (200 - 100)
  EXPECT_NEAR(summary.ttft_ms.max, 200, kClose);
  EXPECT_NEAR(summary.e2el_ms.p50, 150, kClose);
  // TPOT: A (150 - 100) / 2 = 25, C (240 - 200) / 4 = 10; B has one token.
  EXPECT_EQ(summary.tpot_ms.count, 2u);
  EXPECT_NEAR(summary.tpot_ms.mean, 17.5, kClose);
  // ITL: A 20, 30; C 40, the gap between bundles.
  EXPECT_EQ(summary.itl_ms.count, 3u);
  EXPECT_NEAR(summary.itl_ms.mean, 30, kClose);
  EXPECT_NEAR(summary.itl_ms.max, 40, kClose);
  // NTPOT: A 50, B 40, C 48.
  EXPECT_NEAR(summary.ntpot_ms.p50, 48, kClose);
  EXPECT_EQ(summary.send_lag_ms.count, 6u);
  EXPECT_NEAR(summary.send_lag_ms.max, 2, kClose);
}

TEST(Summarize, GoodputNeedsEveryBound) {
  const auto slo = ParseSlo({"ttft:150", "tpot:30"});
  ASSERT_TRUE(slo.ok());
  // A and B keep both (B by its TPOT of 0), C misses TTFT; D and F failed; E does not count.
  const Summary summary = Summarize(SixRequests(), *slo);
  EXPECT_THAT(*summary.goodput_per_s, DoubleNear(2, kClose));
  EXPECT_THAT(*summary.good_share, DoubleNear(2.0 / 5, kClose));
  // A bound is kept when it is met exactly.
  EXPECT_NEAR(*Summarize(SixRequests(), *ParseSlo({"ttft:100"})).good_share, 2.0 / 5, kClose);
  EXPECT_NEAR(*Summarize(SixRequests(), *ParseSlo({"e2el:240", "ntpot:48"})).good_share, 2.0 / 5,
              kClose);
}

TEST(Summarize, NothingSent) {
  const Summary summary = Summarize({}, *ParseSlo({"ttft:1"}));
  EXPECT_EQ(summary.sent, 0);
  EXPECT_EQ(summary.ttft_ms.count, 0u);
}

TEST(Summarize, OnlyErrors) {
  const Summary summary = Summarize({Failed(0, 0, "connect")}, *ParseSlo({"ttft:1"}));
  EXPECT_EQ(summary.failed, 1);
  EXPECT_EQ(*summary.good_share, 0);
  EXPECT_EQ(summary.output_tokens_per_s, 0);
}

TEST(ParseSlo, RefusesWhatItDoesNotKnow) {
  for (const char* term :
       {"ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1", "ttft:nan", "itl:3", ":5", ""})
    EXPECT_FALSE(ParseSlo({term}).ok()) << term;
  EXPECT_FALSE(ParseSlo({"ttft:1", "ttft:2"}).ok());
  EXPECT_TRUE(ParseSlo({})->empty());
}

}  // namespace
}  // namespace fairlead::serve_bench
