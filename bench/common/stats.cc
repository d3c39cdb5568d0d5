// SPDX-License-Identifier: Apache-2.0
#include "bench/common/stats.h"

#include <algorithm>

namespace fairlead::bench {

Summary Summarize(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  const double median =
      samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return {.median = median, .min = samples.front(), .max = samples.back()};
}

Json SummaryJson(const std::vector<double>& samples) {
  const Summary summary = Summarize(samples);
  return {
      {"median", summary.median}, {"min", summary.min}, {"max", summary.max}, {"samples", samples}};
}

}  // namespace fairlead::bench
