// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/metrics.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace fairlead::serve_bench {

const char* const kDefinitions =
    R"(Definitions (times at the client, percentiles interpolate linearly):
  TTFT    time to first token: from the send to the first event that carries a token (text that is
          not empty, or token ids). Queue, tokenizer, prefill and network are in it. An answer whose
          tokens show no text of their own (part of a character) counts from its end.
  E2EL    end-to-end latency: from the send to the last event that carries a token.
  TPOT    time per output token after the first: (E2EL - TTFT) / (out - 1), a figure a request. With
          out <= 1 it is 0 for goodput and left out of the percentiles. AIPerf calls this ITL.
  ITL     inter-token latency: every gap between two successive events with tokens, of all requests
          together. Where an event carries several tokens (speculation, coalescing) ITL grows while
          TPOT falls; "tokens/event" tells.
  NTPOT   normalised time per output token: E2EL / out.
  out, in tokens by the server's own usage, never a count of events.
  output tokens/s  output tokens of all completed requests / duration; total adds the input's.
  duration         from the first send to the last end of an answer.
  goodput          requests/s that meet every bound of --goodput; its share is of the requests sent.
                   A failed or refused request is never good.
  knee    the largest rate whose goodput/rate, taken as the share of good requests, is >= 0.9.
  send lag         how late the generator was: from the planned to the real send. If its p99 is not
                   small beside TTFT, the client is what was measured.
Requests that the workload cancels are no errors; they and failed ones are in no latency and no
throughput.)";

std::optional<RequestMetrics> MetricsOf(const Record& record) {
  if (record.outcome != Outcome::kOk || record.completion_tokens < 1) return std::nullopt;
  const bool shown = !record.token_events.empty();
  const Time first = shown ? record.token_events.front() : record.ended;
  const Time last = shown ? record.token_events.back() : record.ended;
  RequestMetrics metrics;
  metrics.ttft_ms = MillisecondsBetween(record.sent, first);
  metrics.e2el_ms = MillisecondsBetween(record.sent, last);
  if (record.completion_tokens > 1)
    metrics.tpot_ms = (metrics.e2el_ms - metrics.ttft_ms) / (record.completion_tokens - 1);
  metrics.ntpot_ms = metrics.e2el_ms / record.completion_tokens;
  return metrics;
}

bool Slo::IsMetBy(const RequestMetrics& metrics) const {
  const auto keeps = [](const std::optional<double>& bound, double value) {
    return !bound || value <= *bound;
  };
  return keeps(ttft_ms, metrics.ttft_ms) && keeps(tpot_ms, metrics.tpot_ms) &&
         keeps(e2el_ms, metrics.e2el_ms) && keeps(ntpot_ms, metrics.ntpot_ms);
}

absl::StatusOr<Slo> ParseSlo(const std::vector<std::string>& terms) {
  Slo slo;
  for (const std::string& term : terms) {
    const size_t colon = std::min(term.find(':'), term.size());
    const std::string name = term.substr(0, colon);
    std::optional<double>* bound = name == "ttft"    ? &slo.ttft_ms
                                   : name == "tpot"  ? &slo.tpot_ms
                                   : name == "e2el"  ? &slo.e2el_ms
                                   : name == "ntpot" ? &slo.ntpot_ms
                                                     : nullptr;
    double value = 0;
    const bool is_number = colon < term.size() && absl::SimpleAtod(term.substr(colon + 1), &value);
    // The negation also refuses NaN.
    if (bound == nullptr || !is_number || !(value > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--goodput '", term, "' is not ttft:MS, tpot:MS, e2el:MS or ntpot:MS"));
    }
    if (bound->has_value())
      return absl::InvalidArgumentError(absl::StrCat("--goodput names ", name, " twice"));
    *bound = value;
  }
  return slo;
}

namespace {

int PeakConcurrency(const std::vector<Record>& records) {
  std::vector<std::pair<Time, int>> changes;
  for (const Record& record : records) {
    changes.emplace_back(record.sent, +1);
    changes.emplace_back(record.ended, -1);
  }
  std::sort(changes.begin(), changes.end());  // at one instant, ends before starts
  int now = 0, peak = 0;
  for (const auto& [time, change] : changes) peak = std::max(peak, now += change);
  return peak;
}

struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, ntpot, send_lag;
};

void AddLatencies(const Record& record, const RequestMetrics& metrics, Samples& samples) {
  samples.ttft.push_back(metrics.ttft_ms);
  samples.e2el.push_back(metrics.e2el_ms);
  samples.ntpot.push_back(metrics.ntpot_ms);
  if (record.completion_tokens > 1) samples.tpot.push_back(metrics.tpot_ms);
  for (size_t i = 1; i < record.token_events.size(); ++i)
    samples.itl.push_back(MillisecondsBetween(record.token_events[i - 1], record.token_events[i]));
}

void AddRates(int64_t good, const Slo& slo, Summary& summary) {
  if (!slo.empty()) {
    const int64_t judged = summary.ok + summary.failed;
    summary.good_share = judged == 0 ? 0 : static_cast<double>(good) / static_cast<double>(judged);
    summary.goodput_per_s = 0;
  }
  if (summary.duration_s <= 0) return;
  summary.requests_per_s = static_cast<double>(summary.ok) / summary.duration_s;
  summary.output_tokens_per_s = static_cast<double>(summary.completion_tokens) / summary.duration_s;
  summary.total_tokens_per_s =
      static_cast<double>(summary.prompt_tokens + summary.completion_tokens) / summary.duration_s;
  if (!slo.empty()) summary.goodput_per_s = static_cast<double>(good) / summary.duration_s;
}

}  // namespace

Summary Summarize(const std::vector<Record>& records, const Slo& slo) {
  Summary summary;
  if (records.empty()) return summary;
  Samples samples;
  int64_t good = 0, events = 0, tokens_in_events = 0;
  Time first = records.front().sent, last = records.front().ended;
  for (const Record& record : records) {
    ++summary.sent;
    first = std::min(first, record.sent);
    last = std::max(last, record.ended);
    samples.send_lag.push_back(MillisecondsBetween(record.scheduled, record.sent));
    if (record.outcome == Outcome::kCancelled) ++summary.cancelled;
    if (record.outcome == Outcome::kError) {
      ++summary.failed;
      ++summary.errors[record.error_kind];
    }
    if (record.outcome != Outcome::kOk) continue;
    ++summary.ok;
    summary.prompt_tokens += record.prompt_tokens;
    summary.completion_tokens += record.completion_tokens;
    summary.cached_tokens += record.cached_tokens;
    const std::optional<RequestMetrics> metrics = MetricsOf(record);
    if (!metrics) continue;
    AddLatencies(record, *metrics, samples);
    if (!record.token_events.empty()) {
      events += static_cast<int64_t>(record.token_events.size());
      tokens_in_events += record.completion_tokens;
    }
    if (slo.IsMetBy(*metrics)) ++good;
  }
  summary.duration_s = SecondsBetween(first, last);
  AddRates(good, slo, summary);
  if (events > 0)
    summary.tokens_per_event = static_cast<double>(tokens_in_events) / static_cast<double>(events);
  summary.peak_concurrency = PeakConcurrency(records);
  summary.ttft_ms = SpreadOf(std::move(samples.ttft));
  summary.tpot_ms = SpreadOf(std::move(samples.tpot));
  summary.itl_ms = SpreadOf(std::move(samples.itl));
  summary.e2el_ms = SpreadOf(std::move(samples.e2el));
  summary.ntpot_ms = SpreadOf(std::move(samples.ntpot));
  summary.send_lag_ms = SpreadOf(std::move(samples.send_lag));
  return summary;
}

}  // namespace fairlead::serve_bench
