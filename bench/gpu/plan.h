// SPDX-License-Identifier: Apache-2.0
// What bench/run.sh gpu measures, and how long each part may take. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/limits/device_limits.h"

namespace fairlead::bench {

// One setup of the engine.
struct GpuModel {
  std::string title = {};    // "llama-8b q4_0"
  std::string shape = {};    // a folder of bench/models/
  std::string weights = {};  // dtype of random weights; empty: those of --model's file
  std::string kv = {};       // dtype of the KV cache; empty: the device's
  std::string prompts = {}, depths = {}, batches = {};
  int generate = 0;
  int repetitions = 0;
  int tests_s = 0;   // for the tests, once it is loaded
  int budget_s = 0;  // for all of it
  bool serves = false;
  bool graphs = false;  // decoded with and without them
};

struct GpuLoad {
  std::string name = {};
  int input = 0, output = 0, concurrency = 0;
};

struct GpuPlan {
  std::string scale = {};
  int tests_s = 0, limits_s = 0, ops_s = 0, invariance_s = 0, peers_s = 0;  // budgets
  int serving_s = 0;              // of each model that serves
  int graphs_s = 0;               // of each model with them
  std::string tests_filter = {};  // of ctest's names; empty: all
  DeviceLimitOptions limits = {};
  std::string ops_filter = {};
  double ops_min_time_s = 0;
  std::vector<GpuModel> models = {};
  std::vector<GpuLoad> loads = {};       // the closed loop
  std::vector<double> open_shares = {};  // of the rate that the last load reached
  int load_s = 0;                        // of a point
  int vocabulary = 0;                    // the most that random ids may be

  int TotalSeconds() const;
};

// "full": within 8 minutes of one H100; "tiny": the same parts in shapes for a slow device.
// kInvalidArgument otherwise.
absl::StatusOr<GpuPlan> MakeGpuPlan(std::string_view scale);

}  // namespace fairlead::bench
