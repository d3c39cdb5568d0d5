// SPDX-License-Identifier: Apache-2.0
// The part with servers: ours, and those of peers that run already.
#include <algorithm>
#include <utility>

#include "bench/gpu/parts.h"
#include "bench/suite/serve_tools.h"
#include "bench/suite/suite.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

struct Target {
  std::string who, protocol, address;
  bool ours = false;
};

class Serving {
 public:
  Serving(const GpuOptions& options, const GpuModel& model) : options_(options), model_(model) {}

  absl::StatusOr<Json> Run() {
    std::vector<std::string> command = {options_.programs + "/fairlead",
                                        "serve",
                                        "--model",
                                        options_.ModelFolder(model_),
                                        "--device",
                                        options_.device,
                                        "--http",
                                        "127.0.0.1:0",
                                        "--grpc",
                                        "127.0.0.1:0",
                                        "--log-level",
                                        "warn"};
    if (!model_.weights.empty()) {
      command.insert(command.end(), {"--load-format", "dummy", "--dummy-dtype", model_.weights,
                                     "--skip-tokenizer"});
    }
    const auto server = StartFairlead(command, absl::Minutes(2), options_.log);
    if (!server.ok()) return server.status();
    std::vector<Target> targets = {{"fairlead http", "--http", "http://" + server->http, true},
                                   {"fairlead grpc", "--grpc", server->grpc, true}};
    for (const Peer& peer : options_.peers) {
      if (!peer.url.empty()) targets.push_back({peer.name, "--http", peer.url});
    }
    Json out = {{"title", model_.title}, {"rows", Json::array()}, {"rates", Json::array()}};
    double reached = 0;  // requests/s of ours under the last load
    for (const GpuLoad& load : options_.plan.loads) {
      for (const Target& target : targets) {
        const auto summary =
            Load(target, load, {"--concurrency", StrCat(load.concurrency), "--warmup", "2"});
        if (!summary.ok() && target.ours) return summary.status();
        if (!summary.ok()) {
          Say(StrCat(target.who, ": left empty: ", std::string(summary.status().message())));
          continue;
        }
        if (&target == &targets[0])
          reached = (*summary)["output_tokens_per_s"].get<double>() / load.output;
        out["rows"].push_back(Row(target, {{"load", load.name}}, *summary));
      }
    }
    for (const double share : options_.plan.open_shares) {
      const double rate = std::max(reached * share, 0.1);
      const auto summary = Load(targets[0], options_.plan.loads.back(), {"--rate", StrCat(rate)});
      if (!summary.ok()) return summary.status();
      out["rates"].push_back(Row(targets[0], {{"requests_per_s", rate}}, *summary));
    }
    return out;
  }

 private:
  absl::StatusOr<Json> Load(const Target& target, const GpuLoad& load,
                            std::vector<std::string> arguments) {
    arguments.insert(arguments.end(),
                     {"--input-tokens", StrCat(load.input), "--output-tokens", StrCat(load.output),
                      "--duration", StrCat(options_.plan.load_s), "--vocabulary",
                      StrCat("100:", options_.plan.vocabulary), "--seed", StrCat(++seed_)});
    if (target.ours && !model_.weights.empty()) arguments.push_back("--return-token-ids");
    return RunServeBench(
        GpuOptions::Limited(60 + options_.plan.load_s, {options_.programs + "/serve_bench"}),
        target.protocol, target.address, arguments, options_.log);
  }

  static Json Row(const Target& target, Json row, const Json& summary) {
    row["who"] = target.who;
    row["output_tokens_per_s"] = summary["output_tokens_per_s"];
    for (const char* latency : {"ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"})
      row[latency] = summary.value(latency, Json());
    return row;
  }

  const GpuOptions& options_;
  const GpuModel& model_;
  int seed_ = 0;  // another each time: no prefix cache may help
};

}  // namespace

absl::StatusOr<Json> RunGpuServing(const GpuOptions& options, const GpuModel& model) {
  return Serving(options, model).Run();
}

}  // namespace fairlead::bench
