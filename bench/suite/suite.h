// SPDX-License-Identifier: Apache-2.0
// The phases of one run of the bench, each giving its part of the result. Main thread.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/suite/peers.h"
#include "models/json.h"

namespace fairlead::bench {

struct SuiteOptions {
  std::string checkout, programs, log;  // folders of the sources and the binaries; messages go to
  std::string model;                    // a GGUF file or a model folder
  bool has_tokenizer = true;
  int threads = 0;  // resolved: at least 1
  int rounds = 5;
  bool quick = false;
  std::vector<std::string> numerics = {"precise", "fast"};
  std::vector<Peer> peers;
};

// A line of progress on stderr, with the seconds since the start.
void Say(const std::string& text);

// Rows of one kind in the order in which they came up: (who, what) and their samples.
class SampleTable {
 public:
  void Add(const std::string& who, const std::string& what, double value);
  // [{"who", "<what_key>", "unit", median, min, max, samples}]
  Json ToJson(const std::string& what_key, const std::string& unit) const;

 private:
  std::vector<std::pair<std::string, std::string>> order_;
  std::map<std::pair<std::string, std::string>, std::vector<double>> samples_;
};

// Ours and the peers in turns. What a peer does not offer, or fails at, is left out and said.
absl::StatusOr<Json> RunEngines(const SuiteOptions& options);
// One more run of ours: decode by batch, and prefill and decode by depth.
absl::StatusOr<Json> RunSweep(const SuiteOptions& options);
// ops_bench on the model's own shapes.
absl::StatusOr<Json> RunOps(const SuiteOptions& options);
// Process start to the first token, seconds.
absl::StatusOr<Json> RunStart(const SuiteOptions& options);
// Decode beside two processes that never rest, as a share of decode alone.
absl::StatusOr<Json> RunBusy(const SuiteOptions& options);
// KL and top-1 against float32; null for a model without golden data.
absl::StatusOr<Json> RunFidelity(const SuiteOptions& options);
// {"rows": requests at once and one at a time, "rates": the sweep in the open loop}
absl::StatusOr<Json> RunServing(const SuiteOptions& options);

}  // namespace fairlead::bench
