// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace fairlead::serve_bench {
namespace {

constexpr int kDefaultRequests = 100;
constexpr int kMinClosedRequests = 20;
constexpr int kRequestsPerUser = 5;
constexpr double kDefaultKneeSeconds = 30;
constexpr double kMaxRate = 1e6;

// What the command line holds before it is checked.
struct Raw {
  std::string workload = "W1", input = "tokens", vocabulary = "100:40000", key_file, extra_body;
  int input_tokens = 0, output_tokens = 0;
  double scale = 1, range_ratio = 0;
  std::vector<int> concurrency;
  std::vector<std::string> rates, goodput, labels;
  bool no_ignore_eos = false;
};

absl::Status Usage(const std::string& message) { return absl::InvalidArgumentError(message); }

std::string WorkloadHelp() {
  std::string text = "Workloads (lengths in tokens):\n";
  for (const WorkloadSpec& spec : NamedWorkloads())
    absl::StrAppend(&text, absl::StrFormat("  %-4s  %s\n", spec.name, spec.about));
  return text;
}

void AddTargetOptions(CLI::App& app, Options& options, Raw& raw) {
  const std::string group = "The server";
  const auto add = [&app, &group](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--grpc", options.grpc, "HOST:PORT of fairlead.v1.Inference");
  add("--http", options.http, "URL of an OpenAI-compatible server, e.g. http://127.0.0.1:8000");
  app.add_flag("--grpc-tls", options.grpc_tls, "TLS for --grpc (--http has https://)")
      ->group(group);
  add("--ca-file", options.target.ca_file, "PEM of the authorities to trust, not the system's");
  add("--api-key-file", raw.key_file, "its first line that is no comment is the key to send");
  add("--model", options.target.model, "name in the requests (default: the first the server has)");
  add("--timeout", options.target.timeout_s, "seconds that one request may take (default 600)")
      ->check(CLI::Range(0.001, 1e6));
  add("--extra-body", raw.extra_body,
      "JSON object of more members of every HTTP request, e.g. a response_format for W8");
}

void AddContentOptions(CLI::App& app, Options& options, Raw& raw) {
  const std::string group = "What is asked";
  const auto add = [&app, &group](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--workload", raw.workload, "W1 .. W10, see below (default W1)");
  add("--input-tokens", raw.input_tokens, "of a turn, in place of the workload's")
      ->check(CLI::Range(1, 10000000));
  add("--output-tokens", raw.output_tokens, "of a turn, in place of the workload's")
      ->check(CLI::Range(1, 10000000));
  add("--range-ratio", raw.range_ratio, "lengths are uniform in n * (1 -+ R) (default 0)")
      ->check(CLI::Range(0.0, 1.0));
  add("--scale", raw.scale, "multiplies every length, to fit a small context (default 1)")
      ->check(CLI::Range(0.0001, 1000.0));
  add("--input", raw.input,
      "tokens: random ids; text: random words; chat: the same as messages (default tokens)")
      ->check(CLI::IsMember({"tokens", "text", "chat"}));
  add("--vocabulary", raw.vocabulary, "LOW:HIGH, the random ids' range (default 100:40000)");
  add("--temperature", options.target.temperature, "of the sampling (default 0)")
      ->check(CLI::Range(0.0, 2.0));
  app.add_flag("--no-ignore-eos", raw.no_ignore_eos, "let answers end before their length")
      ->group(group);
  app.add_flag("--return-token-ids", options.target.return_token_ids,
               "ask for token ids in each event, for servers whose texts are empty")
      ->group(group);
  add("--seed", options.content.seed,
      "of prompts and arrivals (default 0). The same seed again meets the server's prefix cache");
}

void AddLoadOptions(CLI::App& app, Options& options, Raw& raw) {
  const std::string group = "The load";
  const auto add = [&app, &group](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(group);
  };
  add("--concurrency", raw.concurrency,
      "closed loop: so many users, each asks again when answered; N,N,... is a sweep")
      ->delimiter(',')
      ->check(CLI::Range(1, 100000));
  add("--rate", raw.rates,
      "open loop: requests/s, whatever is in flight; R,R,... is a sweep; inf: all at once")
      ->delimiter(',');
  add("--burstiness", options.burstiness,
      "shape of the gamma distributed gaps: 1 Poisson (default), less: bursts, more: a beat")
      ->check(CLI::Range(0.001, 1e6));
  add("--requests", options.max_requests,
      "to send at each point (default: 5 a user and at least 20; 100 in the open loop)")
      ->check(CLI::Range(int64_t{1}, int64_t{1000000000}));
  add("--duration", options.max_duration_s, "seconds of sending at each point")
      ->check(CLI::Range(0.001, 1e7));
  add("--warmup", options.warmup_requests, "requests before the first point that do not count")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}));
  add("--max-errors", options.max_errors, "stop after so many (default: never)")
      ->check(CLI::Range(int64_t{1}, int64_t{1000000000}));
  add("--goodput", raw.goodput,
      "bounds in ms of a good request: ttft:MS tpot:MS e2el:MS ntpot:MS, any of them");
  app.add_flag("--find-knee", options.find_knee,
               "search the largest rate that --goodput's bounds carry, from --rate (default 1); "
               "30 s a point unless --requests or --duration say")
      ->group(group);
  add("--knee-precision", options.knee_precision, "relative, of the knee (default 0.05)")
      ->check(CLI::Range(0.001, 10.0));
  add("--knee-points", options.knee_points, "at most so many rates are tried (default 16)")
      ->check(CLI::Range(1, 1000));
}

void AddOutputOptions(CLI::App& app, Options& options, Raw& raw) {
  const std::string group = "What is written";
  app.add_option("--json", options.json_file,
                 "append JSON lines to FILE: a summary a point, and the knee; - is stdout, and the "
                 "table goes to stderr")
      ->group(group);
  app.add_flag("--json-requests", options.json_requests, "one more line for every request")
      ->group(group);
  app.add_option("--label", raw.labels, "KEY=VALUE for the JSON, e.g. commit=1a2b3c")->group(group);
  app.add_flag("--allow-errors", options.allow_errors, "exit with 0 though requests failed")
      ->group(group);
}

absl::StatusOr<std::string> ReadKey(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Usage(absl::StrCat("--api-key-file ", path, " cannot be read"));
  for (std::string line; std::getline(file, line);) {
    const absl::string_view key = absl::StripAsciiWhitespace(line);
    if (!key.empty() && key.front() != '#') return std::string(key);
  }
  return Usage(absl::StrCat("--api-key-file ", path, " holds no key"));
}

absl::Status CheckTarget(const Raw& raw, Options& options) {
  if (options.grpc.empty() == options.http.empty())
    return Usage("give one of --grpc HOST:PORT and --http URL");
  if (!raw.key_file.empty()) {
    absl::StatusOr<std::string> key = ReadKey(raw.key_file);
    if (!key.ok()) return key.status();
    options.target.key = *std::move(key);
  }
  if (!raw.extra_body.empty()) {
    if (options.http.empty()) return Usage("--extra-body goes with --http");
    absl::StatusOr<Json> body = ParseJson(raw.extra_body);
    if (!body.ok() || !body->is_object())
      return Usage(absl::StrCat("--extra-body '", raw.extra_body, "' is not a JSON object"));
    options.target.extra_body = *std::move(body);
  }
  options.target.ignore_eos = !raw.no_ignore_eos;
  return absl::OkStatus();
}

absl::Status CheckContent(const Raw& raw, Options& options) {
  absl::StatusOr<WorkloadSpec> spec = FindWorkload(raw.workload);
  if (!spec.ok()) return spec.status();
  if (raw.input_tokens > 0) spec->input_tokens = raw.input_tokens;
  if (raw.output_tokens > 0) spec->output_tokens = raw.output_tokens;
  spec->range_ratio = raw.range_ratio;
  options.workload = Scaled(*spec, raw.scale);
  options.content.kind = raw.input == "tokens" ? InputKind::kTokens
                         : raw.input == "text" ? InputKind::kText
                                               : InputKind::kChat;
  const size_t colon = std::min(raw.vocabulary.find(':'), raw.vocabulary.size() - 1);
  ContentOptions& content = options.content;
  if (raw.vocabulary.empty() ||
      !absl::SimpleAtoi(raw.vocabulary.substr(0, colon), &content.lowest_token) ||
      !absl::SimpleAtoi(raw.vocabulary.substr(colon + 1), &content.highest_token) ||
      content.lowest_token < 0 || content.highest_token < content.lowest_token) {
    return Usage(absl::StrCat("--vocabulary '", raw.vocabulary, "' is not LOW:HIGH"));
  }
  return absl::OkStatus();
}

absl::Status CheckPoints(const Raw& raw, Options& options) {
  if (!raw.concurrency.empty() && !raw.rates.empty())
    return Usage("--concurrency is a closed loop and --rate an open one: give one of them");
  for (const int users : raw.concurrency) options.points.push_back({.concurrency = users});
  for (const std::string& text : raw.rates) {
    double rate = 0;
    if (text == "inf") {
      options.points.push_back({});
      if (options.max_duration_s > 0)
        return Usage("--rate inf sends --requests at once; --duration says nothing there");
    } else if (absl::SimpleAtod(text, &rate) && rate > 0 && rate <= kMaxRate) {
      options.points.push_back({.rate = rate});
    } else {
      return Usage(absl::StrCat("--rate '", text, "' is not above 0 and at most ", kMaxRate,
                                " requests/s, nor inf"));
    }
  }
  if (options.find_knee) {
    if (options.slo.empty()) return Usage("--find-knee needs the bounds of --goodput");
    if (options.points.empty()) options.points.push_back({.rate = 1});
    if (options.points.size() != 1 || !options.points.front().rate)
      return Usage("--find-knee starts at one --rate, a number");
    if (options.max_requests == 0 && options.max_duration_s == 0)
      options.max_duration_s = kDefaultKneeSeconds;
  }
  if (options.points.empty())
    options.points.push_back({.concurrency = options.workload.concurrency});
  return absl::OkStatus();
}

absl::Status CheckLabels(const Raw& raw, Options& options) {
  for (const std::string& label : raw.labels) {
    const size_t equals = label.find('=');
    if (equals == 0 || equals == std::string::npos)
      return Usage(absl::StrCat("--label '", label, "' is not KEY=VALUE"));
    options.labels.emplace_back(label.substr(0, equals), label.substr(equals + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> Check(const Raw& raw, Options options) {
  if (absl::Status status = CheckTarget(raw, options); !status.ok()) return status;
  if (absl::Status status = CheckContent(raw, options); !status.ok()) return status;
  absl::StatusOr<Slo> slo = ParseSlo(raw.goodput);
  if (!slo.ok()) return slo.status();
  options.slo = *slo;
  if (absl::Status status = CheckPoints(raw, options); !status.ok()) return status;
  if (absl::Status status = CheckLabels(raw, options); !status.ok()) return status;
  return options;
}

}  // namespace

int64_t RequestsAt(const Options& options, const LoadPoint& point) {
  if (options.max_requests > 0 || options.max_duration_s > 0) return options.max_requests;
  if (!point.concurrency) return kDefaultRequests;
  return std::max<int64_t>(kMinClosedRequests, int64_t{kRequestsPerUser} * *point.concurrency);
}

std::string LoadPoint::ToString() const {
  if (concurrency) return absl::StrCat("closed loop, concurrency ", *concurrency);
  if (rate) return absl::StrFormat("open loop, %g requests/s", *rate);
  return "offline, all at once";
}

absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv) {
  Options options;
  Raw raw;
  CLI::App app(
      "Puts a load on a server of language models and measures what its clients see.\n"
      "Exit codes: 0 done, 1 failed (also when a request failed, unless --allow-errors, a sweep of "
      "rates or --find-knee), 2 wrong usage.",
      "serve_bench");
  app.set_version_flag("--version", "serve_bench " FAIRLEAD_VERSION);
  app.footer(absl::StrCat(WorkloadHelp(), "\n", kDefinitions, "\n"));
  AddTargetOptions(app, options, raw);
  AddContentOptions(app, options, raw);
  AddLoadOptions(app, options, raw);
  AddOutputOptions(app, options, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return absl::CancelledError(app.help());
  } catch (const CLI::CallForVersion& version) {
    return absl::CancelledError(absl::StrCat(version.what(), "\n"));
  } catch (const CLI::ParseError& error) {
    return Usage(error.what());
  }
  options.command_line = absl::StrJoin(argv, argv + argc, " ");
  return Check(raw, std::move(options));
}

}  // namespace fairlead::serve_bench
