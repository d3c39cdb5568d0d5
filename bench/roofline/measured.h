// SPDX-License-Identifier: Apache-2.0
// Measured rates beside what the same step takes at least. Pure; any thread.
#pragma once

#include <optional>
#include <string>

#include "bench/roofline/predict.h"
#include "models/json.h"

namespace fairlead::bench {

struct Comparison {
  std::string test = {};
  double measured_ms = 0;  // of a token of every sequence, or of the whole prompt
  Predicted predicted = {};
};

// Of an entry of engine_bench's "tests". A decode's context is that in the middle of its run. None
// for a mix of prompts and decodes, which is many different steps, and for a rate of 0. A prompt is
// computed in steps of up to `max_batched_tokens`, which read the weights each: that is counted in
// kernels_ms; floor_ms is of one step.
std::optional<Comparison> CompareTest(const Json& test, int64_t max_batched_tokens,
                                      const ModelConfig& model, const ModelDTypes& dtypes,
                                      const DeviceLimits& limits, Arithmetic arithmetic,
                                      double launch_us);

// {"test", "measured_ms", "floor_ms", "kernels_ms"}
Json ComparisonJson(const Comparison& comparison);

// The limits that a run measured on its device (limits/device_limits.h, as JSON): copies of memory,
// and the best of its own matmuls for all arithmetic and for attention. Null where one is missing.
std::optional<DeviceLimits> MeasuredLimits(const Json& limits);

// Of a folder's config.json or a GGUF file.
absl::StatusOr<ModelConfig> LoadShape(const std::string& path);

}  // namespace fairlead::bench
