// SPDX-License-Identifier: Apache-2.0
// roofline: how fast a model can be at most on chips that need not be there, and how near to that
// a measurement came.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "bench/common/options.h"
#include "bench/roofline/measured.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

constexpr char kAbout[] =
    R"(Predicts decode and prefill times of a model on the chips of bench/roofline/devices.json.
floor:   weights and KV are read once and every product is made, at the chip's limits; nothing else
kernels: every kernel also reads what the one before it wrote, and costs --launch-us
--measured prints a result of engine_bench beside both, by the limits of --device.)";

struct Options {
  std::string model, weights = "bf16,q8_0,q4_0", kv = "f16", activations = "f32";
  std::string table = FAIRLEAD_BENCH_DIR "/roofline/devices.json", limits = "sheet", device;
  std::string arithmetic = "bf16", measured, json;
  std::string batches = "1,8,32", contexts = "256,1024,4096", prompts = "128,512,2048";
  double launch_us = 1.3;
};

void AddOptions(CLI::App& app, Options& o) {
  app.add_option("-m,--model", o.model, "a folder with a config.json, or a GGUF file")->required();
  app.add_option("--weights", o.weights, "dtypes of the matrices")->capture_default_str();
  app.add_option("--kv", o.kv, "dtype of keys and values")->capture_default_str();
  app.add_option("--activations", o.activations, "dtype between kernels")->capture_default_str();
  app.add_option("--devices", o.table, "the table")->capture_default_str();
  app.add_option("--device", o.device, "one of it, by id (default: all)");
  app.add_option("--limits", o.limits, "of the data sheet, or what was reached by measurement")
      ->capture_default_str()
      ->check(CLI::IsMember({"sheet", "reached"}));
  app.add_option("--arithmetic", o.arithmetic, "which units multiply")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "fp8", "int8"}));
  app.add_option("--launch-us", o.launch_us,
                 "of a kernel; 1.3 is that of a graph's kernel on an H100 (Hazy Research, \"Look "
                 "Ma, No Bubbles!\")")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("-b,--batch", o.batches, "of decodes")->capture_default_str();
  app.add_option("-c,--context", o.contexts, "of decodes")->capture_default_str();
  app.add_option("-p,--n-prompt", o.prompts, "of prefills")->capture_default_str();
  app.add_option("--measured", o.measured, "a result of engine_bench --json or bench/run.sh gpu");
  app.add_option("--json", o.json, "write the predictions there, '-' is stdout")->type_name("FILE");
}

struct Settings {
  ModelConfig model;
  std::vector<ModelDTypes> dtypes;  // one for each dtype of weights
  std::vector<TableDevice> devices;
  Arithmetic arithmetic = Arithmetic::kBF16;
  PredictionGrid grid;

  const DeviceLimits& LimitsOf(const TableDevice& device, const Options& options) const {
    return options.limits == "sheet" ? device.sheet : device.reached;
  }
};

absl::StatusOr<DType> DTypeOf(const char* option, const std::string& name) {
  const auto dtype = ParseDType(name);
  if (!dtype || *dtype == DType::kI32)
    return absl::InvalidArgumentError(StrCat(option, ": '", name, "' is no dtype of numbers"));
  return *dtype;
}

absl::Status ReadDTypes(const Options& options, Settings& settings) {
  const auto kv = DTypeOf("--kv", options.kv);
  const auto activations = DTypeOf("--activations", options.activations);
  if (!kv.ok()) return kv.status();
  if (!activations.ok()) return activations.status();
  for (size_t at = 0; at <= options.weights.size();) {
    const size_t comma = std::min(options.weights.find(',', at), options.weights.size());
    const std::string name = options.weights.substr(at, comma - at);
    const auto weights = DTypeOf("--weights", name);
    if (!weights.ok()) return weights.status();
    if (!IsWeightType(*weights))
      return absl::InvalidArgumentError(StrCat("--weights: no weights are of ", name));
    settings.dtypes.push_back({.weights = *weights, .kv = *kv, .activations = *activations});
    at = comma + 1;
  }
  return absl::OkStatus();
}

absl::Status ReadDevices(const Options& options, Settings& settings) {
  auto table = LoadDeviceTable(options.table);
  if (!table.ok()) return table.status();
  std::string known;
  for (TableDevice& device : *table) {
    StrAppend(&known, known.empty() ? "" : ", ", device.id);
    if (options.device.empty() || options.device == device.id)
      settings.devices.push_back(std::move(device));
  }
  if (!settings.devices.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("--device: '", options.device, "' is none of ", known));
}

absl::StatusOr<Settings> ReadOptions(const Options& options) {
  Settings settings;
  absl::Status status = ReadDTypes(options, settings);
  status.Update(ReadDevices(options, settings));
  for (const Arithmetic a :
       {Arithmetic::kF32, Arithmetic::kBF16, Arithmetic::kFp8, Arithmetic::kInt8}) {
    if (options.arithmetic == ArithmeticName(a)) settings.arithmetic = a;
  }
  const auto read = [&status](const char* name, const std::string& text, std::vector<int>& out) {
    auto values = ParseIntList(name, text, 1, 1 << 24);
    if (values.ok()) out = *std::move(values);
    status.Update(values.status());
  };
  read("-b", options.batches, settings.grid.batches);
  read("-c", options.contexts, settings.grid.contexts);
  read("-p", options.prompts, settings.grid.prompts);
  if (status.ok() && !options.measured.empty() && settings.devices.size() != 1)
    status = absl::InvalidArgumentError("--measured needs --device: whose limits?");
  if (!status.ok()) return status;
  auto model = LoadShape(options.model);
  if (!model.ok()) return model.status();
  settings.model = *std::move(model);
  return settings;
}

void PrintGrid(const TableDevice& device, const ModelDTypes& dtypes, const Json& grid) {
  std::printf("%s, %s weights: %.2f GB, room for %s tokens of KV beside them\n",
              device.title.c_str(), std::string(Info(dtypes.weights).name).c_str(),
              grid["weight_gb"].get<double>(),
              grid["kv_tokens"].is_null() ? "no" : grid["kv_tokens"].dump().c_str());
  std::printf("  %-28s %12s %12s %12s\n", "", "floor ms", "kernels ms", "tokens/s");
  const auto print = [](const std::string& name, const Json& row) {
    std::printf("  %-28s %12.3f %12.3f %12.0f\n", name.c_str(), row["floor_ms"].get<double>(),
                row["kernels_ms"].get<double>(), row["tokens_per_s"].get<double>());
  };
  for (const Json& row : grid["decode"])
    print(StrCat("decode b", row["batch"].get<int>(), " @ ", row["context"].get<int>()), row);
  for (const Json& row : grid["prefill"]) print(StrCat("prefill ", row["prompt"].get<int>()), row);
}

absl::Status PrintMeasured(const Options& options, const Settings& settings) {
  std::ifstream file(options.measured);
  if (!file) return absl::NotFoundError(StrCat(options.measured, ": cannot be read"));
  const auto json = ParseJson(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!json.ok()) return json.status();
  if (!json->is_object())
    return absl::InvalidArgumentError(StrCat(options.measured, ": no result of engine_bench"));
  const Json setups = json->value("setups", json->value("engine", Json()));
  if (!setups.is_array() || setups.empty() || !setups[0].contains("tests"))
    return absl::InvalidArgumentError(StrCat(options.measured, ": no result of engine_bench"));
  const TableDevice& device = settings.devices[0];
  int rows = 0;
  const std::string shape = std::filesystem::path(options.model).filename().string();
  std::printf("%-36s %12s %12s %12s %8s %8s\n", "", "measured ms", "floor ms", "kernels ms",
              ": floor", ": kernels");
  for (const Json& setup : setups) {
    if (!setup.is_object() || !setup.contains("tests") || setup.value("shape", shape) != shape) {
      continue;  // of another model
    }
    const int64_t step = setup.value("max_batched_tokens", int64_t{256});
    if (step < 1) {
      return absl::InvalidArgumentError(
          StrCat(options.measured, ": max_batched_tokens ", step, "; at least 1"));
    }
    ModelDTypes dtypes = settings.dtypes[0];
    if (const auto dtype = ParseDType(setup.value("weights", ""))) dtypes.weights = *dtype;
    if (const auto dtype = ParseDType(setup.value("kv_dtype", ""))) dtypes.kv = *dtype;
    if (const auto dtype = ParseDType(setup.value("activation_dtype", "")))
      dtypes.activations = *dtype;
    for (const Json& test : setup["tests"]) {
      const auto row =
          CompareTest(test, step, settings.model, dtypes, settings.LimitsOf(device, options),
                      settings.arithmetic, options.launch_us);
      if (!row) continue;
      const Predicted& p = row->predicted;
      std::printf("%-36s %12.3f %12.3f %12.3f %8.2f %8.2f\n",
                  StrCat(Info(dtypes.weights).name, " ", row->test).c_str(), row->measured_ms,
                  p.floor_ms, p.kernels_ms, row->measured_ms / p.floor_ms,
                  row->measured_ms / p.kernels_ms);
      ++rows;
    }
  }
  if (rows > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat(options.measured, ": no test of ", shape));
}

absl::Status Run(const Options& options) {
  const absl::StatusOr<Settings> settings = ReadOptions(options);
  if (!settings.ok()) return settings.status();
  if (!options.measured.empty()) return PrintMeasured(options, *settings);
  Json out = {{"program", "roofline"}, {"limits", options.limits}, {"predictions", Json::array()}};
  for (const TableDevice& device : settings->devices) {
    for (const ModelDTypes& dtypes : settings->dtypes) {
      const DeviceLimits& limits = settings->LimitsOf(device, options);
      if (MatmulRate(limits, settings->arithmetic) == 0) {
        return absl::InvalidArgumentError(StrCat("--arithmetic: the table has no rate of ",
                                                 options.arithmetic, " for ", device.id));
      }
      Json grid = PredictGrid(settings->model, dtypes, limits, device.memory_bytes,
                              settings->arithmetic, options.launch_us, settings->grid);
      if (options.json != "-") PrintGrid(device, dtypes, grid);
      Json entry = {
          {"device", device.id}, {"weights", Info(dtypes.weights).name}, {"source", limits.source}};
      entry.update(grid);
      out["predictions"].push_back(std::move(entry));
    }
  }
  return options.json.empty() ? absl::OkStatus() : WriteJson(options.json, out);
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  CLI::App app(fairlead::bench::kAbout, "roofline");
  fairlead::bench::Options options;
  fairlead::bench::AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = fairlead::bench::Run(options);
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
