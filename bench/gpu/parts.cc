// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/parts.h"

#include <optional>
#include <utility>

#include "bench/common/stats.h"
#include "bench/gpu/ctest_result.h"
#include "bench/roofline/measured.h"
#include "bench/suite/process.h"
#include "bench/suite/suite.h"
#include "kernels/cpu/host_info.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

constexpr double kLaunchUs = 1.3;  // as roofline's --launch-us
// What a peer may take besides its budget: one that compiles and captures graphs starts slowly.
constexpr int kPeerSeconds = 180;

// The program's JSON.
absl::StatusOr<Json> JsonOf(const GpuOptions& options, int seconds,
                            const std::vector<std::string>& command) {
  const auto output = OutputOf(GpuOptions::Limited(seconds, command), options.log);
  if (!output.ok()) return output.status();
  return ParseJson(*output);
}

ModelDTypes DTypesOf(const Json& setup) {
  ModelDTypes dtypes;
  if (const auto dtype = ParseDType(setup.value("weights", ""))) dtypes.weights = *dtype;
  if (const auto dtype = ParseDType(setup.value("kv_dtype", ""))) dtypes.kv = *dtype;
  if (const auto dtype = ParseDType(setup.value("activation_dtype", "")))
    dtypes.activations = *dtype;
  return dtypes;
}

absl::Status AddPeerSamples(const std::string& who, const std::string& title,
                            const std::vector<std::string>& command, const GpuOptions& options,
                            Json& rows) {
  const auto output =
      OutputOf(GpuOptions::Limited(kPeerSeconds + options.plan.peers_s, command), options.log);
  if (!output.ok()) return output.status();
  const auto samples = ParseLlamaBench(*output);
  if (!samples.ok()) return samples.status();
  for (const auto& [test, rates] : *samples) {
    Json row = {{"who", who}, {"title", title}, {"test", test}};
    row.update(SummaryJson(rates));
    rows.push_back(std::move(row));
  }
  return absl::OkStatus();
}

// engine_bench of a model, but for what it shall measure.
std::vector<std::string> EngineCommand(const GpuOptions& options, const GpuModel& model) {
  std::vector<std::string> command = {options.programs + "/engine_bench",
                                      "-m",
                                      options.ModelFolder(model),
                                      "--device",
                                      options.device,
                                      "-n",
                                      StrCat(model.generate),
                                      "-r",
                                      StrCat(model.repetitions),
                                      "--time-limit",
                                      StrCat(model.tests_s),
                                      "--json",
                                      "-"};
  if (!model.weights.empty())
    command.insert(command.end(), {"--load-format", "dummy", "--dummy-dtype", model.weights});
  if (!model.kv.empty()) command.insert(command.end(), {"--kv-cache-dtype", model.kv});
  return command;
}

}  // namespace

std::string GpuOptions::ModelFolder(const GpuModel& model) const {
  return model.weights.empty() ? this->model : checkout + "/bench/models/" + model.shape;
}

bool GpuOptions::IsGpu() const { return device.starts_with("cuda:") || device.starts_with("hip:"); }

std::string GpuOptions::TorchDevice() const {
  return IsGpu() ? "cuda" + device.substr(device.find(':')) : "cpu";
}

std::vector<std::string> GpuOptions::Limited(int seconds, const std::vector<std::string>& command) {
  // GNU coreutils; exit code 124 when the time is over.
  std::vector<std::string> out = {"timeout", "-k", "10", StrCat(seconds)};
  out.insert(out.end(), command.begin(), command.end());
  return out;
}

absl::StatusOr<Json> RunGpuTests(const GpuOptions& options) {
  std::vector<std::string> command = {"ctest", "--test-dir", options.tests_folder,
                                      "-L",    "^gpu$",      "--no-tests=error"};
  if (!options.plan.tests_filter.empty())
    command.insert(command.end(), {"-R", options.plan.tests_filter});
  // Whatever its exit code: the summary says what failed.
  const auto finished = RunCommand(GpuOptions::Limited(options.plan.tests_s, command), options.log);
  if (!finished.ok()) return finished.status();
  absl::StatusOr<Json> result = ParseCtest(finished->output);
  if (!result.ok()) {
    return absl::InternalError(StrCat(std::string(result.status().message()), ", exit code ",
                                      finished->exit_code, " of: ", ShellLine(command)));
  }
  (*result)["filter"] = options.plan.tests_filter;
  return result;
}

absl::StatusOr<Json> RunGpuLimits(const GpuOptions& options) {
  auto json =
      JsonOf(options, 2 * options.plan.limits_s,
             {options.programs + "/limits", "--device", options.device, "--scale",
              options.plan.scale, "-r", StrCat(options.plan.limits.repetitions), "--json", "-"});
  if (!json.ok()) return json.status();
  return (*json)["limits"];
}

absl::StatusOr<Json> RunGpuOps(const GpuOptions& options) {
  const auto json = JsonOf(options, 2 * options.plan.ops_s,
                           {options.programs + "/ops_bench", "--device=" + options.device,
                            "--scale=" + options.plan.scale, "--benchmark_format=json",
                            StrCat("--benchmark_min_time=", options.plan.ops_min_time_s),
                            "--benchmark_filter=" + options.plan.ops_filter});
  if (!json.ok()) return json.status();
  Json rows = Json::array();
  for (const Json& run : (*json)["benchmarks"]) {
    Json row = {{"name", run["name"]}, {"microseconds", run["real_time"]}};
    for (const char* key : {"GB/s", "GFLOP/s", "limit_%"}) {
      if (run.contains(key)) row[key] = run[key];
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<Json> RunGpuEngine(const GpuOptions& options, const GpuModel& model) {
  std::vector<std::string> command = EngineCommand(options, model);
  command.insert(command.end(), {"-p", model.prompts, "-d", model.depths, "-b", model.batches});
  // It may take twice its budget: a result that is late is better than none.
  auto json = JsonOf(options, 2 * model.budget_s, command);
  if (!json.ok()) return json.status();
  Json setup = {{"title", model.title}, {"shape", model.shape}};
  setup["weights"] =
      model.weights.empty() ? (*json)["model"].value("matrix_dtype", "") : model.weights;
  setup.update((*json)["setups"][0]);
  return setup;
}

absl::Status CheckGraphSteps(const std::string& mode, const Json& tests) {
  for (const Json& test : tests) {
    const int64_t graphs = test.value("graph_steps", int64_t{0});
    if ((graphs > 0) == (mode == "on")) continue;
    return absl::InternalError(StrCat("engine_bench --graphs ", mode, ", ", test.value("test", ""),
                                      ": ", graphs, " of ", test.value("steps", int64_t{0}),
                                      " steps were graphs"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> RunGpuGraphs(const GpuOptions& options, const GpuModel& model) {
  Json rows = Json::array();
  for (const std::string mode : {"on", "off"}) {
    std::vector<std::string> command = EngineCommand(options, model);
    command.insert(command.end(), {"-p", "0", "-d", "0", "-b", "1", "--graphs", mode});
    auto json = JsonOf(options, 2 * options.plan.graphs_s, command);
    if (!json.ok()) return json.status();
    const Json& setup = (*json)["setups"][0];
    const Json& tests = setup["tests"];
    if (const absl::Status ran = CheckGraphSteps(mode, tests); !ran.ok()) return ran;
    for (size_t i = 0; i < tests.size(); ++i) {
      if (mode == "on") rows.push_back({{"title", model.title}, {"test", tests[i]["test"]}});
      if (i >= rows.size() || rows[i]["test"] != tests[i]["test"])
        return absl::InternalError("the tests with graphs are not those without");
      for (const char* key : {"median", "min", "max", "samples", "steps", "graph_steps"})
        rows[i][mode][key] = tests[i][key];
      // Of the device, between steps (engine_bench); absent where its events have no times.
      if (tests[i].contains("idle_us")) rows[i][mode]["idle_us"] = tests[i]["idle_us"];
    }
  }
  for (Json& row : rows) {
    if (!row.contains("off"))
      return absl::InternalError("the tests with graphs are not those without");
    row["ratio"] = row["on"]["median"].get<double>() / row["off"]["median"].get<double>();
  }
  if (rows.empty()) return absl::InternalError("no decode fitted in the time");
  return rows;
}

absl::Status RunGpuPeers(const GpuOptions& options, Json& rows) {
  absl::Status status;
  const bool has_file = options.plan.scale == "full";
  for (const Peer& peer : options.peers) {
    if (!has_file && !peer.Command("bench").empty())
      Say(StrCat(peer.name, ": left out: it loads files, and this scale has random weights alone"));
  }
  for (const GpuModel& model : options.plan.models) {
    const std::string generate = StrCat(model.generate);
    // The peers' weights are random and of bf16.
    const auto add = [&](const char* who, const std::string& python,
                         std::vector<std::string> arguments) {
      if (python.empty() || model.weights != "bf16") return;
      std::vector<std::string> command = {
          python,
          StrCat(options.checkout, "/bench/peers/", who, "_peer.py"),
          "bench",
          "-m",
          options.checkout + "/bench/models/" + model.shape,
          "-p",
          model.prompts,
          "-n",
          generate,
          "-b",
          model.batches,
          "-r",
          "2"};
      command.insert(command.end(), arguments.begin(), arguments.end());
      status.Update(AddPeerSamples(who, model.title, command, options, rows));
    };
    add("transformers", options.transformers_python, {"--device", options.TorchDevice()});
    add("vllm", options.vllm_python, {"--device", options.device});
    for (const Peer& peer : options.peers) {
      std::vector<std::string> command = peer.Command("bench");
      if (command.empty() || !model.weights.empty()) continue;  // they load files
      command.insert(command.end(), {"-m", options.model, "-p", model.prompts, "-n", generate, "-d",
                                     "0", "-r", "2"});
      status.Update(AddPeerSamples(peer.name, model.title, command, options, rows));
    }
  }
  return status;
}

absl::StatusOr<Json> CompareWithPredicted(const GpuOptions& options, const Json& engine,
                                          const Json& limits, const std::string& description) {
  const auto table = LoadDeviceTable(options.checkout + "/bench/roofline/devices.json");
  if (!table.ok()) return table.status();
  const TableDevice* chip = FindDevice(*table, description);
  const std::optional<DeviceLimits> measured = MeasuredLimits(limits);
  Json rows = Json::array();
  if (!measured) return rows;
  for (const Json& setup : engine) {
    const auto shape =
        LoadShape(options.checkout + "/bench/models/" + setup["shape"].get<std::string>());
    if (!shape.ok()) return shape.status();
    const ModelDTypes dtypes = DTypesOf(setup);
    const int64_t step = setup["max_batched_tokens"];
    for (const Json& test : setup["tests"]) {
      const auto row =
          CompareTest(test, step, *shape, dtypes, *measured, Arithmetic::kBF16, kLaunchUs);
      if (!row) continue;
      Json json = {{"title", setup["title"]}};
      json.update(ComparisonJson(*row));
      json["sheet_ms"] = nullptr;
      if (chip != nullptr) {
        json["sheet_ms"] =
            CompareTest(test, step, *shape, dtypes, chip->sheet, Arithmetic::kBF16, 0)
                ->predicted.floor_ms;
      }
      rows.push_back(std::move(json));
    }
  }
  return rows;
}

absl::StatusOr<Json> PredictForTable(const GpuOptions& options) {
  const auto table = LoadDeviceTable(options.checkout + "/bench/roofline/devices.json");
  if (!table.ok()) return table.status();
  // Of real models, whatever the scale.
  const absl::StatusOr<GpuPlan> plan = MakeGpuPlan("full");
  if (!plan.ok()) return plan.status();
  Json out = Json::array();
  for (const GpuModel& model : plan->models) {
    if (!model.kv.empty()) continue;
    const auto shape = LoadShape(options.checkout + "/bench/models/" + model.shape);
    if (!shape.ok()) return shape.status();
    // The file of the model without random weights is not what other chips are compared by.
    const ModelDTypes dtypes = {.weights = ParseDType(model.weights).value_or(DType::kBF16)};
    for (const TableDevice& chip : *table) {
      Json entry = {{"title", model.shape + " " + std::string(Info(dtypes.weights).name)},
                    {"device", chip.title},
                    {"source", chip.sheet.source}};
      entry.update(PredictGrid(*shape, dtypes, chip.sheet, chip.memory_bytes, Arithmetic::kBF16,
                               kLaunchUs, {}));
      out.push_back(std::move(entry));
    }
  }
  return out;
}

}  // namespace fairlead::bench
