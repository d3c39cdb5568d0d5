// SPDX-License-Identifier: Apache-2.0
// A run's figures as a table for people and as JSON lines for programs, and what the server's
// description means for the run. Pure functions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "bench/serve/knee.h"
#include "bench/serve/metrics.h"
#include "bench/serve/options.h"
#include "models/json.h"

namespace fairlead::serve_bench {

// What was run at one point.
struct PointResult {
  LoadPoint point;
  Summary load = {};
  Summary injected = {};  // nothing sent: the workload injects nothing
  bool gave_up = false;
};

// kFailedPrecondition when the workload's prompts cannot fit the context that the server says it
// has; most of them would only be refused. OK where it says none.
absl::Status CheckContext(const Options& options, const Json& server);

std::string Table(const Options& options, const PointResult& result);
std::string KneeLine(const KneeSearch& search);

// {"type": "summary", ...}: the figures, the load, the command line and what the server is.
Json SummaryJson(const Options& options, const PointResult& result, const Json& server);
// {"type": "request", ...}: one record.
Json RequestJson(const Record& record);
// {"type": "knee", ...}
Json KneeJson(const Options& options, const KneeSearch& search, const Json& server);

}  // namespace fairlead::serve_bench
