// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/simd_sampling.h"

namespace fairlead {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct LogprobRow {
  const float* logit;
  int vocab;
  float max;
  double log_sum;  // of exp(logit - max)

  float Logprob(float x) const { return static_cast<float>((double{x} - max) - log_sum); }
};

void TopTokens(const LogprobRow& row, int n, const float* chunk_max, SamplingRow& scratch,
               int32_t* token, float* logprob) {
  const float bound =
      LowerBoundOfBest(chunk_max, NumLogitChunks(row.vocab), n, scratch.best_chunks);
  float* logit = scratch.logit.Reserve(row.vocab + SamplingRow::kSelectSlack);
  int32_t* id = scratch.id.Reserve(row.vocab + SamplingRow::kSelectSlack);
  const int found = SimdSelect(row.logit, row.logit, nullptr, row.vocab, bound, logit, id);
  TokenLogit* best = scratch.sorted.Reserve(found);
  for (int i = 0; i < found; ++i) best[i] = {logit[i], id[i]};
  std::partial_sort(best, best + std::min(n, found), best + found,
                    [](const TokenLogit& a, const TokenLogit& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
                    });
  for (int i = 0; i < n; ++i) {
    token[i] = i < found ? best[i].id : -1;
    logprob[i] = i < found ? row.Logprob(best[i].logit) : -kInfinity;
  }
}

void LogprobsRow(const LogprobsArgs& args, int64_t index, SamplingRow& scratch) {
  const int vocab = static_cast<int>(args.logits.dim[1]);
  const int n = args.top_token ? static_cast<int>(args.top_token.dim[1]) : 0;
  LogprobRow row = {
      .logit = args.logits.As<float>() + index * vocab, .vocab = vocab, .max = 0, .log_sum = 0};
  float* chunk_max = scratch.chunk_max.Reserve(NumLogitChunks(vocab));
  const bool valid = SimdScanLogits(row.logit, vocab, &row.max, chunk_max);
  int32_t* token = n > 0 ? args.top_token.As<int32_t>() + index * n : nullptr;
  float* logprob = n > 0 ? args.top_logprob.As<float>() + index * n : nullptr;
  float& target_logprob = args.out_logprob.As<float>()[index];
  int& rank = args.out_rank.As<int>()[index];
  const int target = args.target.As<int>()[index];
  const bool has_target = target >= 0 && target < vocab;
  if (!valid) {
    target_logprob = has_target ? kNan : 0.0f;
    rank = 0;
    std::fill(token, token + n, -1);
    std::fill(logprob, logprob + n, kNan);
    return;
  }
  row.log_sum = std::log(SimdSumExp(row.logit, vocab, row.max));
  target_logprob = 0.0f;
  rank = 0;
  if (has_target) {
    const float x = row.logit[target];
    target_logprob = row.Logprob(x);
    rank = 1 + SimdCountAbove(row.logit, vocab, x).greater +
           SimdCountAbove(row.logit, target, x).equal;
  }
  if (n > 0) TopTokens(row, n, chunk_max, scratch, token, logprob);
}

}  // namespace

void CpuLogprobs(ThreadPool& pool, const LogprobsArgs& args, SamplingScratch& scratch) {
  const int64_t rows = args.logits.dim[0];
  scratch.Reserve(pool.threads(), static_cast<int>(args.logits.dim[1]), bool{args.top_token});
  const auto body = [&](int64_t row, int worker) {
    LogprobsRow(args, row, scratch.worker[worker]);
  };
  if (rows == 1) {
    body(0, 0);
  } else {
    pool.ParallelFor(rows, body);
  }
}

}  // namespace fairlead
