// SPDX-License-Identifier: Apache-2.0
// The parts of bench/run.sh gpu, each a part of its result. Every program is a child process with a
// time limit: what one of them does to the device, or takes too long, costs that part alone. Main
// thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/gpu/plan.h"
#include "bench/suite/peers.h"
#include "models/json.h"

namespace fairlead::bench {

struct GpuOptions {
  GpuPlan plan = {};
  std::string device = {};
  std::string checkout = {}, programs = {},
              log = {};           // folders of the sources and binaries; messages go to
  std::string model = {};         // file of the model without random weights
  std::string tests_folder = {};  // a build folder; empty: no tests are run
  std::vector<Peer> peers = {};
  std::string transformers_python = {};  // an interpreter with torch and transformers; empty: none
  std::string vllm_python = {};          // one with vllm

  std::string ModelFolder(const GpuModel& model) const;
  bool IsGpu() const;               // cuda:N or hip:N
  std::string TorchDevice() const;  // torch calls AMD's chips cuda, too
  // Ends `command` after so many seconds.
  static std::vector<std::string> Limited(int seconds, const std::vector<std::string>& command);
};

// {"tests", "failed", "filter"}
absl::StatusOr<Json> RunGpuTests(const GpuOptions& options);
// As LimitsJson.
absl::StatusOr<Json> RunGpuLimits(const GpuOptions& options);
// As RunOps.
absl::StatusOr<Json> RunGpuOps(const GpuOptions& options);
// A setup of engine_bench and {"title", "shape", "weights"}.
absl::StatusOr<Json> RunGpuEngine(const GpuOptions& options, const GpuModel& model);
// [{"title", "test", "on": SummaryJson, "off", "ratio"}] of decodes of one sequence, by two
// processes. The device has graphs. As CheckGraphSteps, too.
absl::StatusOr<Json> RunGpuGraphs(const GpuOptions& options, const GpuModel& model);
// kInternal when a test of engine_bench --graphs `mode` ("on", "off") ran otherwise than it was
// told.
absl::Status CheckGraphSteps(const std::string& mode, const Json& tests);
// Puts the rows of the program `invariance` into `rows`, with a Python that has torch "torch": its
// library's time of the same bf16 product, and as AddPrices where `limits` were measured. The rows
// stay whatever fails; kInternal also when bits differ.
absl::Status RunGpuInvariance(const GpuOptions& options, const Json& limits,
                              const std::string& description, Json& rows);
// {"title", "rows": the closed loop, "rates": the open one}; URLs among the peers take their turns
// in the closed one.
absl::StatusOr<Json> RunGpuServing(const GpuOptions& options, const GpuModel& model);
// [{"who", "title", "test", median, min, max, samples}]: transformers, vLLM, and commands that take
// llama-bench's options.
// Appends to `rows`; what one peer fails at costs no other its samples.
absl::Status RunGpuPeers(const GpuOptions& options, Json& rows);

// [{"title", "test", "measured_ms", "floor_ms", "kernels_ms", "sheet_ms": null for an unknown
//   chip}] of the setups, by the limits that were measured and by the chip's data sheet.
absl::StatusOr<Json> CompareWithPredicted(const GpuOptions& options, const Json& engine,
                                          const Json& limits, const std::string& description);
// [{"title", "device", "source", ...: as PredictGrid}] of the full plan's models on the table's
// chips.
absl::StatusOr<Json> PredictForTable(const GpuOptions& options);

}  // namespace fairlead::bench
