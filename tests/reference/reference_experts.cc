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

// False where the row has none.
bool Softmax(const float* logit, int64_t experts, std::vector<double>* probability) {
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (std::isnan(logit[e])) return false;
    max = std::max<double>(max, logit[e]);
  }
  if (std::isinf(max)) return false;
  probability->clear();
  for (int64_t e = 0; e < experts; ++e) {
    probability->push_back(std::exp(logit[e] - max));
    sum += probability->back();
  }
  for (double& p : *probability) p /= sum;
  return true;
}

}  // namespace

void ReferenceOps::Route(Stream&, const RouteArgs& args) const {
  const int64_t tokens = args.logits.dim[0], experts = args.logits.dim[1];
  const int64_t slots = args.expert.dim[1];
  for (int64_t t = 0; t < tokens; ++t) {
    const float* logit = args.logits.As<float>() + t * experts;
    int32_t* expert = args.expert.As<int32_t>() + t * slots;
    float* weight = args.weight.As<float>() + t * slots;
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::vector<double> probability;
    const bool usable = Softmax(logit, experts, &probability);
    if (usable) {
      std::stable_sort(order.begin(), order.end(),
                       [logit](int32_t a, int32_t b) { return logit[a] > logit[b]; });
    }
    double sum = 0;
    for (int64_t j = 0; usable && j < slots; ++j) sum += probability[order[j]];
    for (int64_t j = 0; j < slots; ++j) {
      expert[j] = order[j];
      weight[j] =
          usable ? static_cast<float>(probability[order[j]] / (args.normalize ? sum : 1)) : kNaN;
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
