// SPDX-License-Identifier: Apache-2.0
// One block a row: a pass for the maximum, one for the sum and the target's rank, and the best n
// tokens one after another.
#include <cstdint>

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/row_search.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

struct LogprobsRows {
  const float* logits;  // [rows, vocab]
  const int32_t* target;
  float* out_logprob;
  int32_t* out_rank;
  int32_t* top_token;  // [rows, n]
  float* top_logprob;
  int vocab;
  int n;
};

struct Softmax {
  float max;
  double log_sum;  // of exp(logit - max)
};

GPU_DEVICE float LogprobOf(const Softmax& softmax, float x) {
  return static_cast<float>((static_cast<double>(x) - softmax.max) - softmax.log_sum);
}

// Each thread holds the best it has left, `own`, and each warp its best of those. Where a token is
// taken, the thread and its warp look for their next.
GPU_DEVICE void TopTokens(const LogprobsRows& rows, const float* logit, const Softmax& softmax,
                          uint64_t own, int32_t* token, float* logprob) {
  constexpr int kWarps = kRowThreads / kWarp;
  GPU_SHARED(uint64_t, best_of, kWarps);
  uint64_t best = kNoRank;
  uint64_t of_warp = kNoRank;
  for (int i = 0; i < rows.n; ++i) {
    if (of_warp == best) {
      if (own == best) own = OwnBest(logit, rows.vocab, best - 1);
      of_warp = WarpMax(own);
      if (LaneId() == 0) best_of[WarpId()] = of_warp;
    }
    SyncThreads();
    best = best_of[0];
    for (int w = 1; w < kWarps; ++w) best = best_of[w] > best ? best_of[w] : best;
    SyncThreads();
    if (own != best) continue;
    token[i] = IdOf(best);
    logprob[i] = LogprobOf(softmax, LogitOf(best));
  }
}

GPU_DEVICE void Invalid(const LogprobsRows& rows, int row, bool has_target, int32_t* token,
                        float* logprob) {
  if (ThreadX() == 0) {
    rows.out_logprob[row] = has_target ? NAN : 0.0f;
    rows.out_rank[row] = 0;
  }
  for (int i = ThreadX(); i < rows.n; i += kRowThreads) {
    token[i] = -1;
    logprob[i] = NAN;
  }
}

GPU_KERNEL void Logprobs(LogprobsRows rows) {
  const int row = static_cast<int>(BlockX());
  const float* logit = rows.logits + static_cast<int64_t>(row) * rows.vocab;
  int32_t* token = rows.top_token + static_cast<int64_t>(row) * rows.n;
  float* logprob = rows.top_logprob + static_cast<int64_t>(row) * rows.n;
  const int target = rows.target[row];
  const bool has_target = target >= 0 && target < rows.vocab;
  const uint64_t own = OwnBest(logit, rows.vocab, kNoRank);
  const uint64_t best = BestOfRow(own);
  if (best == kNoRank) {
    Invalid(rows, row, has_target, token, logprob);
    return;
  }
  const float max = LogitOf(best);
  const float x = has_target ? logit[target] : 0.0f;
  const uint64_t target_rank = has_target ? RankOf(x, target) : kNoRank;
  double sum = 0;
  int better = 0;
  ForEachLogit(logit, rows.vocab, [&](int id, float y) {
    sum += ::expf(y - max);
    better += RankOf(y, id) > target_rank;
  });
  const Softmax softmax = {max, ::log(BlockSum<kRowThreads>(sum))};
  better = BlockSum<kRowThreads>(better);
  if (ThreadX() == 0) {
    rows.out_logprob[row] = has_target ? LogprobOf(softmax, x) : 0.0f;
    rows.out_rank[row] = has_target ? better + 1 : 0;
  }
  TopTokens(rows, logit, softmax, own, token, logprob);
}

}  // namespace

void LaunchLogprobs(const StreamHandle& stream, const LogprobsArgs& args) {
  const auto rows = static_cast<unsigned>(args.logits.dim[0]);
  if (rows == 0) return;
  const LogprobsRows kernel_args = {
      .logits = args.logits.As<float>(),
      .target = args.target.As<int32_t>(),
      .out_logprob = args.out_logprob.As<float>(),
      .out_rank = args.out_rank.As<int32_t>(),
      .top_token = args.top_token.As<int32_t>(),
      .top_logprob = args.top_logprob.As<float>(),
      .vocab = static_cast<int>(args.logits.dim[1]),
      .n = args.top_token ? static_cast<int>(args.top_token.dim[1]) : 0};
  GPU_LAUNCH(stream, Grid{rows}, kRowThreads, 0, Logprobs, kernel_args);
}

}  // namespace fairlead::FAIRLEAD_GPU
