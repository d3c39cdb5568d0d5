// SPDX-License-Identifier: Apache-2.0
// Records of requests become the figures of a run. kDefinitions says what each one means: it is
// part of --help, and the code follows it. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/request.h"
#include "bench/serve/statistics.h"

namespace fairlead::serve_bench {

extern const char* const kDefinitions;

// Of one request that was answered to its end with at least one token. Milliseconds.
struct RequestMetrics {
  double ttft_ms = 0;
  double e2el_ms = 0;
  double tpot_ms = 0;  // 0 when out <= 1
  double ntpot_ms = 0;
};
std::optional<RequestMetrics> MetricsOf(const Record& record);

// Upper bounds that a good request keeps, all of them. Milliseconds.
struct Slo {
  std::optional<double> ttft_ms, tpot_ms, e2el_ms, ntpot_ms;

  bool empty() const { return !ttft_ms && !tpot_ms && !e2el_ms && !ntpot_ms; }
  bool IsMetBy(const RequestMetrics& metrics) const;
};
// "ttft:500", "tpot:30", "e2el:2000", "ntpot:40"; each name once, values above 0.
absl::StatusOr<Slo> ParseSlo(const std::vector<std::string>& terms);

struct Summary {
  int64_t sent = 0, ok = 0, cancelled = 0, failed = 0;
  std::map<std::string, int64_t> errors;                                // by kind
  double duration_s = 0;                                                // first send to last end
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;  // of the ok ones
  double requests_per_s = 0, output_tokens_per_s = 0, total_tokens_per_s = 0;
  std::optional<double> goodput_per_s;  // requests/s; with an Slo only
  std::optional<double> good_share;     // of those sent and not cancelled by us; with an Slo only
  int peak_concurrency = 0;
  Spread ttft_ms, tpot_ms, itl_ms, e2el_ms, ntpot_ms, send_lag_ms;
  double tokens_per_event = 0;  // above 1: ITL is the gap between bundles of tokens
};
Summary Summarize(const std::vector<Record>& records, const Slo& slo);

}  // namespace fairlead::serve_bench
