// SPDX-License-Identifier: Apache-2.0
#include "runtime/speculation.h"

#include <algorithm>
#include <limits>

namespace fairlead {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::infinity();

void TakeNone(absl::Span<DraftCandidate> candidates) {
  for (DraftCandidate& candidate : candidates) {
    candidate.drafts = 0;
    candidate.chance = candidate.limit > 0 ? candidate.acceptance : 0;
  }
}

// Adds the draft that is likeliest to be accepted; returns its chance, 0 when none is left.
double TakeLikeliest(absl::Span<DraftCandidate> candidates) {
  const auto best = std::max_element(
      candidates.begin(), candidates.end(),
      [](const DraftCandidate& a, const DraftCandidate& b) { return a.chance < b.chance; });
  if (best == candidates.end() || best->chance == 0) return 0;
  const double chance = best->chance;
  ++best->drafts;
  best->chance = best->drafts < best->limit ? chance * best->acceptance : 0;
  return chance;
}

}  // namespace

StepCosts::StepCosts() { cost_.fill(kUnknown); }

void StepCosts::Record(int tokens, absl::Duration time) {
  if (tokens < 1 || tokens > kMaxTokens || time <= absl::ZeroDuration()) return;
  constexpr double kWeight = 0.25, kSink = 1.0 / 4096;
  for (Estimate& estimate : estimate_) estimate.hope -= kSink * estimate.hope;
  const double seconds = absl::ToDoubleSeconds(time);
  double& mean = estimate_[tokens].seconds;
  // A step that something else on the machine held up moves it no further than twice the cost does.
  mean = mean > 0 ? mean + kWeight * (std::min(seconds, 2 * mean) - mean) : seconds;
  estimate_[tokens].hope = 1;
  Agree(tokens);
  Interpolate();
}

void StepCosts::Agree(int fresh) {
  const double cost = estimate_[fresh].seconds;
  for (int n = 1; n < fresh; ++n) {
    if (estimate_[n].cost() > cost) estimate_[n] = {.seconds = cost};
  }
  for (int n = fresh + 1; n <= kMaxTokens; ++n) {
    if (estimate_[n].seconds < cost) estimate_[n] = {};
  }
}

void StepCosts::Interpolate() {
  int last = 0;
  for (int n = 1; n <= kMaxTokens; ++n) {
    cost_[n] = kUnknown;
    if (estimate_[n].seconds == 0) continue;
    cost_[n] = last > 0 ? std::max(cost_[last], estimate_[n].cost()) : estimate_[n].cost();
    for (int m = last + 1; last > 0 && m < n; ++m) {
      const double share = static_cast<double>(m - last) / (n - last);
      cost_[m] = cost_[last] + share * (cost_[n] - cost_[last]);
    }
    last = n;
  }
  for (int n = last + 1; n <= std::min(2 * last, kMaxTokens); ++n) cost_[n] = cost_[last];
}

double StepCosts::Of(int tokens) const { return tokens <= kMaxTokens ? cost_[tokens] : kUnknown; }

void ChooseDrafts(const StepCosts& costs, int rows, int max_drafts,
                  absl::Span<DraftCandidate> candidates) {
  // Less than this is noise, and too seldom right to be worth a look.
  constexpr double kLeastGain = 1.05, kLeastChance = 0.05;
  TakeNone(candidates);
  if (!costs.measured(rows)) return;

  double expected = rows, best_rate = kLeastGain * rows / costs.Of(rows);
  int best_drafts = 0;
  for (int drafts = 1; drafts <= max_drafts; ++drafts) {
    const double gain = TakeLikeliest(candidates);
    if (gain < kLeastChance) break;
    expected += gain;
    const double rate = expected / costs.Of(rows + drafts);
    if (rate > best_rate) best_rate = rate, best_drafts = drafts;
  }
  TakeNone(candidates);
  for (int i = 0; i < best_drafts; ++i) TakeLikeliest(candidates);
}

}  // namespace fairlead
