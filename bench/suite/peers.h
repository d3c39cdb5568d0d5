// SPDX-License-Identifier: Apache-2.0
// Other engines that take turns with ours. Pure but for the commands that they name; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fairlead::bench {

// Of one test, by the name of EngineCase: tokens/s of each repetition.
using TestSamples = std::map<std::string, std::vector<double>>;

struct Peer {
  std::string name;                  // "llama.cpp", "openvino", what was given otherwise
  std::string version;               // filled by whoever asks it
  std::string url;                   // of a running OpenAI server; then there is no command
  std::vector<std::string> command;  // of an adapter (bench/peers/), or of a llama-bench
  bool is_adapter = false;           // takes an action: version, bench, batch, serve

  // The command of an action; empty where the peer has none. A llama-bench has "bench" alone.
  std::vector<std::string> Command(std::string_view action) const;
};

// "llama:PREFIX", "openvino:PYTHON", "http://host:port", or a command that takes llama-bench's
// options. `bench_folder` is where peers/ is.
absl::StatusOr<Peer> ParsePeer(const std::string& text, const std::string& bench_folder);

// llama-bench's JSON lines; "batch", which it does not have, is of adapters that run several
// sequences at once. kInvalidArgument when a line is none or there is no line.
absl::StatusOr<TestSamples> ParseLlamaBench(std::string_view lines);

}  // namespace fairlead::bench
