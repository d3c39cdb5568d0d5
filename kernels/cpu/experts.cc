// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/experts.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/each_row.h"
#include "kernels/cpu/simd_sampling.h"

namespace fairlead {
namespace {

constexpr int kMaxExperts = RouteArgs::kMaxExperts;

void RouteRow(const float* logit, int experts, int slots, bool normalize, int32_t* expert,
              float* weight) {
  float chunk_max[kMaxExperts / kLogitChunk], max;
  if (!SimdScanLogits(logit, experts, &max, chunk_max)) {
    for (int slot = 0; slot < slots; ++slot) expert[slot] = slot;
    std::fill_n(weight, slots, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  float power[kMaxExperts];
  SimdWeights(logit, experts, max, 1.0f, power);
  int32_t order[kMaxExperts];
  for (int e = 0; e < experts; ++e) order[e] = e;
  std::partial_sort(order, order + slots, order + experts, [logit](int32_t a, int32_t b) {
    return logit[a] != logit[b] ? logit[a] > logit[b] : a < b;
  });
  float sum = 0;
  if (normalize) {
    for (int slot = 0; slot < slots; ++slot) sum += power[order[slot]];
  } else {
    for (int e = 0; e < experts; ++e) sum += power[e];
  }
  for (int slot = 0; slot < slots; ++slot) {
    expert[slot] = order[slot];
    weight[slot] = power[order[slot]] / sum;
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
  const int experts = static_cast<int>(args.logits.dim[1]);
  const int slots = static_cast<int>(args.expert.dim[1]);
  constexpr int64_t kWork = 16;  // about: a logit is scanned, exponentiated and compared
  ForEachRow(pool, args.logits.dim[0], experts * kWork, [&](int64_t row) {
    RouteRow(args.logits.As<float>() + row * experts, experts, slots, args.normalize,
             args.expert.As<int32_t>() + row * slots, args.weight.As<float>() + row * slots);
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
