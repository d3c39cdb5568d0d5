// SPDX-License-Identifier: Apache-2.0
// bench_suite: everything that bench/run.sh measures, as one result file.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string>

#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "bench/common/model_facts.h"
#include "bench/common/options.h"
#include "bench/limits/limits.h"
#include "bench/suite/facts.h"
#include "bench/suite/process.h"
#include "bench/suite/suite.h"
#include "bench/suite/void_rule.h"
#include "kernels/cpu/host_info.h"
#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

// The file that tests/golden/smollm2 was made of.
constexpr char kGoldenModel[] = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const std::vector<std::string> kPhases = {"ops",  "engine",   "sweep",  "start",
                                          "busy", "fidelity", "serving"};

struct CommandLine {
  SuiteOptions suite;
  std::string checkout = ".", name, output, dummy_dtype = "q4_0", numerics = "precise,fast", only;
  std::vector<std::string> peers;
  std::string shown;  // the command as it was given to bench/run.sh
};

void AddOptions(CLI::App& app, CommandLine& line) {
  app.add_option("-m,--model", line.suite.model,
                 "GGUF file or model folder; a folder with a config.json alone gets random weights")
      ->required();
  app.add_option("--dummy-dtype", line.dummy_dtype, "of random weights")->capture_default_str();
  app.add_option("--peer", line.peers,
                 "llama:PREFIX, openvino:PYTHON, an OpenAI server's URL, or a command that takes "
                 "llama-bench's options; may come several times");
  app.add_flag("--quick", line.suite.quick, "fewer rounds and points: a look, not a result");
  app.add_option("-t,--threads", line.suite.threads, "CPU threads; 0: one per core");
  app.add_option("--numerics", line.numerics, "of ours")->capture_default_str();
  app.add_option("--rounds", line.suite.rounds, "A-B-A-B rounds (default 5, 2 with --quick)")
      ->check(CLI::Range(1, 100));
  app.add_option("--only", line.only, "some of ops,engine,sweep,start,busy,fidelity,serving");
  app.add_option("--name", line.name, "of the result (default: cpu-<date>-<commit>)");
  app.add_option("--output", line.output, "the result file")->required();
  app.add_option("--checkout", line.checkout, "folder of the sources")->required();
  app.add_option("--command", line.shown, "what to write as the command");
}

bool IsConfigAlone(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") return false;
  }
  return true;
}

absl::Status ReadOptions(CommandLine& line, const char* program) {
  SuiteOptions& suite = line.suite;
  if (suite.threads == 0) suite.threads = UsableCpus();
  if (suite.quick) suite.rounds = std::min(suite.rounds, 2);
  auto numerics = ParseNameList("--numerics", line.numerics, {"float32", "precise", "fast"});
  if (!numerics.ok()) return numerics.status();
  suite.numerics = *std::move(numerics);
  if (!line.only.empty()) {
    if (const auto only = ParseNameList("--only", line.only, kPhases); !only.ok())
      return only.status();
  }
  suite.checkout = std::filesystem::absolute(line.checkout).lexically_normal().string();
  suite.programs = std::filesystem::absolute(program).parent_path().string();
  suite.log = line.output + ".log";
  std::filesystem::remove(suite.log);
  std::filesystem::path model = std::filesystem::absolute(suite.model).lexically_normal();
  if (!std::filesystem::exists(model))
    return absl::NotFoundError(StrCat("--model: ", model.string(), " does not exist"));
  suite.model = model.string();
  for (const std::string& text : line.peers) {
    auto peer = ParsePeer(text, suite.checkout + "/bench");
    if (!peer.ok()) return peer.status();
    if (const auto command = peer->Command("version"); !command.empty()) {
      const auto version = OutputOf(command, suite.log);
      if (!version.ok()) return version.status();
      peer->version = std::string(absl::StripAsciiWhitespace(*version));
    }
    suite.peers.push_back(*std::move(peer));
  }
  return absl::OkStatus();
}

// Peers load GGUF files only, so random weights become one.
absl::Status PrepareModel(CommandLine& line) {
  if (!IsConfigAlone(line.suite.model)) return absl::OkStatus();
  const std::string name = std::filesystem::path(line.suite.model).filename().string();
  const std::string file = StrCat(line.suite.programs, "/", name, "-", line.dummy_dtype, ".gguf");
  if (!std::filesystem::exists(file)) {
    Say(StrCat("writing ", file));
    const auto output = OutputOf({line.suite.programs + "/dummy_gguf", "-m", line.suite.model,
                                  "--dummy-dtype", line.dummy_dtype, "-o", file},
                                 line.suite.log);
    if (!output.ok()) return output.status();
  }
  line.suite.model = file;
  line.suite.has_tokenizer = false;
  return absl::OkStatus();
}

absl::StatusOr<Json> DescribeModel(const SuiteOptions& suite) {
  Json model = {{"file", std::filesystem::path(suite.model).filename().string()}};
  if (std::filesystem::is_regular_file(suite.model)) {
    const auto hash = Sha256OfFile(suite.model);
    if (!hash.ok()) return hash.status();
    model["sha256"] = *hash;
    model["bytes"] = std::filesystem::file_size(suite.model);
  }
  const auto source = OpenWeights(suite.model);
  if (!source.ok()) return source.status();
  const auto facts = ModelFacts(**source);
  if (!facts.ok()) return facts.status();
  model.update(*facts);
  return model;
}

Json PeersJson(const std::vector<Peer>& peers) {
  Json out = Json::array();
  for (const Peer& peer : peers) out.push_back({{"name", peer.name}, {"version", peer.version}});
  return out;
}

absl::Status RunPhases(const CommandLine& line, Json& result) {
  const SuiteOptions& suite = line.suite;
  using Phase = std::function<absl::StatusOr<Json>(const SuiteOptions&)>;
  const std::vector<std::pair<std::string, Phase>> phases = {
      {"ops", RunOps},   {"engine", RunEngines},    {"sweep", RunSweep},    {"start", RunStart},
      {"busy", RunBusy}, {"fidelity", RunFidelity}, {"serving", RunServing}};
  const std::string hash = result["model"].value("sha256", "");
  for (const auto& [name, run] : phases) {
    result[name] = nullptr;
    const std::vector<std::string> only =
        line.only.empty() ? kPhases : *ParseNameList("--only", line.only, kPhases);
    if (std::find(only.begin(), only.end(), name) == only.end()) continue;
    if (name == "fidelity" && hash != kGoldenModel) continue;  // nothing to compare with
    absl::StatusOr<Json> part = run(suite);
    if (!part.ok())
      return absl::Status(part.status().code(),
                          StrCat(name, ": ", std::string(part.status().message())));
    result[name] = *std::move(part);
  }
  return absl::OkStatus();
}

absl::Status Run(CommandLine& line, const char* program) {
  if (absl::Status status = ReadOptions(line, program); !status.ok()) return status;
  if (absl::Status status = PrepareModel(line); !status.ok()) return status;
  SuiteOptions& suite = line.suite;
  const Json commit = CommitFacts(suite.checkout);
  const std::string date = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
  Json result = {{"name", line.name}, {"date", date}, {"quick", suite.quick}};
  result.update(commit);
  result["command"] = line.shown;
  result["threads"] = suite.threads;
  result["rounds"] = suite.rounds;
  auto model = DescribeModel(suite);
  if (!model.ok()) return model.status();
  result["machine"] = MachineFacts();
  result["build"] = BuildFacts();
  auto device = OpenDevice("cpu", {.threads = suite.threads});
  if (!device.ok()) return device.status();
  result["device"] = (*device)->info().description;
  device->reset();
  result["model"] = *std::move(model);
  result["peers"] = PeersJson(suite.peers);

  LimitOptions limits;
  limits.threads = {1};
  if (suite.threads > 1) limits.threads.push_back(suite.threads);
  Say("limits, before");
  const std::vector<Limit> before = MeasureLimits(limits);
  if (absl::Status status = RunPhases(line, result); !status.ok()) return status;
  Say("limits, after");
  const std::vector<Limit> after = MeasureLimits(limits);
  result["limits"] = JudgeLimits(before, after);
  result["limits"]["before"] = LimitsJson(before);
  result["limits"]["after"] = LimitsJson(after);
  if (result["limits"]["void"].get<bool>()) {
    Say(StrCat("VOID: the machine changed while it was measured: ",
               result["limits"]["reason"].get<std::string>()));
  }
  Say(StrCat("writing ", line.output));
  return WriteJson(line.output, result);
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  CLI::App app("Measures everything that bench/run.sh reports.", "bench_suite");
  fairlead::bench::CommandLine line;
  fairlead::bench::AddOptions(app, line);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = fairlead::bench::Run(line, argv[0]);
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
