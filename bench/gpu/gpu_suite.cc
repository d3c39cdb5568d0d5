// SPDX-License-Identifier: Apache-2.0
// gpu_suite: everything that bench/run.sh gpu measures, as one result file, which is written anew
// after each part: a machine that goes away takes no result with it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "bench/common/options.h"
#include "bench/gpu/parts.h"
#include "bench/suite/facts.h"
#include "bench/suite/process.h"
#include "bench/suite/suite.h"
#include "bench/suite/void_rule.h"
#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

// What no program can measure, and why.
constexpr std::pair<const char*, const char*> kMissing[] = {
    {"transfers from pinned memory",
     "the Device interface hands out none: host_to_device is from ordinary memory"},
    {"a copy of device memory",
     "the Device interface has none: memory_copy is GatherRows and ActivateAndMul"},
};

struct CommandLine {
  GpuOptions gpu;
  std::string scale = "full", checkout, output, name, shown;
  std::vector<std::string> peers;
};

void AddOptions(CLI::App& app, CommandLine& line) {
  app.add_option("--device", line.gpu.device, "as of fairlead serve")->required();
  app.add_option("--scale", line.scale, "full, or tiny: a rehearsal on a slow device");
  app.add_option("-m,--model", line.gpu.model, "the GGUF file of SmolLM2-135M (--scale full)");
  app.add_option("--tests", line.gpu.tests_folder, "a build folder whose gpu tests are run first");
  app.add_option("--peer", line.peers,
                 "an OpenAI server's URL, or a command that takes llama-bench's options");
  app.add_option("--peer-transformers", line.gpu.transformers_python,
                 "a Python that has torch and transformers");
  app.add_option("--peer-vllm", line.gpu.vllm_python, "a Python that has vllm");
  app.add_option("--name", line.name, "of the result");
  app.add_option("--output", line.output, "the result file")->required();
  app.add_option("--checkout", line.checkout, "folder of the sources")->required();
  app.add_option("--command", line.shown, "what to write as the command");
}

absl::Status ReadOptions(CommandLine& line, const char* program) {
  auto plan = MakeGpuPlan(line.scale);
  if (!plan.ok()) return plan.status();
  GpuOptions& gpu = line.gpu;
  gpu.plan = *std::move(plan);
  // The other tests of the label are for machines without a GPU.
  if (gpu.IsGpu()) gpu.plan.tests_filter = "^gpu_device_test$";
  gpu.checkout = std::filesystem::absolute(line.checkout).lexically_normal().string();
  gpu.programs = std::filesystem::absolute(program).parent_path().string();
  gpu.log = line.output + ".log";
  std::filesystem::remove(gpu.log);
  for (const GpuModel& model : gpu.plan.models) {
    if (!std::filesystem::exists(gpu.ModelFolder(model)))
      return absl::InvalidArgumentError(
          StrCat("--model: '", gpu.ModelFolder(model), "' does not exist, for ", model.title));
  }
  for (const std::string& text : line.peers) {
    auto peer = ParsePeer(text, gpu.checkout + "/bench");
    if (!peer.ok()) return peer.status();
    gpu.peers.push_back(*std::move(peer));
  }
  return absl::OkStatus();
}

class Suite {
 public:
  explicit Suite(CommandLine& line) : line_(line), gpu_(line.gpu) {}

  absl::Status Run() {
    if (absl::Status status = Describe(); !status.ok()) return status;
    PrintBudget();
    if (!gpu_.tests_folder.empty())
      Part("tests", gpu_.plan.tests_s, [this] { return Store("tests", RunGpuTests(gpu_)); });
    Part("limits", gpu_.plan.limits_s * 3 / 5, [this] { return StoreLimits("before"); });
    Part("ops", gpu_.plan.ops_s, [this] { return Store("ops", RunGpuOps(gpu_)); });
    Part("invariance", gpu_.plan.invariance_s, [this] {
      const Json limits = LimitsBefore();
      result_["invariance"] = Json::array();
      return RunGpuInvariance(gpu_, limits, description_, result_["invariance"]);
    });
    for (const GpuModel& model : gpu_.plan.models) {
      Part("engine, " + model.title, model.budget_s,
           [&] { return Append("engine", RunGpuEngine(gpu_, model)); });
    }
    for (const GpuModel& model : gpu_.plan.models) {
      if (!model.graphs || !has_graphs_) continue;
      Part("graphs, " + model.title, gpu_.plan.graphs_s, [&] { return Graphs(model); });
    }
    for (const GpuModel& model : gpu_.plan.models) {
      if (!model.serves) continue;
      Part("serving, " + model.title, gpu_.plan.serving_s,
           [&] { return Append("serving", RunGpuServing(gpu_, model)); });
    }
    if (!gpu_.peers.empty() || !gpu_.transformers_python.empty() || !gpu_.vllm_python.empty())
      Part("peers", gpu_.plan.peers_s, [this] {
        result_["peer_engine"] = Json::array();
        return RunGpuPeers(gpu_, result_["peer_engine"]);
      });
    Part("limits, after", gpu_.plan.limits_s * 2 / 5, [this] { return StoreLimits("after"); });
    Part("predictions", 1, [this] { return Predict(); });
    return Finish();
  }

 private:
  absl::Status Describe() {
    // Ours ends here: its memory is for the programs that follow.
    const auto device = OpenDevice(gpu_.device, {});
    if (!device.ok()) return absl::UnavailableError(device.status().message());
    const DeviceInfo& info = (*device)->info();
    description_ = info.description;
    has_graphs_ = info.graphs;
    result_ = {{"kind", "gpu"},
               {"name", line_.name},
               {"date", absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone())}};
    result_.update(CommitFacts(gpu_.checkout));
    result_.update({{"command", line_.shown},
                    {"scale", gpu_.plan.scale},
                    {"device", info.name},
                    {"description", info.description},
                    {"device_memory_bytes", info.memory_bytes},
                    {"activation_dtype", Info(info.activation_dtype).name},
                    {"kv_dtype", Info(info.kv_dtype).name}});
    for (const DType dtype : info.weight_dtypes)
      result_["weight_dtypes"].push_back(Info(dtype).name);
    result_["machine"] = MachineFacts();
    result_["build"] = BuildFacts();
    for (const char* key : {"budget", "failed", "missing", "engine", "graphs", "serving", "peers"})
      result_[key] = Json::array();
    for (const auto& [what, why] : kMissing) Miss(what, why);
    for (const Peer& peer : gpu_.peers) result_["peers"].push_back(peer.name);
    AddPeer("transformers", gpu_.transformers_python, "torch and transformers");
    if (gpu_.IsGpu()) {
      AddPeer("vllm", gpu_.vllm_python, "vllm");
    } else {
      gpu_.vllm_python.clear();
      Miss("vllm as a peer", StrCat("it is measured on GPUs, and ", info.name, " is none"));
    }
    if (!info.graphs) Miss("graphs", StrCat(info.name, " has none"));
    LeaveOutModels(info.weight_dtypes);
    return absl::OkStatus();
  }

  void Miss(const std::string& what, const std::string& why) {
    result_["missing"].push_back({{"what", what}, {"why", why}});
  }

  void AddPeer(const std::string& name, const std::string& python, const char* packages) {
    if (!python.empty()) {
      result_["peers"].push_back(name);
      return;
    }
    Miss(name + " as a peer",
         StrCat("no Python with ", packages, " was found or named: --peer-", name));
  }

  // Those with weights that the device does not take.
  void LeaveOutModels(const std::vector<DType>& has) {
    std::erase_if(gpu_.plan.models, [&](const GpuModel& model) {
      const auto dtype = ParseDType(model.weights);
      const bool fits = model.weights.empty() ||
                        (dtype && std::find(has.begin(), has.end(), *dtype) != has.end());
      if (!fits) {
        Miss("engine, " + model.title, StrCat("the device takes no weights of ", model.weights));
      }
      return !fits;
    });
  }

  void PrintBudget() {
    Say(StrCat("budget: ", gpu_.plan.TotalSeconds(), " s: tests ", gpu_.plan.tests_s, ", limits ",
               gpu_.plan.limits_s, ", ops ", gpu_.plan.ops_s, ", invariance ",
               gpu_.plan.invariance_s, ", peers ", gpu_.plan.peers_s));
    for (const GpuModel& model : gpu_.plan.models) {
      Say(StrCat("budget: engine, ", model.title, ": ", model.budget_s,
                 model.graphs ? StrCat(", graphs ", gpu_.plan.graphs_s) : "",
                 model.serves ? StrCat(", serving ", gpu_.plan.serving_s) : ""));
    }
  }

  void Part(const std::string& name, int budget_s, const std::function<absl::Status()>& run) {
    Say(StrCat(name, " (", budget_s, " s)"));
    const absl::Time begin = absl::Now();
    const absl::Status status = run();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    result_["budget"].push_back({{"part", name}, {"budget_s", budget_s}, {"took_s", seconds}});
    if (!status.ok()) {
      const std::string why(status.message());
      result_["failed"].push_back({{"part", name}, {"why", why}});
      Say(StrCat(name, ": FAILED: ", why));
    }
    if (absl::Status written = WriteJson(line_.output, result_); !written.ok())
      Say(std::string(written.message()));
  }

  absl::Status Store(const char* key, absl::StatusOr<Json> part) {
    if (part.ok()) result_[key] = *std::move(part);
    return part.status();
  }

  absl::Status Append(const char* key, absl::StatusOr<Json> part) {
    if (part.ok()) result_[key].push_back(*std::move(part));
    return part.status();
  }

  absl::Status StoreLimits(const char* when) {
    auto limits = RunGpuLimits(gpu_);
    if (limits.ok()) result_["limits"][when] = *std::move(limits);
    return limits.status();
  }

  Json LimitsBefore() const {
    return result_.value("limits", Json::object()).value("before", Json::array());
  }

  absl::Status Graphs(const GpuModel& model) {
    const auto rows = RunGpuGraphs(gpu_, model);
    if (!rows.ok()) return rows.status();
    for (const Json& row : *rows) {
      if (!row["on"].contains("idle_us")) {
        Miss(model.title + ": the device's idle time between steps", "its events have no times");
      }
      result_["graphs"].push_back(row);
    }
    return absl::OkStatus();
  }

  absl::Status Predict() {
    absl::Status status = Store(
        "against", CompareWithPredicted(gpu_, result_["engine"], LimitsBefore(), description_));
    status.Update(Store("predicted", PredictForTable(gpu_)));
    return status;
  }

  absl::Status Finish() {
    Json& limits = result_["limits"];
    if (limits.is_object() && limits.contains("before") && limits.contains("after"))
      limits.update(JudgeLimits(LimitsOf(limits["before"]), LimitsOf(limits["after"])));
    if (limits.is_object() && limits.value("void", false))
      Say(StrCat("VOID: the device changed while it was measured: ", limits["reason"].dump()));
    if (absl::Status status = WriteJson(line_.output, result_); !status.ok()) return status;
    if (const Json tests = result_.value("tests", Json()); tests.is_object()) {
      if (!tests["failed"].empty())
        return absl::InternalError(StrCat("tests failed: ", tests["failed"].dump()));
    }
    if (result_["failed"].empty()) return absl::OkStatus();
    return absl::InternalError(
        StrCat(result_["failed"].size(), " parts failed; the others are in ", line_.output));
  }

  static std::vector<Limit> LimitsOf(const Json& entries) {
    std::vector<Limit> limits;
    for (const Json& entry : entries) {
      // Copies from ordinary host memory are at the mercy of the host.
      if (entry["name"] != "memory_copy" && entry["name"] != "matmul") continue;
      limits.push_back({.name = entry["name"],
                        .isa = entry["isa"],
                        .unit = entry["unit"],
                        .threads = entry["threads"],
                        .samples = entry["samples"].get<std::vector<double>>()});
    }
    return limits;
  }

  CommandLine& line_;
  GpuOptions& gpu_;
  std::string description_;
  bool has_graphs_ = false;
  Json result_;
};

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  CLI::App app("Measures everything that bench/run.sh gpu reports.", "gpu_suite");
  fairlead::bench::CommandLine line;
  fairlead::bench::AddOptions(app, line);
  CLI11_PARSE(app, argc, argv);
  absl::Status status = fairlead::bench::ReadOptions(line, argv[0]);
  if (status.ok()) status = fairlead::bench::Suite(line).Run();
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
