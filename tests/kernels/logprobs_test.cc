// SPDX-License-Identifier: Apache-2.0
// The Logprobs op against log-softmax in long double with a full sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/kernels/simd_targets_for_test.h"

namespace fairlead {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Result {
  std::vector<float> logprob;
  std::vector<int> rank;
  std::vector<int> top_token;      // [rows, n]
  std::vector<float> top_logprob;  // [rows, n]
};

Result Logprobs(std::vector<float> logits, std::vector<int> target, int n, int threads = 1) {
  const auto device = *OpenDevice("cpu", {.threads = threads});
  const auto stream = device->NewStream();
  const int64_t rows = static_cast<int64_t>(target.size());
  const int64_t vocab = static_cast<int64_t>(logits.size()) / rows;
  Result result = {.logprob = std::vector<float>(rows, 77.0f),
                   .rank = std::vector<int>(rows, 77),
                   .top_token = std::vector<int>(rows * n, 77),
                   .top_logprob = std::vector<float>(rows * n, 77.0f)};
  LogprobsArgs args = {.logits = Tensor(logits.data(), DType::kF32, {rows, vocab}),
                       .target = Tensor(target.data(), DType::kI32, {rows}),
                       .out_logprob = Tensor(result.logprob.data(), DType::kF32, {rows}),
                       .out_rank = Tensor(result.rank.data(), DType::kI32, {rows})};
  if (n > 0) {
    args.top_token = Tensor(result.top_token.data(), DType::kI32, {rows, n});
    args.top_logprob = Tensor(result.top_logprob.data(), DType::kF32, {rows, n});
  }
  device->ops().Logprobs(*stream, args);
  stream->Wait();
  return result;
}

// logit - max is rounded once (half an ulp of up to 32: 2^-20) before an exp of 2 ulp, which moves
// the logarithm of the sum by as much, weighted; the rest is in double. The result is rounded to
// float.
double Bound(double logprob) { return 0x1p-20 + 0x1p-22 + std::abs(logprob) * 0x1p-24; }

void ExpectRow(const std::vector<float>& logits, int target, int n, const Result& got, int row) {
  const int vocab = static_cast<int>(logits.size());
  std::vector<int> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  const long double max = logits[order[0]];
  long double sum = 0;
  for (const float x : logits) sum += std::exp(x - max);
  const auto logprob = [&](int id) {
    return static_cast<double>(logits[id] - max - std::log(sum));
  };
  if (target < 0 || target >= vocab) {
    EXPECT_EQ(got.logprob[row], 0.0f);
    EXPECT_EQ(got.rank[row], 0);
  } else {
    const auto place = std::find(order.begin(), order.end(), target) - order.begin();
    EXPECT_EQ(got.rank[row], place + 1);
    if (std::isinf(logits[target])) {
      EXPECT_EQ(got.logprob[row], -kInf);
    } else {
      EXPECT_NEAR(got.logprob[row], logprob(target), Bound(logprob(target)));
    }
  }
  for (int i = 0; i < n; ++i) {
    ASSERT_EQ(got.top_token[row * n + i], order[i]) << "place " << i;
    if (std::isinf(logits[order[i]])) {
      EXPECT_EQ(got.top_logprob[row * n + i], -kInf);
    } else {
      EXPECT_NEAR(got.top_logprob[row * n + i], logprob(order[i]), Bound(logprob(order[i])));
    }
  }
}

TEST(Logprobs, AgreesWithLongDouble) {
  std::mt19937 random(77);
  std::normal_distribution<float> normal(-4.0f, 3.0f);
  ForEachSimdTarget([&] {
    for (const int vocab : {1, 5, 16, 63, 65, 1000, 49152}) {
      for (const int n : {0, 1, 20, vocab}) {
        if (n > vocab) continue;
        std::vector<float> logits(vocab);
        for (float& x : logits) x = normal(random);
        for (const int target : {0, vocab / 2, vocab - 1, -1, vocab}) {
          SCOPED_TRACE(testing::Message() << vocab << " " << n << " " << target);
          ExpectRow(logits, target, n, Logprobs(logits, {target}, n), 0);
          if (vocab > 1000) break;
        }
      }
    }
  });
}

TEST(Logprobs, TiesAndMinusInfinity) {
  std::mt19937 random(78);
  for (const int n : {3, 50, 200}) {
    std::vector<float> logits(200);
    for (float& x : logits) x = random() % 5 == 0 ? -kInf : static_cast<float>(random() % 4);
    for (int target = 0; target < 200; target += 7) {
      ExpectRow(logits, target, n, Logprobs(logits, {target}, n), 0);
    }
  }
}

TEST(Logprobs, LargeMagnitudesDoNotOverflow) {
  ExpectRow({1e30f, -1e30f, 0.0f}, 0, 3, Logprobs({1e30f, -1e30f, 0.0f}, {0}, 3), 0);
  ExpectRow({-1e30f, -1e30f}, 1, 2, Logprobs({-1e30f, -1e30f}, {1}, 2), 0);
}

TEST(Logprobs, RowsDoNotDependOnTheBatchOrThreads) {
  constexpr int kRows = 9;
  constexpr int kVocab = 777;
  std::mt19937 random(79);
  std::normal_distribution<float> normal;
  std::vector<float> logits(kRows * kVocab);
  for (float& x : logits) x = normal(random);
  std::vector<int> target(kRows);
  for (int& t : target) t = random() % kVocab;
  const Result all = Logprobs(logits, target, 10, 3);
  for (int row = 0; row < kRows; ++row) {
    const std::vector<float> own(logits.begin() + row * kVocab,
                                 logits.begin() + (row + 1) * kVocab);
    ExpectRow(own, target[row], 10, all, row);
    const Result alone = Logprobs(own, {target[row]}, 10);
    EXPECT_EQ(alone.logprob[0], all.logprob[row]);
    EXPECT_TRUE(std::equal(alone.top_logprob.begin(), alone.top_logprob.end(),
                           all.top_logprob.begin() + row * 10));
  }
}

TEST(Logprobs, RowsThatAreNotNumbersAreMarked) {
  for (const float bad : {std::nanf(""), kInf}) {
    const Result got = Logprobs({1.0f, bad, 2.0f}, {0}, 2);
    EXPECT_TRUE(std::isnan(got.logprob[0]));
    EXPECT_EQ(got.rank[0], 0);
    EXPECT_EQ(got.top_token, (std::vector<int>{-1, -1}));
    EXPECT_TRUE(std::isnan(got.top_logprob[0]));
  }
}

}  // namespace
}  // namespace fairlead
