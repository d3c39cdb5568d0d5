// SPDX-License-Identifier: Apache-2.0
// engine_bench: prefill and decode of the engine in this process, without sockets, in llama-bench's
// words.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <limits>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "bench/common/model_facts.h"
#include "bench/common/options.h"
#include "bench/common/stats.h"
#include "bench/engine/cases.h"
#include "bench/engine/engine_run.h"
#include "kernels/cpu/host_info.h"
#include "kernels/strings.h"
#include "server/commands/local_service.h"
#include "server/runtime_setup.h"

namespace fairlead::bench {
namespace {

constexpr char kAbout[] =
    R"(Measures the engine in this process, without sockets, in llama-bench's words:
  ppN            N prompt tokens / time from submission to the first token drawn
  tgN            N tokens of each sequence / time, once every sequence has drawn its first token
  ppP+tgN        output tokens / time from submitting all requests to the last token (--pg)
  @ dD           after D tokens that were computed before and are not timed
  bB             B sequences at once (llama-bench's -b is something else: tokens of one step)
Rates are of all sequences together, in tokens/s. Sampling is greedy, prompts are random ids.)";

struct Options {
  RuntimeConfig runtime;
  std::string threads = "0", numerics = "precise";
  std::string prompt = "512", generate = "128", depth = "0", batch = "1", mixed;
  std::string kv_cache_memory;
  int repetitions = 5;
  bool no_warm_up = false;
  double time_limit = 0;  // seconds; 0: none
  uint64_t seed = 1;
  std::string json;
};

void AddOptions(CLI::App& app, Options& o) {
  app.add_option("-m,--model", o.runtime.model, "GGUF file or model folder")->required();
  app.add_option("--load-format", o.runtime.load_format, "dummy: random weights of a config.json")
      ->check(CLI::IsMember({"auto", "dummy"}));
  app.add_option("--dummy-dtype", o.runtime.dummy_dtype, "of the matrices of dummy weights")
      ->capture_default_str();
  app.add_option("--device", o.runtime.device, "as of fairlead serve")->capture_default_str();
  app.add_option("-p,--n-prompt", o.prompt, "prompt lengths; 0: none")->capture_default_str();
  app.add_option("-n,--n-gen", o.generate, "output lengths; 0: none")->capture_default_str();
  app.add_option("-d,--n-depth", o.depth, "tokens that are there before")->capture_default_str();
  app.add_option("-b,--batch", o.batch, "sequences at once, for -n and --pg")
      ->capture_default_str();
  app.add_option("--pg", o.mixed, "P,N: requests of P prompt and N output tokens, all at once");
  app.add_option("-t,--threads", o.threads, "CPU threads; 0: one per core")->capture_default_str();
  app.add_option("--numerics", o.numerics, "float32, precise, fast")->capture_default_str();
  app.add_option("-r,--repetitions", o.repetitions, "of each test")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--time-limit", o.time_limit,
                 "seconds for the tests of a setup: those that would take longer, by the prefill's "
                 "rate so far, are left out, and so are repetitions after the first")
      ->check(CLI::PositiveNumber);
  app.add_flag("--no-warmup", o.no_warm_up, "time the first run of each test, too");
  app.add_option("--seed", o.seed, "of the prompts")->capture_default_str();
  app.add_option("--max-batched-tokens", o.runtime.max_batched_tokens, "tokens of one step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--kv-cache-dtype", o.runtime.kv_cache_dtype, "as of fairlead serve")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0", "f8_e4m3"}));
  for (const auto& [name, value, about] :
       {std::tuple("--graphs", &o.runtime.graphs, "as of fairlead serve, on GPUs"),
        std::tuple("--async-scheduling", &o.runtime.async_scheduling, "likewise")}) {
    app.add_option(name, *value, about)->capture_default_str()->check(CLI::IsMember({"on", "off"}));
  }
  app.add_option("--kv-cache-memory", o.kv_cache_memory, "as of fairlead serve");
  app.add_option("--json", o.json, "write the results there, '-' is stdout")->type_name("FILE");
}

struct Settings {
  std::vector<EngineCase> cases;
  std::vector<int> threads;
  std::vector<std::string> numerics;
};

absl::StatusOr<Settings> ReadOptions(Options& options) {
  constexpr int kMany = 1 << 20;
  CaseLists lists;
  absl::Status status;
  const auto read = [&status](const char* name, const std::string& text, int low, int high,
                              std::vector<int>& out) {
    auto values = ParseIntList(name, text, low, high);
    if (values.ok()) out = *std::move(values);
    status.Update(values.status());
  };
  Settings settings;
  read("-p", options.prompt, 0, kMany, lists.prompt);
  read("-n", options.generate, 0, kMany, lists.generate);
  read("-d", options.depth, 0, kMany, lists.depth);
  read("-b", options.batch, 1, 4096, lists.batch);
  read("-t", options.threads, 0, 1024, settings.threads);
  if (!options.mixed.empty()) {
    read("--pg", options.mixed, 1, kMany, lists.mixed);
    if (status.ok() && lists.mixed.size() != 2)
      status = absl::InvalidArgumentError("--pg takes two numbers: prompt,output");
  }
  auto numerics = ParseNameList("--numerics", options.numerics, {"float32", "precise", "fast"});
  if (numerics.ok()) settings.numerics = *std::move(numerics);
  status.Update(numerics.status());
  if (!options.kv_cache_memory.empty()) {
    MemorySize size;
    status.Update(ParseMemorySize(options.kv_cache_memory, size));
    options.runtime.kv_cache_memory = size;
  }
  if (!ParseDType(options.runtime.dummy_dtype)) {
    status.Update(absl::InvalidArgumentError(
        StrCat("--dummy-dtype: '", options.runtime.dummy_dtype, "' is no dtype")));
  }
  if (!status.ok()) return status;
  settings.cases = MakeCases(lists);
  return settings;
}

RuntimeConfig RuntimeFor(const Options& options, const Settings& settings, int threads,
                         const std::string& numerics) {
  RuntimeConfig runtime = options.runtime;
  runtime.skip_tokenizer = true;
  runtime.threads = threads;
  runtime.numerics = numerics;
  runtime.max_num_seqs = 1;
  int longest = 16;
  for (const EngineCase& engine_case : settings.cases) {
    runtime.max_num_seqs = std::max(runtime.max_num_seqs, engine_case.batch);
    longest = std::max(longest, engine_case.SequenceTokens());
  }
  runtime.max_queue = runtime.max_num_seqs;
  // Room for sequences of whole blocks; the cache is planned for max_num_seqs of this length.
  runtime.max_model_len = longest + runtime.block_tokens;
  return runtime;
}

double MillisecondsSince(absl::Time begin) {
  return absl::ToDoubleMilliseconds(absl::Now() - begin);
}

void PrintRow(const Json& setup, const std::string& test, const Summary& rate) {
  std::printf("| %-32s | %8s | %7d | %-20s | %10.2f | %10.2f | %10.2f |\n",
              setup["model"].get<std::string>().c_str(),
              setup["numerics"].get<std::string>().c_str(), setup["threads"].get<int>(),
              test.c_str(), rate.median, rate.min, rate.max);
  std::fflush(stdout);
}

void PrintHead() {
  std::printf("| %-32s | %8s | %7s | %-20s | %10s | %10s | %10s |\n", "model", "numerics",
              "threads", "test", "tokens/s", "min", "max");
  std::printf("| %s | %s: | %s: | %s | %s: | %s: | %s: |\n", std::string(32, '-').c_str(),
              std::string(7, '-').c_str(), std::string(6, '-').c_str(),
              std::string(20, '-').c_str(), std::string(9, '-').c_str(),
              std::string(9, '-').c_str(), std::string(9, '-').c_str());
}

// Between steps that follow each other, where the device knows (EngineOptions::observe_idle).
class IdleTimes {
 public:
  void Add(double seconds) {
    const std::lock_guard<std::mutex> lock(mutex_);
    microseconds_.push_back(seconds * 1e6);
  }
  std::vector<double> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(microseconds_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<double> microseconds_;
};

// All cases on one engine, as many as the time allows.
class CaseLoop {
 public:
  CaseLoop(const Options& options, EngineRun& run, IdleTimes& idle, Json& setup)
      : options_(options), run_(run), idle_(idle), setup_(setup) {}

  // With a time limit those with the shortest prompts come first.
  absl::Status Run(std::vector<EngineCase> cases) {
    if (options_.time_limit > 0) {
      std::stable_sort(cases.begin(), cases.end(), [this](const auto& a, const auto& b) {
        return PromptTokens(a) < PromptTokens(b);
      });
    }
    for (const EngineCase& engine_case : cases) {
      const bool begins = SecondsLeft() > PrefillSeconds(engine_case);
      const absl::Status status = begins ? RunCase(engine_case) : absl::OkStatus();
      if (!status.ok()) {
        return absl::Status(status.code(),
                            StrCat(engine_case.Name(), ": ", std::string(status.message())));
      }
      if (!begins) setup_["left_out"].push_back(engine_case.Name());
    }
    return absl::OkStatus();
  }

 private:
  double SecondsLeft() const {
    if (options_.time_limit == 0) return std::numeric_limits<double>::infinity();
    return options_.time_limit - MillisecondsSince(begin_) / 1e3;
  }

  // That have to be computed until it has one sample.
  int64_t PromptTokens(const EngineCase& c) const {
    const int64_t runs = options_.no_warm_up ? 1 : 2;
    return int64_t{c.batch} * (c.depth + runs * std::max(c.prompt, 1));
  }

  // What its prompts take at the best rate that was measured.
  double PrefillSeconds(const EngineCase& c) const {
    return prefill_rate_ == 0 ? 0 : static_cast<double>(PromptTokens(c)) / prefill_rate_;
  }

  absl::Status RunCase(const EngineCase& engine_case) {
    std::vector<double> samples;
    absl::Status status = run_.Prepare(engine_case);
    EngineStats before;
    for (int i = options_.no_warm_up ? 0 : -1; i < options_.repetitions && status.ok(); ++i) {
      if (samples.empty()) {  // so far there was warming up at most
        idle_.Take();
        before = run_.stats();
      }
      if (!samples.empty() && SecondsLeft() < 0) break;
      const absl::StatusOr<double> rate = run_.Measure();
      status = rate.status();
      if (status.ok() && i >= 0) samples.push_back(*rate);
    }
    if (!status.ok()) return status;
    const EngineStats after = run_.stats();
    const Summary summary = Summarize(samples);
    if (engine_case.kind == CaseKind::kPrompt)
      prefill_rate_ = std::max(prefill_rate_, summary.median);
    if (options_.json != "-") PrintRow(setup_, engine_case.Name(), summary);
    Json test = {{"test", engine_case.Name()},    {"n_prompt", engine_case.prompt},
                 {"n_gen", engine_case.generate}, {"n_depth", engine_case.depth},
                 {"batch", engine_case.batch},    {"unit", "tokens/s"}};
    test.update(SummaryJson(samples));
    // Of the samples; the engine may count a repetition's last step after its last token.
    test["steps"] = after.steps - before.steps;
    test["graph_steps"] = after.graph_steps - before.graph_steps;
    if (const std::vector<double> idle = idle_.Take(); !idle.empty()) {
      test["idle_us"] = SummaryJson(idle)["median"];
      test["idle_steps"] = idle.size();
    }
    setup_["tests"].push_back(std::move(test));
    return absl::OkStatus();
  }

  const Options& options_;
  EngineRun& run_;
  IdleTimes& idle_;
  Json& setup_;
  const absl::Time begin_ = absl::Now();
  double prefill_rate_ = 0;  // tokens/s
};

// A row is added to `results`.
absl::Status RunSetup(const Options& options, const Settings& settings, const RuntimeConfig& config,
                      Json& results) {
  const absl::Time begin = absl::Now();
  IdleTimes idle;  // outlives the engine
  auto runtime = LoadRuntime(config, "", [&idle](double seconds) { idle.Add(seconds); });
  if (!runtime.ok()) return runtime.status();
  const double load_ms = MillisecondsSince(begin);
  EngineRun run(*(*runtime)->engine, (*runtime)->model->config().vocab, options.seed);
  const absl::StatusOr<double> first_token_ms = run.FirstTokenMs();
  absl::Status status = first_token_ms.status();
  if (status.ok()) {
    const DeviceInfo& device = (*runtime)->device->info();
    Json setup = {{"model", (*runtime)->served.name},
                  {"numerics", config.numerics},
                  {"threads", config.threads == 0 ? UsableCpus() : config.threads},
                  {"device", device.description},
                  {"kv_dtype", Info(device.kv_dtype).name},
                  {"activation_dtype", Info(device.activation_dtype).name},
                  {"max_batched_tokens", config.max_batched_tokens},
                  {"graphs", config.graphs},
                  {"async_scheduling", config.async_scheduling},
                  {"weight_bytes", (*runtime)->model->weight_bytes()},
                  {"load_ms", load_ms},
                  {"first_token_ms", *first_token_ms},
                  {"tests", Json::array()},
                  {"left_out", Json::array()}};
    status = CaseLoop(options, run, idle, setup).Run(settings.cases);
    results["setups"].push_back(std::move(setup));
  }
  (*runtime)->engine->Drain(absl::InfinitePast());
  return status;
}

absl::Status Run(Options& options) {
  const absl::StatusOr<Settings> settings = ReadOptions(options);
  if (!settings.ok()) return settings.status();
  // Which devices there are is a matter of the machine: no wrong usage.
  if (const auto device = OpenDevice(options.runtime.device, {}); !device.ok())
    return absl::UnavailableError(device.status().message());
  SetUpLog("error");
  Json results = {{"program", "engine_bench"}, {"repetitions", options.repetitions}};
  results["setups"] = Json::array();
  if (options.json != "-") PrintHead();
  for (const std::string& numerics : settings->numerics) {
    for (const int threads : settings->threads) {
      const RuntimeConfig config = RuntimeFor(options, *settings, threads, numerics);
      if (absl::Status status = RunSetup(options, *settings, config, results); !status.ok())
        return status;
    }
  }
  results["model"] = nullptr;
  if (options.runtime.load_format != "dummy") {  // which takes long to make again
    const auto source = OpenModel(options.runtime);
    if (!source.ok()) return source.status();
    absl::StatusOr<Json> facts = ModelFacts(**source);
    if (!facts.ok()) return facts.status();
    results["model"] = *std::move(facts);
  }
  if (options.json != "-") {
    for (const Json& setup : results["setups"]) {
      std::printf("%s, %s: ready after %.0f ms, first token %.1f ms later\n",
                  setup["device"].get<std::string>().c_str(),
                  setup["numerics"].get<std::string>().c_str(), setup["load_ms"].get<double>(),
                  setup["first_token_ms"].get<double>());
    }
  }
  return options.json.empty() ? absl::OkStatus() : WriteJson(options.json, results);
}

}  // namespace
}  // namespace fairlead::bench

int main(int argc, char** argv) {
  CLI::App app(fairlead::bench::kAbout, "engine_bench");
  fairlead::bench::Options options;
  fairlead::bench::AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = fairlead::bench::Run(options);
  if (status.ok()) return 0;
  std::cerr << "error: " << std::string(status.message()) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}
