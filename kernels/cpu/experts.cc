// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/experts.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/cpu/each_row.h"
#include "kernels/cpu/simd_elementwise.h"
#include "kernels/cpu/simd_sampling.h"

namespace fairlead {
namespace {

constexpr int kMaxExperts = RouteArgs::kMaxExperts;

// Puts the `best` of the experts or groups in order[0, n) whose scores are the largest first, in
// order, ties by lower id.
void SortBest(const float* score, int n, int best, int32_t* order) {
  std::partial_sort(order, order + best, order + n, [score](int32_t a, int32_t b) {
    return score[a] != score[b] ? score[a] > score[b] : a < b;
  });
}

// The experts of the best groups; returns how many.
int Candidates(const RouteArgs& args, int experts, const float* score, int32_t* candidate) {
  if (args.groups == 1) {
    std::iota(candidate, candidate + experts, 0);
    return experts;
  }
  const int in_group = experts / args.groups;
  float group_score[RouteArgs::kMaxGroups];
  int32_t order[kMaxExperts];
  for (int g = 0; g < args.groups; ++g) {
    std::iota(order, order + in_group, g * in_group);
    SortBest(score, in_group, args.group_scores, order);
    group_score[g] = score[order[0]];
    for (int i = 1; i < args.group_scores; ++i) group_score[g] += score[order[i]];
  }
  std::iota(order, order + args.groups, 0);
  SortBest(group_score, args.groups, args.chosen_groups, order);
  for (int i = 0; i < args.chosen_groups; ++i) {
    std::iota(candidate + i * in_group, candidate + (i + 1) * in_group, order[i] * in_group);
  }
  return args.chosen_groups * in_group;
}

void RouteRow(const RouteArgs& args, const float* logit, int32_t* expert, float* weight) {
  const int experts = static_cast<int>(args.logits.dim[1]);
  const int slots = static_cast<int>(args.expert.dim[1]);
  const bool sigmoid = args.scores == RouteArgs::Scores::kSigmoid;
  const bool adds = args.bias || args.group_scores > 1;  // to scores, before they are compared
  float chunk_max[kMaxExperts / kLogitChunk], max = 0;
  float score[kMaxExperts], added[kMaxExperts];
  bool usable = SimdScanLogits(logit, experts, &max, chunk_max);
  float all = 1;  // what scores are to be divided by
  if (usable && sigmoid) {
    SimdSigmoidRow(logit, experts, score);
  } else if (usable) {
    SimdWeights(logit, experts, max, 1.0f, score);
    if (adds || !args.normalize) all = std::accumulate(score, score + experts, 0.0f);
  }
  if (usable && adds) {
    const float* bias = args.bias.As<float>();
    for (int e = 0; e < experts; ++e) added[e] = score[e] / all + (bias != nullptr ? bias[e] : 0);
    usable = SimdScanLogits(added, experts, &max, chunk_max);
  }
  if (!usable) {
    std::iota(expert, expert + slots, 0);
    std::fill_n(weight, slots, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const float* compared = adds ? added : logit;
  int32_t order[kMaxExperts];
  SortBest(compared, Candidates(args, experts, compared, order), slots, order);
  float sum = all;
  if (args.normalize) {
    sum = 0;
    for (int slot = 0; slot < slots; ++slot) sum += score[order[slot]];
    if (sigmoid) sum += 1e-20f;
  }
  for (int slot = 0; slot < slots; ++slot) {
    expert[slot] = order[slot];
    weight[slot] = score[order[slot]] / sum * args.scale;
  }
}

// Fills scratch.begin and scratch.order; in an expert, ascending pairs.
void OrderPairs(const GroupedMatmulArgs& args, int groups, ExpertScratch& scratch) {
  const int64_t pairs = args.expert.elements();
  const int32_t* expert = args.expert.As<const int32_t>();
  int64_t* begin = scratch.begin.Reserve(static_cast<size_t>(groups) + 1);
  int32_t* order = scratch.order.Reserve(static_cast<size_t>(pairs));
  std::fill_n(begin, groups + 1, int64_t{0});
  for (int64_t p = 0; p < pairs; ++p) ++begin[expert[p]];
  int64_t end = 0;
  for (int g = 0; g <= groups; ++g) begin[g] = end += begin[g];
  for (int64_t p = pairs - 1; p >= 0; --p) order[--begin[expert[p]]] = static_cast<int32_t>(p);
}

// One expert's rows.
struct ExpertRows {
  const int32_t* pair;
  int64_t count;
  int64_t shared;  // pairs that multiply the same row of x
};

void MultiplyRows(ThreadPool& pool, const Int8Mode& mode, const GroupedMatmulArgs& args, int expert,
                  const ExpertRows& rows, MatmulScratch& matmul, ExpertScratch& scratch) {
  const int64_t n = args.weight->group_rows(), k = args.weight->cols(), count = rows.count;
  float* const x = args.x.As<float>();
  float* const out = args.out.As<float>();
  const auto x_of = [&](int64_t i) { return x + rows.pair[i] / rows.shared * k; };
  const auto out_of = [&](int64_t i) { return out + rows.pair[i] * n; };
  float* x_rows = x_of(0);  // a single row stays where it is
  float* out_rows = out_of(0);
  if (count > 1) {
    x_rows = scratch.x.Reserve(static_cast<size_t>(count * k));
    out_rows = scratch.out.Reserve(static_cast<size_t>(count * n));
    ForEachRow(pool, count, k,
               [&](int64_t i) { std::memcpy(x_rows + i * k, x_of(i), k * sizeof(float)); });
  }
  MatmulArgs product = {.x = Tensor(x_rows, DType::kF32, {count, k}),
                        .weight = &static_cast<const CpuPackedWeight&>(*args.weight).group(expert),
                        .out = Tensor(out_rows, DType::kF32, {count, n})};
  if (args.bias) product.bias = Tensor(args.bias.As<float>() + expert * n, DType::kF32, {n});
  CpuMatmul(pool, mode, product, matmul);
  if (count > 1) {
    ForEachRow(pool, count, n,
               [&](int64_t i) { std::memcpy(out_of(i), out_rows + i * n, n * sizeof(float)); });
  }
}

// Elements that the sums of a row are held of at a time.
constexpr int64_t kSums = 512;

void CombineRow(const float* x, const float* weight, int64_t slots, int64_t hidden, bool accumulate,
                float* out) {
  float sums[kSums];
  for (int64_t begin = 0; begin < hidden; begin += kSums) {
    const int64_t count = std::min(kSums, hidden - begin);
    std::fill_n(sums, count, 0.0f);
    for (int64_t slot = 0; slot < slots; ++slot) {
      const float* from = x + slot * hidden + begin;
      for (int64_t i = 0; i < count; ++i) sums[i] += weight[slot] * from[i];
    }
    for (int64_t i = 0; i < count; ++i) {
      out[begin + i] = accumulate ? out[begin + i] + sums[i] : sums[i];
    }
  }
}

}  // namespace

void CpuRoute(ThreadPool& pool, const RouteArgs& args) {
  const int64_t experts = args.logits.dim[1], slots = args.expert.dim[1];
  constexpr int64_t kWork = 16;  // about: a logit is scanned, exponentiated and compared
  ForEachRow(pool, args.logits.dim[0], experts * kWork, [&](int64_t row) {
    RouteRow(args, args.logits.As<float>() + row * experts, args.expert.As<int32_t>() + row * slots,
             args.weight.As<float>() + row * slots);
  });
}

void CpuGroupedMatmul(ThreadPool& pool, const Int8Mode& mode, const GroupedMatmulArgs& args,
                      MatmulScratch& matmul, ExpertScratch& scratch) {
  const int64_t pairs = args.expert.elements();
  if (pairs == 0) return;
  const int groups = args.weight->groups();
  OrderPairs(args, groups, scratch);
  const int64_t* begin = scratch.begin.data();
  for (int g = 0; g < groups; ++g) {
    const ExpertRows rows = {.pair = scratch.order.data() + begin[g],
                             .count = begin[g + 1] - begin[g],
                             .shared = pairs / args.x.dim[0]};
    if (rows.count > 0) MultiplyRows(pool, mode, args, g, rows, matmul, scratch);
  }
}

void CpuCombineExperts(ThreadPool& pool, const CombineExpertsArgs& args) {
  const int64_t slots = args.weight.dim[1], hidden = args.out.dim[1];
  ForEachRow(pool, args.out.dim[0], slots * hidden, [&](int64_t row) {
    CombineRow(args.x.As<float>() + row * slots * hidden, args.weight.As<float>() + row * slots,
               slots, hidden, args.accumulate, args.out.As<float>() + row * hidden);
  });
}

}  // namespace fairlead
