// SPDX-License-Identifier: Apache-2.0
// Route, GroupedMatmul, CombineExperts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/reference/reference_ops.h"

namespace fairlead::reference {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

bool Usable(const std::vector<float>& row) {
  if (std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); })) return false;
  return std::isfinite(*std::max_element(row.begin(), row.end()));
}

std::vector<double> Scores(RouteArgs::Scores kind, const std::vector<float>& logit) {
  std::vector<double> score;
  if (kind == RouteArgs::Scores::kSigmoid) {
    for (const double x : logit) score.push_back(1 / (1 + std::exp(-x)));
    return score;
  }
  const double max = *std::max_element(logit.begin(), logit.end());
  double sum = 0;
  for (const double x : logit) {
    score.push_back(std::exp(x - max));
    sum += score.back();
  }
  for (double& s : score) s /= sum;
  return score;
}

// 0 to n - 1, the highest score first, ties by lower id.
std::vector<int32_t> Descending(const std::vector<float>& score) {
  std::vector<int32_t> order(score.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return score[a] > score[b]; });
  return order;
}

// The experts that may be chosen, the best first; `compared` as RouteArgs says.
std::vector<int32_t> BestExperts(const RouteArgs& args, const std::vector<float>& compared) {
  const auto in_group = static_cast<int64_t>(compared.size()) / args.groups;
  std::vector<float> group_score;
  for (int64_t g = 0; g < args.groups; ++g) {
    std::vector<float> own(compared.begin() + g * in_group, compared.begin() + (g + 1) * in_group);
    std::sort(own.rbegin(), own.rend());
    group_score.push_back(std::accumulate(own.begin(), own.begin() + args.group_scores, 0.0f));
  }
  std::vector<int32_t> groups = Descending(group_score), order;
  groups.resize(args.chosen_groups);
  for (const int32_t e : Descending(compared)) {
    if (std::count(groups.begin(), groups.end(), e / in_group) > 0) order.push_back(e);
  }
  return order;
}

}  // namespace

void ReferenceOps::Route(Stream&, const RouteArgs& args) const {
  const int64_t tokens = args.logits.dim[0], experts = args.logits.dim[1];
  const int64_t slots = args.expert.dim[1];
  const bool sigmoid = args.scores == RouteArgs::Scores::kSigmoid;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = args.logits.As<float>() + t * experts;
    const std::vector<float> logit(row, row + experts);
    int32_t* expert = args.expert.As<int32_t>() + t * slots;
    float* weight = args.weight.As<float>() + t * slots;
    const std::vector<double> score = Scores(args.scores, logit);
    std::vector<float> compared = logit;
    if (args.bias || args.group_scores > 1) compared.assign(score.begin(), score.end());
    for (int64_t e = 0; args.bias && e < experts; ++e) compared[e] += args.bias.As<float>()[e];
    if (!Usable(logit) || !Usable(compared)) {
      std::iota(expert, expert + slots, 0);
      std::fill_n(weight, slots, kNaN);
      continue;
    }
    const std::vector<int32_t> order = BestExperts(args, compared);
    double sum = sigmoid ? 1e-20 : 0;
    for (int64_t j = 0; j < slots; ++j) sum += score[order[j]];
    for (int64_t j = 0; j < slots; ++j) {
      expert[j] = order[j];
      weight[j] = static_cast<float>(score[order[j]] / (args.normalize ? sum : 1) * args.scale);
    }
  }
}

void ReferenceOps::GroupedMatmul(Stream&, const GroupedMatmulArgs& args) const {
  const auto& weight = static_cast<const ReferenceWeight&>(*args.weight);
  const int64_t pairs = args.expert.elements(), n = weight.group_rows(), cols = weight.cols();
  for (int64_t p = 0; p < pairs; ++p) {
    const int64_t expert = args.expert.As<int32_t>()[p];
    const bool per_slot = args.x.dim[0] == pairs;
    const float* x = args.x.As<float>() + (per_slot ? p : p / args.expert.dim[1]) * cols;
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < cols; ++k) sum += double{x[k]} * weight.At(expert * n + i, k);
      if (args.bias) sum += args.bias.As<float>()[expert * n + i];
      args.out.As<float>()[p * n + i] = static_cast<float>(sum);
    }
  }
}

void ReferenceOps::CombineExperts(Stream&, const CombineExpertsArgs& args) const {
  const int64_t tokens = args.out.dim[0], hidden = args.out.dim[1], slots = args.weight.dim[1];
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < hidden; ++i) {
      float& out = args.out.As<float>()[t * hidden + i];
      double sum = args.accumulate ? out : 0;
      for (int64_t j = 0; j < slots; ++j) {
        sum += double{args.weight.As<float>()[t * slots + j]} *
               args.x.As<float>()[(t * slots + j) * hidden + i];
      }
      out = static_cast<float>(sum);
    }
  }
}

}  // namespace fairlead::reference
