// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/reference_sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "kernels/sampling_rng.h"
#include "tests/reference/reference_ops.h"

namespace fairlead::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool IsUsable(const std::vector<float>& logits) {
  bool any_finite = false;
  for (const float l : logits) {
    if (std::isnan(l) || l == kInfinity) return false;
    any_finite |= std::isfinite(l);
  }
  return any_finite;
}

// Token ids by falling logit, lower ids first among equals.
std::vector<int32_t> Ranking(const std::vector<float>& logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&logits](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return ids;
}

// How far each threshold is moved: min_p by a factor, top_p and the uniform number by a share of
// the mass.
struct Shift {
  double min_p_factor = 1;
  double top_p = 0;
  double uniform = 0;
};

// `kept`: the ranking of all tokens to begin with.
int32_t SampleShifted(const SamplingRow& row, std::vector<int32_t> kept, const Shift& shift) {
  if (!IsUsable(row.logits)) return -1;
  if (row.temperature == 0) return kept[0];

  if (row.top_k > 0 && kept.size() > static_cast<size_t>(row.top_k)) kept.resize(row.top_k);

  // Probabilities up to a common factor: the most likely token has 1.
  std::vector<double> p(row.logits.size());
  for (const int32_t id : kept) {
    p[id] = std::exp((double{row.logits[id]} - row.logits[kept[0]]) / row.temperature);
  }
  const double min_p = double{row.min_p} * shift.min_p_factor;
  while (kept.size() > 1 && p[kept.back()] < min_p) kept.pop_back();

  double mass = 0;
  for (const int32_t id : kept) mass += p[id];
  if (row.top_p < 1) {
    size_t num_kept = 0;
    double reached = 0;
    do {
      reached += p[kept[num_kept++]];
    } while (num_kept < kept.size() && reached < (row.top_p + shift.top_p) * mass);
    kept.resize(num_kept);
    mass = reached;
  }

  std::sort(kept.begin(), kept.end());
  const double threshold = std::clamp(row.uniform + shift.uniform, 0.0, 1.0) * mass;
  double running = 0;
  int32_t last_possible = -1;
  for (const int32_t id : kept) {
    if (p[id] == 0) continue;  // a logit of -infinity: never drawn
    running += p[id];
    last_possible = id;
    if (running > threshold) break;
  }
  return last_possible;
}

}  // namespace

bool Allows(const SampleArgs& args, int64_t row, int64_t token) {
  if (!args.allowed_row) return true;
  const int32_t mask = args.allowed_row.As<int32_t>()[row];
  if (mask == -1) return true;
  const uint32_t word = args.allowed.As<uint32_t>()[mask * args.allowed.dim[1] + token / 32];
  return (word >> token % 32 & 1) == 1;
}

SamplingRow ReadSamplingRow(const SampleArgs& args, int64_t row) {
  SamplingRow result;
  const int64_t vocab = args.logits.dim[1];
  const float* logits = args.logits.As<float>() + row * vocab;
  result.logits.assign(logits, logits + vocab);
  if (args.edits.start) {
    const int32_t* start = args.edits.start.As<int32_t>();
    for (int32_t e = start[row]; e < start[row + 1]; ++e) {
      float& l = result.logits[args.edits.token.As<int32_t>()[e]];
      const float repetition = args.edits.repetition.As<float>()[e];
      l = (l > 0 ? l / repetition : l * repetition) + args.edits.add.As<float>()[e];
    }
  }
  for (int64_t token = 0; token < vocab; ++token) {
    if (!Allows(args, row, token)) result.logits[token] = -kInfinity;
  }
  result.temperature = args.temperature.As<float>()[row];
  result.top_k = args.top_k.As<int32_t>()[row];
  result.top_p = args.top_p.As<float>()[row];
  result.min_p = args.min_p.As<float>()[row];
  const uint32_t low = args.seed.As<uint32_t>()[2 * row];
  const uint32_t high = args.seed.As<uint32_t>()[2 * row + 1];
  result.uniform = UniformFor(uint64_t{high} << 32 | low, args.position.As<uint32_t>()[row]);
  return result;
}

int32_t SampleRow(const SamplingRow& row) { return SampleShifted(row, Ranking(row.logits), {}); }

std::vector<int32_t> AcceptableTokens(const SamplingRow& row, double slack) {
  const std::vector<int32_t> ranking = Ranking(row.logits);
  std::set<int32_t> tokens;
  for (const double min_p : {-slack, 0.0, slack}) {
    for (const double top_p : {-slack, 0.0, slack}) {
      for (const double uniform : {-slack, 0.0, slack}) {
        tokens.insert(SampleShifted(
            row, ranking, {.min_p_factor = 1 + min_p, .top_p = top_p, .uniform = uniform}));
      }
    }
  }
  return {tokens.begin(), tokens.end()};
}

void ReferenceOps::Sample(Stream&, const SampleArgs& args) const {
  for (int64_t r = 0; r < args.logits.dim[0]; ++r) {
    args.out.As<int32_t>()[r] = SampleRow(ReadSamplingRow(args, r));
  }
}

void ReferenceOps::Logprobs(Stream&, const LogprobsArgs& args) const {
  const int64_t vocab = args.logits.dim[1];
  const int64_t n = args.top_token ? args.top_token.dim[1] : 0;
  for (int64_t r = 0; r < args.logits.dim[0]; ++r) {
    const float* first = args.logits.As<float>() + r * vocab;
    const std::vector<float> logits(first, first + vocab);
    const std::vector<int32_t> ranking = Ranking(logits);
    const double max = logits[ranking[0]];
    double sum = 0;
    for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - max);
    const auto logprob = [&](int32_t token) {
      return static_cast<float>(logits[token] - max - std::log(sum));
    };

    const int32_t target = args.target.As<int32_t>()[r];
    float target_logprob = 0;
    int32_t rank = 0;
    if (target >= 0 && target < vocab) {
      target_logprob = logprob(target);
      rank = static_cast<int32_t>(std::find(ranking.begin(), ranking.end(), target) -
                                  ranking.begin()) +
             1;
    }
    args.out_logprob.As<float>()[r] = target_logprob;
    args.out_rank.As<int32_t>()[r] = rank;
    for (int64_t i = 0; i < n; ++i) {
      args.top_token.As<int32_t>()[r * n + i] = ranking[i];
      args.top_logprob.As<float>()[r * n + i] = logprob(ranking[i]);
    }
  }
}

}  // namespace fairlead::reference
