// SPDX-License-Identifier: Apache-2.0
// The phases that need no server.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <set>

#include "absl/time/clock.h"
#include "bench/common/stats.h"
#include "bench/suite/process.h"
#include "bench/suite/suite.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

constexpr int kNotOffered = 64;

// What one call of an engine measures.
struct TestGroup {
  std::string prompt, generate, depth;
};

std::vector<std::string> OurCommand(const SuiteOptions& options, const std::string& numerics) {
  return {options.programs + "/engine_bench",
          "-m",
          options.model,
          "-t",
          StrCat(options.threads),
          "--numerics",
          numerics,
          "--json",
          "-"};
}

absl::StatusOr<TestSamples> RunOurs(const SuiteOptions& options, const std::string& numerics,
                                    const std::vector<std::string>& arguments) {
  std::vector<std::string> command = OurCommand(options, numerics);
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto output = OutputOf(command, options.log);
  if (!output.ok()) return output.status();
  const auto json = ParseJson(*output);
  if (!json.ok()) return json.status();
  TestSamples samples;
  for (const Json& setup : (*json)["setups"]) {
    for (const Json& test : setup["tests"])
      samples[test["test"].get<std::string>()] = test["samples"].get<std::vector<double>>();
  }
  return samples;
}

void AddAll(const TestSamples& samples, const std::string& who, SampleTable& table) {
  for (const auto& [test, values] : samples) {
    for (const double value : values) table.Add(who, test, value);
  }
}

// Peers that failed are not asked again.
class PeerTurns {
 public:
  PeerTurns(const SuiteOptions& options, SampleTable& table) : options_(options), table_(table) {}

  void Bench(const TestGroup& group) {
    for (const Peer& peer : options_.peers) {
      Run(peer, "bench",
          {"-m", options_.model, "-t", StrCat(options_.threads), "-p", group.prompt, "-n",
           group.generate, "-d", group.depth, "-r", "1"},
          [&](const std::string& output) {
            const auto samples = ParseLlamaBench(output);
            if (samples.ok()) AddAll(*samples, peer.name, table_);
            return samples.status();
          });
    }
  }

  // In-process continuous batching, where a peer offers that.
  void Batch(int prompt, int generate, int batch) {
    for (const Peer& peer : options_.peers) {
      Run(peer, "batch",
          {"-m", options_.model, "-t", StrCat(options_.threads), "-p", StrCat(prompt), "-n",
           StrCat(generate), "-b", StrCat(batch), "-r", "1"},
          [&](const std::string& output) {
            const auto json = ParseJson(output);
            if (!json.ok()) return json.status();
            for (const Json& rate : json->value("output_tokens_per_second", Json::array()))
              table_.Add(peer.name, StrCat("pp", prompt, "+tg", generate, " b", batch), rate);
            return absl::OkStatus();
          });
    }
  }

 private:
  template <typename Read>
  void Run(const Peer& peer, const std::string& action, const std::vector<std::string>& arguments,
           const Read& read) {
    std::vector<std::string> command = peer.Command(action);
    if (command.empty() || given_up_.contains(peer.name + action)) return;
    command.insert(command.end(), arguments.begin(), arguments.end());
    const auto finished = RunCommand(command, options_.log);
    absl::Status status = finished.status();
    if (finished.ok() && finished->exit_code == 0) {
      status = read(finished->output);
    } else if (finished.ok()) {
      status = finished->exit_code == kNotOffered
                   ? absl::UnimplementedError("it does not offer that")
                   : absl::InternalError(StrCat("exit code ", finished->exit_code, " of ",
                                                ShellLine(command), "; see ", options_.log));
    }
    if (status.ok()) return;
    given_up_.insert(peer.name + action);
    Say(StrCat(peer.name, ", ", action, ": left empty: ", std::string(status.message())));
  }

  const SuiteOptions& options_;
  SampleTable& table_;
  std::set<std::string> given_up_;
};

// Two processes that do nothing but compute, until this is destroyed.
class Hogs {
 public:
  Hogs() {
    for (pid_t& pid : pids_) {
      pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        volatile uint64_t work = 1;
        for (;;) work = work * 3 + 1;
      }
    }
  }
  ~Hogs() {
    for (const pid_t pid : pids_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

 private:
  pid_t pids_[2];
};

}  // namespace

void Say(const std::string& text) {
  static const absl::Time begin = absl::Now();
  std::fprintf(stderr, "[bench %4.0fs] %s\n", absl::ToDoubleSeconds(absl::Now() - begin),
               text.c_str());
}

void SampleTable::Add(const std::string& who, const std::string& what, double value) {
  auto& samples = samples_[{who, what}];
  if (samples.empty()) order_.emplace_back(who, what);
  samples.push_back(value);
}

Json SampleTable::ToJson(const std::string& what_key, const std::string& unit) const {
  Json rows = Json::array();
  for (const auto& key : order_) {
    Json row = {{"who", key.first}, {what_key, key.second}, {"unit", unit}};
    row.update(SummaryJson(samples_.at(key)));
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<Json> RunEngines(const SuiteOptions& options) {
  const std::vector<TestGroup> groups = {{"128,512", "64", "0"}, {"0", "64", "1024"}};
  SampleTable table;
  PeerTurns peers(options, table);
  for (int round = 1; round <= options.rounds; ++round) {
    Say(StrCat("engine, round ", round, " of ", options.rounds));
    for (const TestGroup& group : groups) {
      for (const std::string& numerics : options.numerics) {
        const auto samples = RunOurs(options, numerics,
                                     {"-p", group.prompt, "-n", group.generate, "-d", group.depth,
                                      "-r", "1", "--seed", StrCat(round)});
        if (!samples.ok()) return samples.status();
        AddAll(*samples, "fairlead " + numerics, table);
      }
      peers.Bench(group);
    }
    for (const std::string& numerics : options.numerics) {
      const auto samples =
          RunOurs(options, numerics,
                  {"-p", "0", "-n", "0", "-b", "16", "--pg", "128,64", "-r", "1", "--no-warmup"});
      if (!samples.ok()) return samples.status();
      AddAll(*samples, "fairlead " + numerics, table);
    }
    peers.Batch(128, 64, 16);
  }
  return table.ToJson("test", "tokens/s");
}

absl::StatusOr<Json> RunSweep(const SuiteOptions& options) {
  Say("engine, by batch and depth");
  SampleTable table;
  const std::string batches = options.quick ? "1,4,16" : "1,2,4,8,16,32,64";
  const std::string depths = options.quick ? "0,512" : "0,512,1024,2048";
  for (const std::string& numerics : options.numerics) {
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"-p", "0", "-n", "32", "-b", batches, "-r", "1"},
          std::vector<std::string>{"-p", "128", "-n", "32", "-d", depths, "-r", "1"}}) {
      const auto samples = RunOurs(options, numerics, arguments);
      if (!samples.ok()) return samples.status();
      AddAll(*samples, "fairlead " + numerics, table);
    }
  }
  return table.ToJson("test", "tokens/s");
}

absl::StatusOr<Json> RunOps(const SuiteOptions& options) {
  Say("ops");
  std::vector<std::string> command = {
      options.programs + "/ops_bench", StrCat("--threads=", options.threads),
      "--benchmark_format=json", StrCat("--benchmark_min_time=", options.quick ? 0.02 : 0.05),
      "--benchmark_filter=^smollm2-135m/.*rows:(1|16|512)(/|$)"};
  const auto output = OutputOf(command, options.log);
  if (!output.ok()) return output.status();
  const auto json = ParseJson(*output);
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

absl::StatusOr<Json> RunStart(const SuiteOptions& options) {
  Say("process start to the first token");
  std::vector<std::string> command = {options.programs + "/fairlead",
                                      "generate",
                                      "--model",
                                      options.model,
                                      "--threads",
                                      StrCat(options.threads),
                                      "--prompt-tokens",
                                      "1",
                                      "--max-tokens",
                                      "1",
                                      "--ignore-eos",
                                      "--temperature",
                                      "0"};
  if (!options.has_tokenizer) command.push_back("--skip-tokenizer");
  std::vector<double> seconds;
  for (int i = 0; i < options.rounds + 1; ++i) {
    const auto finished = RunCommand(command, options.log);
    if (!finished.ok()) return finished.status();
    if (finished->exit_code != 0) {
      return absl::InternalError(StrCat("exit code ", finished->exit_code, " of ",
                                        ShellLine(command), "; see ", options.log));
    }
    // The first start may read the file from the disk.
    if (i > 0) seconds.push_back(absl::ToDoubleSeconds(finished->first_output));
  }
  Json row = SummaryJson(seconds);
  row["unit"] = "s";
  return row;
}

absl::StatusOr<Json> RunBusy(const SuiteOptions& options) {
  Say("decode beside two busy processes");
  const std::vector<std::string> arguments = {"-p", "0",  "-n",
                                              "64", "-r", options.quick ? "1" : "3"};
  const auto rate = [&]() -> absl::StatusOr<double> {
    const auto samples = RunOurs(options, options.numerics[0], arguments);
    if (!samples.ok()) return samples.status();
    return Summarize(samples->at("tg64")).median;
  };
  const absl::StatusOr<double> quiet = rate();
  if (!quiet.ok()) return quiet.status();
  absl::StatusOr<double> busy = 0;
  {
    const Hogs hogs;
    busy = rate();
  }
  if (!busy.ok()) return busy.status();
  return Json{{"numerics", options.numerics[0]},
              {"quiet", *quiet},
              {"busy", *busy},
              {"unit", "tokens/s"},
              {"share", *busy / *quiet}};
}

absl::StatusOr<Json> RunFidelity(const SuiteOptions& options) {
  Say("fidelity");
  Json rows = Json::array();
  for (const std::string& numerics : options.numerics) {
    const auto output =
        OutputOf({options.programs + "/fidelity", "--model", options.model, "--numerics", numerics,
                  "--golden", options.checkout + "/tests/golden/smollm2/fidelity.json"},
                 options.log);
    if (!output.ok()) return output.status();
    auto json = ParseJson(*output);
    if (!json.ok()) return json.status();
    rows.push_back(*std::move(json));
  }
  return rows;
}

}  // namespace fairlead::bench
