// SPDX-License-Identifier: Apache-2.0
// What a result says of its samples. Pure functions: any thread.
#pragma once

#include <vector>

#include "models/json.h"

namespace fairlead::bench {

struct Summary {
  double median = 0, min = 0, max = 0;
};

// The middle sample, or the mean of the middle two. All zero without samples.
Summary Summarize(std::vector<double> samples);

// {"median": .., "min": .., "max": .., "samples": [..]} in the order measured.
Json SummaryJson(const std::vector<double>& samples);

}  // namespace fairlead::bench
