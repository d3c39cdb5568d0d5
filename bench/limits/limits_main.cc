// SPDX-License-Identifier: Apache-2.0
// limits: what this machine can do at most, as a table or JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "bench/common/options.h"
#include "bench/limits/limits.h"
#include "kernels/cpu/host_info.h"
#include "kernels/strings.h"

int main(int argc, char** argv) {
  using namespace fairlead;         // NOLINT
  using namespace fairlead::bench;  // NOLINT
  CLI::App app(
      "Measures memory reads and register-only multiply-adds on every instruction set of this CPU.",
      "limits");
  std::string threads = UsableCpus() == 1 ? "1" : StrCat("1,", UsableCpus()), json;
  LimitOptions options;
  app.add_option("-t,--threads", threads, "numbers of threads")->capture_default_str();
  app.add_option("-r,--repetitions", options.repetitions, "of each measurement")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--json", json, "write the results there, '-' is stdout")->type_name("FILE");
  CLI11_PARSE(app, argc, argv);
  auto counts = ParseIntList("-t", threads, 1, 1024);
  if (!counts.ok()) {
    std::cerr << "error: " << std::string(counts.status().message()) << "\n";
    return 2;
  }
  options.threads = *std::move(counts);
  const std::vector<Limit> limits = MeasureLimits(options);
  if (json != "-") {
    std::printf("%-20s %-12s %8s %12s %12s  unit\n", "limit", "isa", "threads", "best", "median");
    for (const Limit& limit : limits) {
      std::printf("%-20s %-12s %8d %12.1f %12.1f  %s\n", limit.name.c_str(), limit.isa.c_str(),
                  limit.threads, limit.best(), limit.median(), limit.unit.c_str());
    }
  }
  if (json.empty()) return 0;
  const absl::Status status = WriteJson(
      json,
      {{"program", "limits"}, {"read_bytes", DefaultReadBytes()}, {"limits", LimitsJson(limits)}});
  if (!status.ok()) std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.ok() ? 0 : 1;
}
