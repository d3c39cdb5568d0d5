// SPDX-License-Identifier: Apache-2.0
// Keeps a server under a load, closed or open loop, and collects the records.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "bench/serve/request.h"
#include "bench/serve/target.h"
#include "bench/serve/workload.h"

namespace fairlead::serve_bench {

struct LoadPlan {
  // Closed loop: so many users, each asks again when answered. A user stays with a session to its
  // end. Open loop when there is a rate: at each arrival the session that waits longest goes on, or
  // a new one begins, whatever is still in flight.
  int concurrency = 1;
  std::optional<double> rate = {};  // requests/s
  double burstiness = 1;
  int64_t max_requests = 0;   // injected ones do not count; 0: no bound
  double max_duration_s = 0;  // nothing is sent after; 0: no bound. One of the two is needed
  int64_t max_errors = 0;     // then nothing more is sent; 0: no bound
  uint64_t seed = 0;          // of the arrivals
};

struct Progress {
  int64_t sent = 0, done = 0, failed = 0;
  int64_t completion_tokens = 0;
  double elapsed_s = 0;
  int64_t max_requests = 0;  // as in the plan
  double max_duration_s = 0;
};

struct LoadResult {
  std::vector<Record> records;  // in the order of their ends
  bool gave_up = false;         // max_errors
};

// Blocks until every request has ended. `on_progress` is called on this thread a few times a
// second.
LoadResult RunLoad(Target& target, const Workload& workload, const LoadPlan& plan,
                   const std::function<void(const Progress&)>& on_progress);

}  // namespace fairlead::serve_bench
