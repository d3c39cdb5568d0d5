// SPDX-License-Identifier: Apache-2.0
// A server of ours as a child process, and one call of serve_bench. One thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/suite/process.h"
#include "models/json.h"

namespace fairlead::bench {

struct RunningServer {
  Background process;
  std::string http, grpc;  // host:port
};

// Runs `fairlead serve ...` and waits for its "ready" line. Messages go to `log`, which errors
// name.
absl::StatusOr<RunningServer> StartFairlead(const std::vector<std::string>& command,
                                            absl::Duration timeout, const std::string& log);

// The summary of one point. `program`: serve_bench and what stands before it; `protocol`: "--http"
// or "--grpc".
absl::StatusOr<Json> RunServeBench(const std::vector<std::string>& program,
                                   const std::string& protocol, const std::string& address,
                                   const std::vector<std::string>& arguments,
                                   const std::string& log);

}  // namespace fairlead::bench
