// SPDX-License-Identifier: Apache-2.0
// limits: what this machine, or a device of it, can do at most, as a table or JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "bench/common/options.h"
#include "bench/limits/device_limits.h"
#include "bench/limits/limits.h"
#include "kernels/cpu/host_info.h"
#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

struct Options {
  std::string device = "cpu", scale = "full", json;
  std::string threads = UsableCpus() == 1 ? "1" : StrCat("1,", UsableCpus());
  int repetitions = 5;
};

absl::StatusOr<Json> MeasureCpu(const Options& options, std::vector<Limit>& limits) {
  auto threads = ParseIntList("-t", options.threads, 1, 1024);
  if (!threads.ok()) return threads.status();
  limits = MeasureLimits({.threads = *std::move(threads), .repetitions = options.repetitions});
  return Json{{"program", "limits"}, {"read_bytes", DefaultReadBytes()}};
}

absl::StatusOr<Json> MeasureDevice(const Options& options, std::vector<Limit>& limits) {
  const auto device = OpenDevice(options.device, {});
  // Which devices there are is a matter of the machine: no wrong usage.
  if (!device.ok()) return absl::UnavailableError(device.status().message());
  DeviceLimitOptions sizes = options.scale == "tiny" ? TinyDeviceLimits() : DeviceLimitOptions();
  sizes.repetitions = options.repetitions;
  auto measured = MeasureDeviceLimits(**device, sizes);
  if (!measured.ok()) return measured.status();
  limits = *std::move(measured);
  return Json{{"program", "limits"},
              {"device", (*device)->info().name},
              {"description", (*device)->info().description}};
}

absl::Status Run(const Options& options) {
  std::vector<Limit> limits;
  absl::StatusOr<Json> result =
      options.device == "cpu" ? MeasureCpu(options, limits) : MeasureDevice(options, limits);
  if (!result.ok()) return result.status();
  if (options.json != "-") {
    std::printf("%-20s %-12s %8s %12s %12s  unit\n", "limit", "isa", "threads", "best", "median");
    for (const Limit& limit : limits) {
      std::printf("%-20s %-12s %8d %12.1f %12.1f  %s\n", limit.name.c_str(), limit.isa.c_str(),
                  limit.threads, limit.best(), limit.median(), limit.unit.c_str());
    }
  }
  (*result)["limits"] = LimitsJson(limits);
  return options.json.empty() ? absl::OkStatus() : WriteJson(options.json, *result);
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  using namespace fairlead;         // NOLINT
  using namespace fairlead::bench;  // NOLINT
  CLI::App app(
      "Measures memory reads and register-only multiply-adds on every instruction set of this CPU, "
      "or copies and Matmul of another device.",
      "limits");
  Options options;
  app.add_option("--device", options.device, "as of fairlead serve")->capture_default_str();
  app.add_option("--scale", options.scale, "tiny: of a device, the sizes of a rehearsal")
      ->capture_default_str()
      ->check(CLI::IsMember({"full", "tiny"}));
  app.add_option("-t,--threads", options.threads, "numbers of threads, of the CPU")
      ->capture_default_str();
  app.add_option("-r,--repetitions", options.repetitions, "of each measurement")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", options.json, "write the results there, '-' is stdout")
      ->type_name("FILE");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(options);
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
