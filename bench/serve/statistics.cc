// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/statistics.h"

#include <algorithm>
#include <numeric>

namespace fairlead::serve_bench {

double PercentileOfSorted(const std::vector<double>& sorted, double percent) {
  const double position = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double share = position - static_cast<double>(below);
  return sorted[below] + share * (sorted[below + 1] - sorted[below]);
}

Spread SpreadOf(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const double sum = std::accumulate(samples.begin(), samples.end(), 0.0);
  return {.count = samples.size(),
          .mean = sum / static_cast<double>(samples.size()),
          .p50 = PercentileOfSorted(samples, 50),
          .p90 = PercentileOfSorted(samples, 90),
          .p99 = PercentileOfSorted(samples, 99),
          .max = samples.back()};
}

}  // namespace fairlead::serve_bench
