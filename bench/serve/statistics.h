// SPDX-License-Identifier: Apache-2.0
// Spreads of samples. Pure functions.
#pragma once

#include <cstddef>
#include <vector>

namespace fairlead::serve_bench {

// `sorted` ascending and not empty, `percent` in [0, 100]. Between two samples it interpolates
// linearly: position percent/100 * (n - 1), which is NumPy's default and so that of the Python
// tools.
double PercentileOfSorted(const std::vector<double>& sorted, double percent);

struct Spread {
  size_t count = 0;  // 0: the rest says nothing
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
Spread SpreadOf(std::vector<double> samples);

}  // namespace fairlead::serve_bench
