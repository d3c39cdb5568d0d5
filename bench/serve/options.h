// SPDX-License-Identifier: Apache-2.0
// The command line. Main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/metrics.h"
#include "bench/serve/target.h"
#include "bench/serve/workload.h"

namespace fairlead::serve_bench {

// One load of a sweep: closed with a concurrency, open with a rate, or offline with neither: all
// sessions at once.
struct LoadPoint {
  std::optional<int> concurrency = {};
  std::optional<double> rate = {};  // requests/s

  std::string ToString() const;
};

struct Options {
  std::string grpc;  // one of the two
  std::string http;
  bool grpc_tls = false;
  TargetOptions target;

  WorkloadSpec workload;
  ContentOptions content;

  std::vector<LoadPoint> points;
  double burstiness = 1;
  int64_t max_requests = 0;
  double max_duration_s = 0;
  int64_t warmup_requests = 0;
  int64_t max_errors = 0;

  Slo slo;
  bool find_knee = false;
  double knee_precision = 0.05;
  int knee_points = 16;

  std::string json_file;
  bool json_requests = false;
  bool allow_errors = false;
  std::vector<std::pair<std::string, std::string>> labels;
  std::string command_line;
};

// How many requests a point sends; 0: as many as --duration allows.
int64_t RequestsAt(const Options& options, const LoadPoint& point);

// kInvalidArgument: wrong usage. kCancelled: --help or --version was asked for and its text is the
// message.
absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv);

}  // namespace fairlead::serve_bench
