// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/peers.h"

#include "absl/strings/str_split.h"
#include "bench/engine/cases.h"
#include "kernels/strings.h"
#include "models/json.h"

namespace fairlead::bench {
namespace {

std::vector<std::string> Words(const std::string& text) {
  return absl::StrSplit(text, ' ', absl::SkipEmpty());
}

}  // namespace

std::vector<std::string> Peer::Command(std::string_view action) const {
  std::vector<std::string> out = command;
  if (command.empty()) return {};
  if (is_adapter) {
    out.emplace_back(action);
    return out;
  }
  if (action != "bench") return {};
  out.insert(out.end(), {"-o", "jsonl"});
  return out;
}

absl::StatusOr<Peer> ParsePeer(const std::string& text, const std::string& bench_folder) {
  const auto rest_of = [&text](std::string_view prefix) { return text.substr(prefix.size()); };
  if (text.starts_with("http://") || text.starts_with("https://"))
    return Peer{.name = text, .version = "", .url = text, .command = {}};
  if (text.starts_with("llama:")) {
    return Peer{.name = "llama.cpp",
                .version = "",
                .url = "",
                .command = {bench_folder + "/peers/llama.sh", rest_of("llama:")},
                .is_adapter = true};
  }
  if (text.starts_with("openvino:")) {
    return Peer{.name = "openvino",
                .version = "",
                .url = "",
                .command = {rest_of("openvino:"), bench_folder + "/peers/openvino_peer.py"},
                .is_adapter = true};
  }
  Peer peer{.name = text, .version = "", .url = "", .command = Words(text)};
  if (peer.command.empty())
    return absl::InvalidArgumentError(
        "--peer is empty; it takes llama:PREFIX, openvino:PYTHON, a URL or a command");
  return peer;
}

absl::StatusOr<TestSamples> ParseLlamaBench(std::string_view lines) {
  TestSamples samples;
  for (const absl::string_view line :
       absl::StrSplit(AbslView(lines), '\n', absl::SkipWhitespace())) {
    const auto json = ParseJson({line.data(), line.size()});
    if (!json.ok() || !json->is_object())
      return absl::InvalidArgumentError(StrCat("no JSON line of llama-bench: ", std::string(line)));
    EngineCase test;
    test.prompt = json->value("n_prompt", 0);
    test.generate = json->value("n_gen", 0);
    test.depth = json->value("n_depth", 0);
    test.batch = json->value("batch", 1);
    const bool generates = test.generate > 0;
    test.kind =
        generates ? (test.prompt > 0 ? CaseKind::kMixed : CaseKind::kGenerate) : CaseKind::kPrompt;
    std::vector<double>& rates = samples[test.Name()];
    for (const Json& rate : json->value("samples_ts", Json::array())) {
      if (rate.is_number()) rates.push_back(rate.get<double>());
    }
  }
  if (samples.empty()) return absl::InvalidArgumentError("llama-bench printed no JSON line");
  return samples;
}

}  // namespace fairlead::bench
