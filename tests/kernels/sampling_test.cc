// SPDX-License-Identifier: Apache-2.0
// The Sample op against the text of its contract in ops.h, done in double with a full sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/sampling_rng.h"
#include "tests/kernels/simd_targets_for_test.h"

namespace fairlead {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Edit {
  int token;
  float repetition;
  float add;
};

struct Row {
  std::vector<float> logits;
  float temperature = 1;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
  uint64_t seed = 0;
  int position = 0;
  std::vector<Edit> edits = {};
  std::vector<uint32_t> allowed = {};  // empty: no mask
};

std::vector<int> Sample(const std::vector<Row>& rows, int threads = 1) {
  const auto device = *OpenDevice("cpu", {.threads = threads});
  const auto stream = device->NewStream();
  std::vector<float> logits, temperature, top_p, min_p, repetition, add;
  std::vector<int> top_k, seed, position, token, start = {0}, allowed_row;
  std::vector<uint32_t> allowed;
  const int64_t words = (static_cast<int64_t>(rows[0].logits.size()) + 31) / 32;
  for (const Row& row : rows) {
    allowed_row.push_back(row.allowed.empty() ? -1 : static_cast<int>(allowed.size() / words));
    allowed.insert(allowed.end(), row.allowed.begin(), row.allowed.end());
    logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    temperature.push_back(row.temperature);
    top_k.push_back(row.top_k);
    top_p.push_back(row.top_p);
    min_p.push_back(row.min_p);
    seed.push_back(static_cast<int>(row.seed));
    seed.push_back(static_cast<int>(row.seed >> 32));
    position.push_back(row.position);
    for (const Edit& edit : row.edits) {
      token.push_back(edit.token);
      repetition.push_back(edit.repetition);
      add.push_back(edit.add);
    }
    start.push_back(static_cast<int>(token.size()));
  }
  const int64_t n = static_cast<int64_t>(rows.size());
  const int64_t edits = static_cast<int64_t>(token.size());
  const std::vector<float> before = logits;
  std::vector<int> out(n, -99);
  const auto f32 = [&](std::vector<float>& v) { return Tensor(v.data(), DType::kF32, {n}); };
  const auto i32 = [&](std::vector<int>& v) { return Tensor(v.data(), DType::kI32, {n}); };
  LogitEdits logit_edits;
  if (edits > 0) {
    logit_edits = {.start = Tensor(start.data(), DType::kI32, {n + 1}),
                   .token = Tensor(token.data(), DType::kI32, {edits}),
                   .repetition = Tensor(repetition.data(), DType::kF32, {edits}),
                   .add = Tensor(add.data(), DType::kF32, {edits})};
  }
  const int64_t vocab = static_cast<int64_t>(rows[0].logits.size());
  SampleArgs args = {.logits = Tensor(logits.data(), DType::kF32, {n, vocab}),
                     .temperature = f32(temperature),
                     .top_k = i32(top_k),
                     .top_p = f32(top_p),
                     .min_p = f32(min_p),
                     .seed = Tensor(seed.data(), DType::kI32, {n, 2}),
                     .position = i32(position),
                     .edits = logit_edits,
                     .out = i32(out)};
  if (!allowed.empty()) {
    const int64_t masks = static_cast<int64_t>(allowed.size()) / words;
    args.allowed = Tensor(allowed.data(), DType::kI32, {masks, words});
    args.allowed_row = i32(allowed_row);
  }
  device->ops().Sample(*stream, args);
  stream->Wait();
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(logits[i] == before[i] || std::isnan(before[i])) << "logits were changed";
  }
  return out;
}

int SampleOne(const Row& row) { return Sample({row})[0]; }

// The contract in double. `margin` is how far the decisions were from going the other way, relative
// to the total: the kernel's weights are floats, each within 2^-20 of the exact one, so decisions
// nearer than that may differ.
struct Expected {
  std::vector<int> kept;  // ids, ascending
  std::vector<double> weight;
  double margin = 1;

  int Draw(double uniform, double* distance) const {
    const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
    double sum = 0;
    *distance = 1;
    int drawn = -1;
    for (size_t i = 0; i < kept.size(); ++i) {
      sum += weight[i];
      *distance = std::min(*distance, std::abs(sum - uniform * total) / total);
      if (drawn < 0 && sum > uniform * total) drawn = kept[i];
    }
    return drawn;
  }
};

Expected Reference(const Row& row) {
  Expected expected;
  const int vocab = static_cast<int>(row.logits.size());
  std::vector<int> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return row.logits[a] != row.logits[b] ? row.logits[a] > row.logits[b] : a < b;
  });
  const double max = row.logits[order[0]];
  const auto weight = [&](int id) { return std::exp((row.logits[id] - max) / row.temperature); };
  if (row.top_k > 0) order.resize(std::min(vocab, row.top_k));
  if (row.min_p > 0) {
    for (const int id : order) {
      expected.margin = std::min(expected.margin, std::abs(weight(id) - row.min_p));
    }
    std::erase_if(order, [&](int id) { return weight(id) < row.min_p; });
  }
  if (row.top_p < 1) {
    double total = 0;
    for (const int id : order) total += weight(id);
    double sum = 0;
    size_t n = 0;
    while (n < order.size() && (n == 0 || sum < row.top_p * total)) {
      sum += weight(order[n++]);
      expected.margin = std::min(expected.margin, std::abs(sum / total - row.top_p));
    }
    order.resize(n);
  }
  std::sort(order.begin(), order.end());
  expected.kept = order;
  for (const int id : order) expected.weight.push_back(weight(id));
  return expected;
}

// Uniform over a few decimals, so that there are many ties; or as of a model's head.
std::vector<float> RandomLogits(int vocab, bool ties, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(vocab);
  for (float& x : logits) x = ties ? static_cast<float>(random() % 12) / 2 : normal(random);
  return logits;
}

TEST(SampleGreedy, LargestLogitLowestIdOnATie) {
  ForEachSimdTarget([] {
    for (const int vocab : {1, 2, 15, 16, 17, 63, 64, 65, 1000}) {
      for (int best = 0; best < vocab; ++best) {
        std::vector<float> logits(vocab, -3.0f);
        logits[best] = 2.0f;
        logits[vocab - 1] = 2.0f;
        ASSERT_EQ(SampleOne({.logits = logits, .temperature = 0}), best) << vocab;
        if (best > 70) best += 37;
      }
    }
  });
  EXPECT_EQ(SampleOne({.logits = {-0.0f, 0.0f}, .temperature = 0}), 0);
  EXPECT_EQ(SampleOne({.logits = {-kInf, -5e37f, -kInf}, .temperature = 0}), 1);
}

TEST(Sample, RowsThatAreNotNumbersGiveMinusOne) {
  ForEachSimdTarget([] {
    for (const int vocab : {1, 3, 16, 67, 300}) {
      for (const float temperature : {0.0f, 1.0f}) {
        for (int bad = 0; bad < vocab; bad += 11) {
          std::vector<float> logits(vocab, 1.0f);
          logits[bad] = kNan;
          EXPECT_EQ(SampleOne({.logits = logits, .temperature = temperature}), -1);
          logits[bad] = kInf;
          EXPECT_EQ(SampleOne({.logits = logits, .temperature = temperature}), -1);
        }
        EXPECT_EQ(
            SampleOne({.logits = std::vector<float>(vocab, -kInf), .temperature = temperature}),
            -1);
      }
    }
  });
}

TEST(Sample, AgreesWithASortInDouble) {
  constexpr double kSlack = 0x1p-18;  // see Expected
  std::mt19937 random(20240607);
  int drawn = 0;
  int undecided = 0;
  ForEachSimdTarget([&] {
    for (int trial = 0; trial < 160; ++trial) {
      const int vocab = std::vector<int>{1, 7, 64, 333, 5000}[trial % 5];
      Row row = {.logits = RandomLogits(vocab, trial % 3 == 0, random)};
      row.temperature = std::vector<float>{0.1f, 0.7f, 1.0f, 3.0f}[random() % 4];
      row.top_k = std::vector<int>{0, 1, 3, 40, 200, vocab, 2 * vocab}[random() % 7];
      row.top_p = std::vector<float>{1.0f, 0.0f, 0.3f, 0.9f, 0.999f}[random() % 5];
      row.min_p = std::vector<float>{0.0f, 0.02f, 0.5f, 1.0f}[random() % 4];
      row.seed = random();
      const Expected expected = Reference(row);
      // Ties and limits such as min_p = 1 that are met exactly are decided alike by both.
      const bool decided = expected.margin > kSlack || expected.margin == 0;
      std::vector<Row> rows;
      for (int position = 0; position < 20; ++position) {
        rows.push_back(row);
        rows.back().position = position;
      }
      const std::vector<int> tokens = Sample(rows);
      for (int position = 0; position < 20; ++position) {
        double distance = 0;
        const int token = expected.Draw(UniformFor(row.seed, position), &distance);
        if (!decided || distance < kSlack) {
          ++undecided;
          continue;
        }
        ++drawn;
        ASSERT_EQ(tokens[position], token)
            << "trial " << trial << ": vocab " << vocab << " temperature " << row.temperature
            << " top_k " << row.top_k << " top_p " << row.top_p << " min_p " << row.min_p
            << " position " << position;
      }
    }
  });
  EXPECT_GT(drawn, 20 * undecided) << "too few cases decide anything";
}

TEST(Sample, TiesKeepTheLowerIds) {
  for (int position = 0; position < 200; ++position) {
    const std::vector<float> logits(100, 1.5f);
    EXPECT_LT(SampleOne({.logits = logits, .top_k = 3, .position = position}), 3);
    // Half of four equal weights is reached by two, exactly.
    EXPECT_LT(SampleOne({.logits = {2, 2, 2, 2}, .top_p = 0.5f, .position = position}), 2);
    // 30 of 100 equal weights reach 0.295 of the mass, 29 do not.
    EXPECT_LT(SampleOne({.logits = logits, .top_p = 0.295f, .position = position}), 30);
  }
  std::vector<bool> seen(30);
  for (int position = 0; position < 2000; ++position) {
    const int token =
        SampleOne({.logits = std::vector<float>(100, 1.5f), .top_p = 0.295f, .position = position});
    ASSERT_LT(token, 30);
    seen[token] = true;
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 30);
}

// Pearson's test on 20,000 draws with 19 degrees of freedom: the 99.99 % quantile is 50.8. The
// seeds are fixed, so it passes always or never.
TEST(Sample, DrawsFollowTheSoftmax) {
  constexpr int kDraws = 20000;
  constexpr int kVocab = 20;
  std::mt19937 random(11);
  const std::vector<float> logits = RandomLogits(kVocab, false, random);
  for (const float temperature : {0.8f, 2.0f}) {
    std::vector<Row> rows(kDraws, {.logits = logits, .temperature = temperature, .seed = 99});
    for (int i = 0; i < kDraws; ++i) rows[i].position = i;
    std::vector<int> count(kVocab);
    for (const int token : Sample(rows, 2)) {
      ASSERT_GE(token, 0);
      ++count[token];
    }
    const Expected expected = Reference(rows[0]);
    const double total = std::accumulate(expected.weight.begin(), expected.weight.end(), 0.0);
    double statistic = 0;
    for (int i = 0; i < kVocab; ++i) {
      const double mean = expected.weight[i] / total * kDraws;
      statistic += (count[i] - mean) * (count[i] - mean) / mean;
    }
    EXPECT_LT(statistic, 50.8) << "temperature " << temperature;
  }
}

TEST(Sample, SeedAndPositionDecideTheDraw) {
  std::mt19937 random(5);
  const Row row = {.logits = RandomLogits(500, false, random), .temperature = 2, .seed = 7};
  std::vector<Row> rows(64, row);
  for (int i = 0; i < 64; ++i) rows[i].position = i;
  const std::vector<int> tokens = Sample(rows, 3);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(tokens[i], SampleOne(rows[i])) << i;
  for (Row& r : rows) r.seed = uint64_t{7} | uint64_t{1} << 32;  // the high half counts as well
  EXPECT_NE(Sample(rows), tokens);
}

TEST(Sample, TinyTemperaturePicksTheLargest) {
  EXPECT_EQ(SampleOne({.logits = {1.0f, 3.0f, 2.9f}, .temperature = 1e-38f}), 1);
  EXPECT_EQ(SampleOne({.logits = {-3e38f, 3e38f, 1.0f}, .temperature = 0.5f}), 1);
}

TEST(Sample, EditsApplyToTheirRowAlone) {
  const std::vector<float> logits = {1.0f, 3.0f, -2.0f, 2.0f};
  const Row plain = {.logits = logits, .temperature = 0};
  const auto edited = [&](std::vector<Edit> edits) {
    Row row = plain;
    row.edits = std::move(edits);
    return row;
  };
  const std::vector<int> tokens = Sample({
      plain,
      edited({{1, 1.0f, -kInf}}),  // banned
      edited({{1, 2.0f, 0.0f}}),   // 3 / 2 is below 2
      edited({{2, 0.5f, 4.5f}}),   // -2 * 0.5 + 4.5 = 3.5
      edited({{2, 2.0f, 6.5f}}),   // -2 * 2 + 6.5 = 2.5
      edited({{0, 1, -kInf}, {1, 1, -kInf}, {3, 1, -kInf}}),
      edited({{0, 1, -kInf}, {1, 1, -kInf}, {2, 1, -kInf}, {3, 1, -kInf}}),
      plain,
  });
  EXPECT_EQ(tokens, (std::vector<int>{1, 3, 3, 2, 1, 2, -1, 1}));
}

// As if every other token had an edit that adds -infinity.
TEST(Sample, MasksAreBansOfTheOtherTokens) {
  std::mt19937 random(17);
  ForEachSimdTarget([&] {
    for (const int vocab : {1, 7, 31, 32, 33, 64, 65, 300, 1027}) {
      std::vector<Row> masked, banned;
      for (int i = 0; i < 40; ++i) {
        Row row = {.logits = RandomLogits(vocab, i % 3 == 0, random), .seed = random()};
        row.temperature = std::vector<float>{0.0f, 0.7f, 2.0f}[i % 3];
        row.top_k = std::vector<int>{0, 5, 40}[random() % 3];
        row.top_p = std::vector<float>{1.0f, 0.9f}[random() % 2];
        row.edits = {{static_cast<int>(random() % vocab), 1.3f, 2.0f}};
        masked.push_back(row);
        banned.push_back(row);
        if (i % 5 == 4) continue;  // a row without a mask among them
        for (int w = 0; w < (vocab + 31) / 32; ++w) {
          masked[i].allowed.push_back(i % 5 == 3 ? 0 : random() & random());
        }
        for (int id = 0; id < vocab; ++id) {
          if ((masked[i].allowed[id / 32] >> id % 32 & 1) != 0) continue;
          if (id == row.edits[0].token) banned[i].edits.clear();
          banned[i].logits[id] = -kInf;
          masked[i].logits[id] = std::vector<float>{kNan, kInf, 50.0f}[id % 3];  // never looked at
        }
      }
      EXPECT_EQ(Sample(masked), Sample(banned)) << vocab;
    }
  });
}

TEST(Sample, BansLeaveOneForAllFilters) {
  std::mt19937 random(3);
  Row row = {.logits = RandomLogits(300, false, random), .top_k = 10, .top_p = 0.9f};
  for (int id = 0; id < 300; ++id) {
    if (id != 123) row.edits.push_back({id, 1.0f, -kInf});
  }
  for (const float top_p : {1.0f, 0.5f}) {
    for (const int top_k : {0, 10}) {
      row.top_p = top_p;
      row.top_k = top_k;
      for (row.position = 0; row.position < 20; ++row.position) EXPECT_EQ(SampleOne(row), 123);
    }
  }
}

}  // namespace
}  // namespace fairlead
