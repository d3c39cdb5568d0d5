// SPDX-License-Identifier: Apache-2.0
// How long a step takes at least on a device. Pure; any thread.
#pragma once

#include <string_view>
#include <vector>

#include "bench/roofline/devices.h"
#include "bench/roofline/work_of_model.h"
#include "models/json.h"

namespace fairlead::bench {

// Which units multiply.
enum class Arithmetic { kF32, kBF16, kFp8, kInt8 };
std::string_view ArithmeticName(Arithmetic arithmetic);
double MatmulRate(const DeviceLimits& limits, Arithmetic arithmetic);

struct Predicted {
  // No device is faster: max(weights / memory, matmuls / rate) + KV / memory for a decode, and
  // max(weights / memory, matmuls / rate + attention / its rate) for a prefill. Activations stay in
  // caches, launches cost nothing.
  double floor_ms = 0;
  // The sum over the kernels of max(all of their bytes / memory, operations / rate) + launch time:
  // every kernel reads what the one before wrote.
  double kernels_ms = 0;
};

// launch_us: what a kernel costs beyond its work.
Predicted PredictStep(const ModelConfig& model, const ModelDTypes& dtypes, const StepShape& step,
                      const DeviceLimits& limits, Arithmetic arithmetic, double launch_us);

struct PredictionGrid {
  std::vector<int> batches = {1, 8, 32};
  std::vector<int> contexts = {256, 1024, 4096};
  std::vector<int> prompts = {128, 512, 2048};
};

// {"weight_gb", "kv_bytes_per_token", "kv_tokens": beside the weights and 2 GB of others, null when
//  not even those fit,
//  "decode": [{"batch", "context", "floor_ms", "kernels_ms", "tokens_per_s": by the floor}],
//  "prefill": [{"prompt", "floor_ms", "kernels_ms", "tokens_per_s"}]}
Json PredictGrid(const ModelConfig& model, const ModelDTypes& dtypes, const DeviceLimits& limits,
                 double memory_bytes, Arithmetic arithmetic, double launch_us,
                 const PredictionGrid& grid);

}  // namespace fairlead::bench
