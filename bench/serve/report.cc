// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/report.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace fairlead::serve_bench {
namespace {

const char* NameOf(InputKind kind) {
  switch (kind) {
    case InputKind::kTokens:
      return "tokens";
    case InputKind::kText:
      return "text";
    case InputKind::kChat:
      return "chat";
  }
  return "";
}

const char* NameOf(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kCancelled:
      return "cancelled";
    case Outcome::kError:
      return "error";
  }
  return "";
}

void AppendSpread(std::string& text, const char* name, const Spread& spread) {
  if (spread.count == 0) {
    absl::StrAppendFormat(&text, "%-12s %s\n", name, "       -  (no sample)");
    return;
  }
  absl::StrAppendFormat(&text, "%-12s %9.2f %9.2f %9.2f %9.2f %9.2f %9d\n", name, spread.mean,
                        spread.p50, spread.p90, spread.p99, spread.max, spread.count);
}

void AppendCounts(std::string& text, const Summary& summary) {
  absl::StrAppendFormat(&text, "requests     %d sent, %d ok, %d cancelled, %d failed", summary.sent,
                        summary.ok, summary.cancelled, summary.failed);
  const char* before = " (";
  for (const auto& [kind, count] : summary.errors) {
    absl::StrAppend(&text, before, kind, ": ", count);
    before = ", ";
  }
  absl::StrAppend(&text, summary.errors.empty() ? "\n" : ")\n");
  absl::StrAppendFormat(&text,
                        "tokens       %d in (%d of them from the server's prefix cache), %d out\n",
                        summary.prompt_tokens, summary.cached_tokens, summary.completion_tokens);
}

void AppendRates(std::string& text, const Summary& summary) {
  absl::StrAppendFormat(
      &text, "throughput   %.1f output tokens/s, %.1f total tokens/s, %.3f requests/s\n",
      summary.output_tokens_per_s, summary.total_tokens_per_s, summary.requests_per_s);
  if (summary.goodput_per_s) {
    absl::StrAppendFormat(&text, "goodput      %.3f requests/s, %.1f %% of the requests\n",
                          *summary.goodput_per_s, *summary.good_share * 100);
  }
  absl::StrAppendFormat(&text,
                        "duration     %.2f s, at most %d requests at once, %.2f tokens/event\n",
                        summary.duration_s, summary.peak_concurrency, summary.tokens_per_event);
}

void AppendLatencies(std::string& text, const Summary& summary) {
  absl::StrAppendFormat(&text, "%-12s %9s %9s %9s %9s %9s %9s\n", "ms", "mean", "p50", "p90", "p99",
                        "max", "samples");
  AppendSpread(text, "TTFT", summary.ttft_ms);
  AppendSpread(text, "TPOT", summary.tpot_ms);
  AppendSpread(text, "ITL", summary.itl_ms);
  AppendSpread(text, "E2EL", summary.e2el_ms);
  AppendSpread(text, "NTPOT", summary.ntpot_ms);
  AppendSpread(text, "send lag", summary.send_lag_ms);
}

Json SpreadJson(const Spread& spread) {
  if (spread.count == 0) return nullptr;
  return {{"mean", spread.mean}, {"p50", spread.p50}, {"p90", spread.p90},
          {"p99", spread.p99},   {"max", spread.max}, {"samples", spread.count}};
}

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json FiguresJson(const Summary& summary) {
  Json errors = Json::object();
  for (const auto& [kind, count] : summary.errors) errors[kind] = count;
  return {{"requests",
           {{"sent", summary.sent},
            {"ok", summary.ok},
            {"cancelled", summary.cancelled},
            {"failed", summary.failed},
            {"errors", errors}}},
          {"duration_s", summary.duration_s},
          {"prompt_tokens", summary.prompt_tokens},
          {"cached_prompt_tokens", summary.cached_tokens},
          {"completion_tokens", summary.completion_tokens},
          {"requests_per_s", summary.requests_per_s},
          {"output_tokens_per_s", summary.output_tokens_per_s},
          {"total_tokens_per_s", summary.total_tokens_per_s},
          {"goodput_per_s", OrNull(summary.goodput_per_s)},
          {"good_share", OrNull(summary.good_share)},
          {"peak_concurrency", summary.peak_concurrency},
          {"tokens_per_event", summary.tokens_per_event},
          {"ttft_ms", SpreadJson(summary.ttft_ms)},
          {"tpot_ms", SpreadJson(summary.tpot_ms)},
          {"itl_ms", SpreadJson(summary.itl_ms)},
          {"e2el_ms", SpreadJson(summary.e2el_ms)},
          {"ntpot_ms", SpreadJson(summary.ntpot_ms)},
          {"send_lag_ms", SpreadJson(summary.send_lag_ms)}};
}

Json SloJson(const Slo& slo) {
  return {{"ttft_ms", OrNull(slo.ttft_ms)},
          {"tpot_ms", OrNull(slo.tpot_ms)},
          {"e2el_ms", OrNull(slo.e2el_ms)},
          {"ntpot_ms", OrNull(slo.ntpot_ms)}};
}

Json WorkloadJson(const Options& options) {
  const WorkloadSpec& spec = options.workload;
  return {{"name", std::string(spec.name)},
          {"input", NameOf(options.content.kind)},
          {"input_tokens", spec.input_tokens},
          {"output_tokens", spec.output_tokens},
          {"turns", spec.turns},
          {"shared_tokens", spec.shared_tokens},
          {"log_normal", spec.log_normal},
          {"copies", spec.copies},
          {"cancel_share", spec.cancel_share},
          {"injected_tokens", spec.injected_tokens},
          {"inject_every_s", spec.inject_every_s},
          {"range_ratio", spec.range_ratio},
          {"seed", options.content.seed}};
}

Json LabelsJson(const Options& options) {
  Json labels = Json::object();
  for (const auto& [key, value] : options.labels) labels[key] = value;
  return labels;
}

// The first `max_model_len` of a model that the server lists; 0: none.
int64_t ContextOf(const Json& server) {
  const auto read = [](const Json& object) {
    return object.is_object() && object.contains("max_model_len") &&
                   object["max_model_len"].is_number_integer()
               ? object["max_model_len"].get<int64_t>()
               : 0;
  };
  const Json models = server.value("models", Json::object());
  for (const char* list : {"data", "models"}) {  // OpenAI's, ours
    if (!models.is_object() || !models.contains(list) || !models[list].is_array()) continue;
    for (const Json& model : models[list]) {
      if (const int64_t context = read(model); context > 0) return context;
    }
  }
  return 0;
}

}  // namespace

absl::Status CheckContext(const Options& options, const Json& server) {
  const int64_t needed = ContextNeeded(options.workload), context = ContextOf(server);
  if (context == 0 || needed <= context) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s needs a context of %d tokens, the server has %d: shorten it, e.g. by --scale %.2g",
      options.workload.name, needed, context,
      0.9 * static_cast<double>(context) / static_cast<double>(needed)));
}

std::string Table(const Options& options, const PointResult& result) {
  std::string text = absl::StrFormat(
      "%s: %s, %s%s\n", options.grpc.empty() ? options.http : options.grpc, options.workload.name,
      result.point.ToString(), result.gave_up ? " - given up after --max-errors" : "");
  AppendCounts(text, result.load);
  AppendRates(text, result.load);
  AppendLatencies(text, result.load);
  if (result.injected.sent > 0) {
    absl::StrAppend(&text, "beside it, not in the figures above:\n");
    AppendCounts(text, result.injected);
    AppendSpread(text, "TTFT", result.injected.ttft_ms);
  }
  return text;
}

std::string KneeLine(const KneeSearch& search) {
  if (!search.knee()) return "knee: none, no rate that was tried is carried\n";
  return absl::StrFormat("knee: %.3f requests/s%s\n", *search.knee(),
                         search.bounded() ? "" : " or more: every rate that was tried is carried");
}

Json SummaryJson(const Options& options, const PointResult& result, const Json& server) {
  Json out = {{"type", "summary"},
              {"tool", "serve_bench " FAIRLEAD_VERSION},
              {"command", options.command_line},
              {"labels", LabelsJson(options)},
              {"workload", WorkloadJson(options)},
              {"load",
               {{"concurrency", OrNull(result.point.concurrency)},
                {"rate", OrNull(result.point.rate)},
                {"burstiness", options.burstiness},
                {"gave_up", result.gave_up}}},
              {"slo", SloJson(options.slo)}};
  out.update(FiguresJson(result.load));
  out["injected"] = result.injected.sent > 0 ? FiguresJson(result.injected) : Json(nullptr);
  out["server"] = server;
  return out;
}

Json RequestJson(const Record& record) {
  Json out = {{"type", "request"},
              {"id", record.id},
              {"session", record.session},
              {"turn", record.turn},
              {"injected", record.injected},
              {"outcome", NameOf(record.outcome)},
              {"prompt_tokens", record.prompt_tokens},
              {"cached_prompt_tokens", record.cached_tokens},
              {"completion_tokens", record.completion_tokens},
              {"send_lag_ms", MillisecondsBetween(record.scheduled, record.sent)},
              {"ended_ms", MillisecondsBetween(record.sent, record.ended)}};
  Json events = Json::array();
  for (const Time event : record.token_events)
    events.push_back(MillisecondsBetween(record.sent, event));
  out["token_events_ms"] = std::move(events);
  if (const std::optional<RequestMetrics> metrics = MetricsOf(record)) {
    out["ttft_ms"] = metrics->ttft_ms;
    out["tpot_ms"] = record.completion_tokens > 1 ? Json(metrics->tpot_ms) : Json(nullptr);
    out["e2el_ms"] = metrics->e2el_ms;
    out["ntpot_ms"] = metrics->ntpot_ms;
  }
  if (record.outcome == Outcome::kError)
    out["error"] = {{"kind", record.error_kind}, {"message", record.error_message}};
  return out;
}

Json KneeJson(const Options& options, const KneeSearch& search, const Json& server) {
  return {{"type", "knee"},
          {"tool", "serve_bench " FAIRLEAD_VERSION},
          {"command", options.command_line},
          {"labels", LabelsJson(options)},
          {"workload", WorkloadJson(options)},
          {"slo", SloJson(options.slo)},
          {"precision", options.knee_precision},
          {"rate", OrNull(search.knee())},
          {"bounded", search.bounded()},
          {"server", server}};
}

}  // namespace fairlead::serve_bench
