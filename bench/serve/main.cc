// SPDX-License-Identifier: Apache-2.0
// serve_bench: options, target, warm-up, the points one after another, and what is written.
#include <csignal>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/serve/load.h"
#include "bench/serve/options.h"
#include "bench/serve/progress.h"
#include "bench/serve/report.h"

namespace fairlead::serve_bench {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr int kWarmupUsers = 4;  // of an open loop
// Points and the warm-up take seeds of their own, so that no prompt comes twice in a run and a
// prefix cache helps only where the workload shares prefixes.
constexpr uint64_t kPointSeedStep = 1'000'003;

int FailWith(int code, const std::string& message) {
  std::string line = message;
  for (char& c : line) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "error: %s\n", line.c_str());
  return code;
}

// Lines of JSON, to a file's end or stdout, or nowhere.
class JsonLines {
 public:
  absl::Status Open(const std::string& path) {
    to_stdout_ = path == "-";
    if (path.empty() || to_stdout_) return absl::OkStatus();
    file_.open(path, std::ios::app);
    if (file_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("--json ", path, " cannot be written"));
  }
  void Write(const Json& line) {
    if (to_stdout_) std::printf("%s\n", DumpJson(line).c_str());
    if (file_.is_open()) file_ << DumpJson(line) << std::endl;
  }
  bool good() const { return !file_.is_open() || file_.good(); }

 private:
  bool to_stdout_ = false;
  std::ofstream file_;
};

class Bench {
 public:
  Bench(const Options& options, Target& target, JsonLines& lines)
      : options_(options), target_(target), lines_(lines) {}

  absl::Status Run();

 private:
  absl::Status WarmUp();
  PointResult RunPoint(const LoadPoint& point);
  absl::Status RunSweep();
  absl::Status FindKnee();
  Workload NextWorkload();
  // What is for people goes to stdout, unless the JSON lines do.
  void Tell(const std::string& text) const;

  const Options& options_;
  Target& target_;
  JsonLines& lines_;
  Json server_;
  uint64_t num_loads_ = 0;
};

void Bench::Tell(const std::string& text) const {
  std::FILE* stream = options_.json_file == "-" ? stderr : stdout;
  std::fputs(text.c_str(), stream);
  std::fflush(stream);
}

Workload Bench::NextWorkload() {
  ContentOptions content = options_.content;
  content.seed += kPointSeedStep * num_loads_++;
  return Workload(options_.workload, content);
}

absl::Status Bench::WarmUp() {
  const Workload workload = NextWorkload();
  if (options_.warmup_requests == 0) return absl::OkStatus();
  const int users = options_.points.front().concurrency.value_or(kWarmupUsers);
  ProgressBar bar("warm-up");
  const LoadResult result =
      RunLoad(target_, workload, {.concurrency = users, .max_requests = options_.warmup_requests},
              [&bar](const Progress& progress) { bar.Show(progress); });
  for (const Record& record : result.records) {
    if (record.outcome != Outcome::kError) return absl::OkStatus();
  }
  const Record& record = result.records.front();
  return absl::UnavailableError(absl::StrCat("every request of the warm-up failed; the first: ",
                                             record.error_kind, ": ", record.error_message));
}

PointResult Bench::RunPoint(const LoadPoint& point) {
  const Workload workload = NextWorkload();
  LoadPlan plan{.rate = point.rate,
                .burstiness = options_.burstiness,
                .max_requests = RequestsAt(options_, point),
                .max_duration_s = options_.max_duration_s,
                .max_errors = options_.max_errors,
                .seed = workload.content().seed};
  if (point.concurrency) {
    plan.concurrency = *point.concurrency;
  } else if (!point.rate) {
    // Offline: a user for each session, and all begin together.
    const int turns = options_.workload.turns;
    plan.concurrency = static_cast<int>((plan.max_requests + turns - 1) / turns);
  }
  LoadResult loaded;
  {
    ProgressBar bar(point.ToString());
    loaded =
        RunLoad(target_, workload, plan, [&bar](const Progress& progress) { bar.Show(progress); });
  }
  std::vector<Record> load, injected;
  for (Record& record : loaded.records) {
    if (options_.json_requests) lines_.Write(RequestJson(record));
    (record.injected ? injected : load).push_back(std::move(record));
  }
  PointResult result{.point = point,
                     .load = Summarize(load, options_.slo),
                     .injected = Summarize(injected, options_.slo),
                     .gave_up = loaded.gave_up};
  lines_.Write(SummaryJson(options_, result, server_));
  Tell(Table(options_, result) + "\n");
  return result;
}

absl::Status Bench::RunSweep() {
  int64_t sent = 0, ok = 0, failed = 0;
  bool gave_up = false;
  for (const LoadPoint& point : options_.points) {
    const PointResult result = RunPoint(point);
    sent += result.load.sent + result.injected.sent;
    ok += result.load.ok;
    failed += result.load.failed + result.injected.failed;
    gave_up = gave_up || result.gave_up;
  }
  if (ok == 0) return absl::UnavailableError("no request was answered to its end");
  if (gave_up) return absl::UnavailableError("given up after --max-errors");
  // A sweep of rates goes beyond what the server carries; refusals are its result.
  const bool may_fail =
      options_.allow_errors || (options_.points.size() > 1 && options_.points.front().rate);
  if (failed > 0 && !may_fail)
    return absl::UnavailableError(absl::StrCat(failed, " of ", sent, " requests failed"));
  return absl::OkStatus();
}

absl::Status Bench::FindKnee() {
  KneeSearch search(*options_.points.front().rate, options_.knee_precision, options_.knee_points);
  while (const std::optional<double> rate = search.NextRate()) {
    const PointResult result = RunPoint({.rate = *rate});
    search.Report(*rate, result.load.good_share.value_or(0) >= kCarriedShare);
    if (result.load.ok == 0) break;  // a server that is gone carries no lower rate either
  }
  lines_.Write(KneeJson(options_, search, server_));
  Tell(KneeLine(search));
  if (!search.knee()) return absl::UnavailableError("no knee: no rate that was tried is carried");
  return absl::OkStatus();
}

absl::Status Bench::Run() {
  absl::StatusOr<Json> server = target_.Describe();
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  if (absl::Status status = CheckContext(options_, server_); !status.ok()) return status;
  if (absl::Status status = WarmUp(); !status.ok()) return status;
  absl::Status status = options_.find_knee ? FindKnee() : RunSweep();
  if (!lines_.good()) return absl::DataLossError("--json: the file could not be written");
  return status;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<Options> options = ParseOptions(argc, argv);
  if (options.status().code() == absl::StatusCode::kCancelled) {
    std::printf("%s", std::string(options.status().message()).c_str());
    return 0;
  }
  if (!options.ok()) {
    return FailWith(kWrongUsage,
                    absl::StrCat(options.status().message(), " (--help lists the options)"));
  }
  JsonLines lines;
  if (const absl::Status status = lines.Open(options->json_file); !status.ok())
    return FailWith(kWrongUsage, std::string(status.message()));
  absl::StatusOr<std::unique_ptr<Target>> target =
      options->grpc.empty() ? MakeHttpTarget(options->http, options->target)
                            : MakeGrpcTarget(options->grpc, options->grpc_tls, options->target);
  if (!target.ok()) return FailWith(kWrongUsage, std::string(target.status().message()));
  const absl::Status status = Bench(*options, **target, lines).Run();
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!status.ok()) return FailWith(kFailed, std::string(status.message()));
  return written ? 0 : FailWith(kFailed, "the output cannot be written");
}

}  // namespace
}  // namespace fairlead::serve_bench

int main(int argc, char** argv) {
  // A server that hangs up is an error of that request: OpenSSL writes without MSG_NOSIGNAL.
  std::signal(SIGPIPE, SIG_IGN);
  // Our code throws nothing, but its libraries may: out of memory, no more threads.
  try {
    return fairlead::serve_bench::Main(argc, argv);
  } catch (const std::exception& error) {
    return fairlead::serve_bench::FailWith(fairlead::serve_bench::kFailed, error.what());
  }
}
