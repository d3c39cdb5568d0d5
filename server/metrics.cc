// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>

namespace fairlead {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

// vLLM's bucket families (so that its dashboards fit), with finer steps below 10 ms.
const Buckets kTtftBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                              1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kItlBuckets = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                             .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80};
const Buckets kLatencyBuckets = {.1, .3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,
                                 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokenBuckets = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                               1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};

prometheus::Labels OneLabel(const char* name, std::string_view value) {
  return {{name, std::string(value)}};
}

}  // namespace

class Metrics::Impl {
 public:
  explicit Impl(const BuildInfo& build) {
    Gauge("fairlead_build_info", "Version, device and numerics; always 1",
          {{"version", build.version}, {"device", build.device}, {"numerics", build.numerics}})
        .Set(1);
    Gauge("fairlead_model_info", "The served model; always 1", {{"model", build.model}}).Set(1);
    Gauge("fairlead_device_info", "The device; always 1",
          {{"device", build.device}, {"description", build.device_description}})
        .Set(1);
  }

  prometheus::Gauge& Gauge(const char* name, const char* help,
                           const prometheus::Labels& labels = {}) {
    return BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Counter& Counter(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Buckets& buckets) {
    return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }
  prometheus::Family<prometheus::Counter>& CounterFamily(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Register(registry);
  }

  // Brings a counter up to a total that is kept elsewhere.
  static void Raise(prometheus::Counter& counter, int64_t total) {
    const double behind = static_cast<double>(total) - counter.Value();
    if (behind > 0) counter.Increment(behind);
  }

  void ReadEngine() {
    const std::lock_guard<std::mutex> lock(engine_mutex);
    if (!stats) return;
    const EngineStats s = stats();
    requests_running.Set(s.running);
    requests_waiting.Set(s.waiting);
    kv_used.Set(s.kv_blocks_used);
    kv_cached.Set(s.kv_blocks_cached);
    kv_free.Set(s.kv_blocks_free);
    kv_usage.Set(s.kv_blocks_total > 0 ? static_cast<double>(s.kv_blocks_used) / s.kv_blocks_total
                                       : 0);
    Raise(steps, s.steps);
    Raise(prompt_tokens, s.prompt_tokens);
    Raise(generation_tokens, s.generated_tokens);
    Raise(prefix_queries, s.prefix_query_tokens);
    Raise(prefix_hits, s.prefix_hit_tokens);
    Raise(preemptions, s.preemptions);
    Raise(nonfinite, s.nonfinite_logits);
    Raise(drafts, s.drafts);
    Raise(draft_tokens, s.draft_tokens);
    Raise(accepted_draft_tokens, s.accepted_draft_tokens);
  }

  void ReadEmbeddingEngine() {
    const std::lock_guard<std::mutex> lock(engine_mutex);
    if (!embedding_stats) return;
    const EmbeddingStats s = embedding_stats();
    requests_running.Set(s.running);
    requests_waiting.Set(s.waiting);
    Raise(steps, s.batches);
    Raise(prompt_tokens, s.tokens);
    Raise(*embedded_texts, s.texts);
  }

  // A gauge comes into being when the driver first tells its value.
  void ReadTelemetry() {
    const std::lock_guard<std::mutex> lock(engine_mutex);
    if (!telemetry) return;
    const DeviceTelemetry t = telemetry();
    const auto set = [this](const auto& value, const char* name, const char* help,
                            const prometheus::Labels& labels = {}) {
      if (value) Gauge(name, help, labels).Set(static_cast<double>(*value));
    };
    set(t.power_watts, "fairlead_gpu_power_watts", "Power drawn");
    set(t.power_limit_watts, "fairlead_gpu_power_limit_watts", "Power allowed");
    set(t.temperature_celsius, "fairlead_gpu_temperature_celsius", "Temperature");
    set(t.core_clock_hertz, "fairlead_gpu_clock_hertz", kClocksHelp, {{"clock", "core"}});
    set(t.memory_clock_hertz, "fairlead_gpu_clock_hertz", kClocksHelp, {{"clock", "memory"}});
    set(t.utilization, "fairlead_gpu_utilization_ratio", "Share of time that a kernel ran, 0 to 1");
    set(t.memory_used_bytes, "fairlead_gpu_memory_used_bytes", "Device memory in use, by anybody");
    set(t.ecc_corrected, "fairlead_gpu_ecc_errors", kEccHelp, {{"kind", "corrected"}});
    set(t.ecc_uncorrected, "fairlead_gpu_ecc_errors", kEccHelp, {{"kind", "uncorrected"}});
    if (!t.throttling) return;
    for (const char* reason : {"power_cap", "thermal", "hardware_slowdown", "power_brake"}) {
      const bool holds =
          std::find(t.throttling->begin(), t.throttling->end(), reason) != t.throttling->end();
      Gauge("fairlead_gpu_throttled", "1 while this holds the clocks down", {{"reason", reason}})
          .Set(holds ? 1 : 0);
    }
  }

  static constexpr char kClocksHelp[] = "Clock rates now";
  static constexpr char kEccHelp[] = "Memory errors since the driver was loaded";

  prometheus::Registry registry;
  std::mutex engine_mutex;
  std::function<EngineStats()> stats;
  std::function<EmbeddingStats()> embedding_stats;
  prometheus::Counter* embedded_texts = nullptr;  // of a server that makes embeddings
  std::function<DeviceTelemetry()> telemetry;

  prometheus::Gauge& requests_running =
      Gauge("fairlead_requests_running", "Sequences being computed");
  prometheus::Gauge& requests_waiting =
      Gauge("fairlead_requests_waiting", "Sequences in the queue");
  prometheus::Gauge& kv_usage =
      Gauge("fairlead_kv_cache_usage_ratio", "Share of KV blocks in use, 0 to 1");
  prometheus::Family<prometheus::Gauge>& kv_blocks =
      BuildGauge().Name("fairlead_kv_cache_blocks").Help("KV blocks by state").Register(registry);
  prometheus::Gauge& kv_used = kv_blocks.Add({{"state", "used"}});
  prometheus::Gauge& kv_cached = kv_blocks.Add({{"state", "cached"}});
  prometheus::Gauge& kv_free = kv_blocks.Add({{"state", "free"}});
  prometheus::Gauge& draining = Gauge("fairlead_draining", "1 while the server drains");
  prometheus::Counter& steps = Counter("fairlead_engine_steps_total", "Forward passes");
  prometheus::Counter& prompt_tokens =
      Counter("fairlead_prompt_tokens_total", "Prompt tokens computed");
  prometheus::Counter& generation_tokens =
      Counter("fairlead_generation_tokens_total", "Tokens generated");
  prometheus::Counter& prefix_queries = Counter("fairlead_prefix_cache_queries_tokens_total",
                                                "Prompt tokens looked up in the prefix cache");
  prometheus::Counter& prefix_hits =
      Counter("fairlead_prefix_cache_hits_tokens_total", "Prompt tokens found in the prefix cache");
  prometheus::Counter& preemptions =
      Counter("fairlead_preemptions_total", "Sequences preempted for KV blocks");
  prometheus::Counter& nonfinite = Counter("fairlead_nonfinite_logits_total",
                                           "Sequences ended because their logits were not finite");
  prometheus::Counter& drafts =
      Counter("fairlead_spec_decode_num_drafts_total", "Runs of drafted tokens that were verified");
  prometheus::Counter& draft_tokens =
      Counter("fairlead_spec_decode_num_draft_tokens_total", "Drafted tokens that were verified");
  prometheus::Counter& accepted_draft_tokens = Counter(
      "fairlead_spec_decode_num_accepted_tokens_total", "Drafted tokens that became output");
  prometheus::Family<prometheus::Counter>& finished =
      CounterFamily("fairlead_requests_finished_total", "Requests by outcome");
  prometheus::Family<prometheus::Counter>& responses =
      CounterFamily("fairlead_responses_total", "Answers by protocol, route and code");
  prometheus::Family<prometheus::Counter>& denied =
      CounterFamily("fairlead_auth_denied_total", "Calls without a valid key");
  prometheus::Family<prometheus::Gauge>& connections =
      BuildGauge().Name("fairlead_connections").Help("Open connections").Register(registry);
  prometheus::Histogram& ttft =
      Histogram("fairlead_time_to_first_token_seconds", "Arrival to first token", kTtftBuckets);
  prometheus::Histogram& itl = Histogram("fairlead_inter_token_latency_seconds",
                                         "Time between two tokens of a choice", kItlBuckets);
  prometheus::Histogram& queue_time = Histogram("fairlead_request_queue_time_seconds",
                                                "Arrival to the first step", kLatencyBuckets);
  prometheus::Histogram& e2e = Histogram("fairlead_e2e_request_latency_seconds",
                                         "Arrival to the last token", kLatencyBuckets);
  prometheus::Histogram& request_prompt =
      Histogram("fairlead_request_prompt_tokens", "Prompt length", kTokenBuckets);
  prometheus::Histogram& request_generated =
      Histogram("fairlead_request_generation_tokens", "Output length", kTokenBuckets);
};

Metrics::Metrics(const BuildInfo& build) : impl_(std::make_unique<Impl>(build)) {}
Metrics::~Metrics() = default;

void Metrics::SetEngine(std::function<EngineStats()> stats, int kv_block_tokens) {
  impl_
      ->Gauge("fairlead_kv_cache_info", "KV block size in tokens and number of blocks; always 1",
              {{"block_size", std::to_string(kv_block_tokens)},
               {"num_blocks", std::to_string(stats().kv_blocks_total)}})
      .Set(1);
  const std::lock_guard<std::mutex> lock(impl_->engine_mutex);
  impl_->stats = std::move(stats);
}

void Metrics::SetEmbeddingEngine(std::function<EmbeddingStats()> stats) {
  const std::lock_guard<std::mutex> lock(impl_->engine_mutex);
  impl_->embedded_texts =
      &impl_->Counter("fairlead_embedding_texts_total", "Texts that became vectors");
  impl_->embedding_stats = std::move(stats);
}

void Metrics::SetTelemetry(std::function<DeviceTelemetry()> telemetry) {
  const std::lock_guard<std::mutex> lock(impl_->engine_mutex);
  impl_->telemetry = std::move(telemetry);
}

void Metrics::SetDraining(bool draining) { impl_->draining.Set(draining ? 1 : 0); }
void Metrics::RequestFinished(std::string_view reason) {
  impl_->finished.Add(OneLabel("reason", reason)).Increment();
}
void Metrics::ObserveTimeToFirstToken(double seconds) { impl_->ttft.Observe(seconds); }
void Metrics::ObserveInterTokenLatency(double seconds) { impl_->itl.Observe(seconds); }
void Metrics::ObserveQueueTime(double seconds) { impl_->queue_time.Observe(seconds); }
void Metrics::ObserveEndToEnd(double seconds) { impl_->e2e.Observe(seconds); }
void Metrics::ObservePromptTokens(int tokens) { impl_->request_prompt.Observe(tokens); }
void Metrics::ObserveGeneratedTokens(int tokens) { impl_->request_generated.Observe(tokens); }

void Metrics::Responded(std::string_view protocol, std::string_view route, std::string_view code) {
  impl_->responses
      .Add({{"protocol", std::string(protocol)},
            {"route", std::string(route)},
            {"code", std::string(code)}})
      .Increment();
}

void Metrics::AuthDenied(std::string_view protocol) {
  impl_->denied.Add(OneLabel("protocol", protocol)).Increment();
}

void Metrics::ConnectionOpened(std::string_view protocol) {
  impl_->connections.Add(OneLabel("protocol", protocol)).Increment();
}

void Metrics::ConnectionClosed(std::string_view protocol) {
  impl_->connections.Add(OneLabel("protocol", protocol)).Decrement();
}

std::string Metrics::Scrape() {
  impl_->ReadEngine();
  impl_->ReadEmbeddingEngine();
  impl_->ReadTelemetry();
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace fairlead
