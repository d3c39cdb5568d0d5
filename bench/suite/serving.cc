// SPDX-License-Identifier: Apache-2.0
// The phase with servers: all of them run, serve_bench asks them in turns.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "bench/common/stats.h"
#include "bench/suite/process.h"
#include "bench/suite/serve_tools.h"
#include "bench/suite/suite.h"
#include "kernels/strings.h"

namespace fairlead::bench {
namespace {

constexpr int kSequences = 16;
constexpr absl::Duration kReadyTimeout = absl::Minutes(5);

struct Server {
  std::string who, protocol;  // "http", "grpc"
  std::string address;        // as serve_bench takes it
  bool ours = false;
};

// The figures of one call of serve_bench that a result keeps.
constexpr std::array kLatencies = {"ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"};

absl::StatusOr<Json> Load(const SuiteOptions& options, const Server& server,
                          std::vector<std::string> arguments) {
  if (!options.has_tokenizer) arguments.push_back("--return-token-ids");
  return RunServeBench({options.programs + "/serve_bench"}, "--" + server.protocol, server.address,
                       arguments, options.log);
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

// Everything that answers, and the processes behind it.
class Servers {
 public:
  explicit Servers(const SuiteOptions& options) : options_(options) {}

  absl::Status StartOurs(const std::string& numerics) {
    std::vector<std::string> command = {options_.programs + "/fairlead",
                                        "serve",
                                        "--model",
                                        options_.model,
                                        "--numerics",
                                        numerics,
                                        "--threads",
                                        StrCat(options_.threads),
                                        "--http",
                                        "127.0.0.1:0",
                                        "--grpc",
                                        "127.0.0.1:0",
                                        "--log-level",
                                        "warn"};
    if (!options_.has_tokenizer) command.push_back("--skip-tokenizer");
    auto server = StartFairlead(command, kReadyTimeout, options_.log);
    if (!server.ok()) return server.status();
    const std::string who = "fairlead " + numerics;
    list_.push_back({who, "http", "http://" + server->http, true});
    list_.push_back({who, "grpc", server->grpc, true});
    processes_.push_back(std::move(server->process));
    return absl::OkStatus();
  }

  void StartPeer(const Peer& peer) {
    if (!peer.url.empty()) {
      list_.push_back({peer.name, "http", peer.url});
      return;
    }
    std::vector<std::string> command = peer.Command("serve");
    if (command.empty()) return;
    const int port = FreePort();
    command.insert(command.end(),
                   {options_.model, StrCat(options_.threads), StrCat(port), StrCat(kSequences)});
    auto started = Background::Start(command, options_.log);
    if (started.ok() && WaitForHealth(*started, port)) {
      list_.push_back({peer.name, "http", StrCat("http://127.0.0.1:", port)});
      processes_.push_back(*std::move(started));
      return;
    }
    Say(StrCat(peer.name, ", serve: left empty: it did not get ready"));
  }

  const std::vector<Server>& list() const { return list_; }
  void Drop(size_t index) { list_.erase(list_.begin() + static_cast<ptrdiff_t>(index)); }

 private:
  bool WaitForHealth(Background& process, int port) {
    const absl::Time deadline = absl::Now() + kReadyTimeout;
    const std::vector<std::string> ask = {"curl", "-sf",
                                          StrCat("http://127.0.0.1:", port, "/health")};
    while (process.IsRunning() && absl::Now() < deadline) {
      const auto answer = RunCommand(ask, "/dev/null");
      if (answer.ok() && answer->exit_code == 0) return true;
      absl::SleepFor(absl::Milliseconds(200));
    }
    return false;
  }

  const SuiteOptions& options_;
  std::vector<Server> list_;
  std::vector<Background> processes_;
};

struct LoadKind {
  std::string name;
  std::vector<std::string> arguments;
};

// Medians over the rounds of each call's percentiles.
class LatencyTable {
 public:
  void Add(const std::string& who, const std::string& load, const Json& summary) {
    for (const char* latency : kLatencies) {
      const Json spread = summary.value(latency, Json());
      if (!spread.is_object()) continue;  // nothing of that kind came
      for (const char* percentile : {"p50", "p90", "p99"}) {
        table_.Add(who + "\n" + load, StrCat(latency, " ", percentile),
                   spread.value(percentile, 0.0));
      }
    }
  }
  // Of one row: {"ttft_ms": {"p50": ..}, ...}
  Json Of(const std::string& who, const std::string& load) const {
    Json out = Json::object();
    for (const Json& row : table_.ToJson("what", "ms")) {
      if (row["who"] != who + "\n" + load) continue;
      const std::vector<std::string> names = absl::StrSplit(row["what"].get<std::string>(), ' ');
      out[names[0]][names[1]] = row["median"];
    }
    return out;
  }

 private:
  SampleTable table_;
};

absl::StatusOr<Json> RunRounds(const SuiteOptions& options, Servers& servers) {
  const std::vector<LoadKind> loads = {
      {"16 at once, 128 in, 64 out",
       {"--input-tokens", "128", "--output-tokens", "64", "--concurrency", StrCat(kSequences),
        "--requests", StrCat(options.quick ? kSequences : 2 * kSequences)}},
      {"one at a time, 128 in, 16 out",
       {"--input-tokens", "128", "--output-tokens", "16", "--concurrency", "1", "--requests",
        options.quick ? "3" : "6"}}};
  SampleTable rates;
  LatencyTable latencies;
  for (int round = 1; round <= options.rounds; ++round) {
    Say(StrCat("serving, round ", round, " of ", options.rounds));
    for (const LoadKind& load : loads) {
      for (size_t i = 0; i < servers.list().size();) {
        const Server server = servers.list()[i];
        std::vector<std::string> arguments = load.arguments;
        // A seed of its own each time, also for the two protocols of one server: no prefix cache
        // may help. All servers get the same prompts.
        const int64_t turn = round * 100 + (&load - loads.data());
        arguments.insert(arguments.end(),
                         {"--seed", StrCat(2 * turn + (server.protocol == "grpc" ? 1 : 0))});
        if (round == 1) arguments.insert(arguments.end(), {"--warmup", "2"});
        const auto summary = Load(options, server, arguments);
        if (!summary.ok() && server.ours) return summary.status();
        if (!summary.ok()) {
          Say(StrCat(server.who, ": left empty: ", std::string(summary.status().message())));
          servers.Drop(i);
          continue;
        }
        const std::string who = server.who + " " + server.protocol;
        rates.Add(who, load.name, (*summary)["output_tokens_per_s"]);
        latencies.Add(who, load.name, *summary);
        ++i;
      }
    }
  }
  Json rows = rates.ToJson("load", "output tokens/s");
  for (Json& row : rows) row.update(latencies.Of(row["who"], row["load"]));
  return rows;
}

// Open loop at shares of what 16 at once reached.
absl::StatusOr<Json> RunRates(const SuiteOptions& options, const Server& server,
                              double tokens_per_second) {
  const double capacity = tokens_per_second / 64;
  const std::vector<double> shares = options.quick
                                         ? std::vector<double>{0.3, 0.7, 1.1}
                                         : std::vector<double>{0.2, 0.4, 0.6, 0.8, 1.0, 1.2};
  Json points = Json::array();
  for (size_t i = 0; i < shares.size(); ++i) {
    const double rate = capacity * shares[i];
    Say(StrCat("serving, ", std::round(rate * 100) / 100, " requests/s"));
    const auto summary =
        Load(options, server,
             {"--input-tokens", "128", "--output-tokens", "64", "--rate", StrCat(rate),
              "--duration", options.quick ? "5" : "10", "--seed", StrCat(10000 + i)});
    if (!summary.ok()) return summary.status();
    Json point = {{"who", server.who + " " + server.protocol},
                  {"requests_per_s", rate},
                  {"output_tokens_per_s", (*summary)["output_tokens_per_s"]}};
    for (const char* latency : kLatencies) point[latency] = (*summary)[latency];
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace

absl::StatusOr<Json> RunServing(const SuiteOptions& options) {
  Say("serving: starting the servers");
  Servers servers(options);
  for (const std::string& numerics : options.numerics) {
    if (absl::Status status = servers.StartOurs(numerics); !status.ok()) return status;
  }
  for (const Peer& peer : options.peers) servers.StartPeer(peer);
  absl::StatusOr<Json> rows = RunRounds(options, servers);
  if (!rows.ok()) return rows.status();
  const double reached = (*rows)[0]["median"].get<double>();
  absl::StatusOr<Json> rates = RunRates(options, servers.list()[0], reached);
  if (!rates.ok()) return rates.status();
  return Json{{"rows", *std::move(rows)}, {"rates", *std::move(rates)}};
}

}  // namespace fairlead::bench
