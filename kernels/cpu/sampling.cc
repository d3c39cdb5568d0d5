// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "absl/functional/function_ref.h"
#include "kernels/cpu/simd_sampling.h"
#include "kernels/sampling_rng.h"

namespace fairlead {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What is left of a row: logits, and their ids in ascending order (null: all of the vocabulary).
struct Candidates {
  const float* logit;
  const int32_t* id;
  int n;
};

struct RowParams {
  float temperature;
  int top_k;
  float top_p;
  float min_p;
  float uniform;
};

// Ascending integers in the order of the floats; no NaN.
int32_t OrderedBits(float x) {
  const auto bits = std::bit_cast<int32_t>(x);
  return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
float FromOrderedBits(int32_t ordered) {
  return std::bit_cast<float>(ordered >= 0 ? ordered : ordered ^ 0x7fffffff);
}

// The largest threshold in [-infinity, max] for which `enough` holds; it must hold for -infinity
// and, when it holds for a value, for all smaller ones. At most 32 calls.
float BisectThreshold(float max, absl::FunctionRef<bool(float)> enough) {
  int64_t low = OrderedBits(-kInfinity);
  int64_t high = OrderedBits(max);
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (enough(FromOrderedBits(static_cast<int32_t>(middle)))) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return FromOrderedBits(static_cast<int32_t>(low));
}

class RowSampler {
 public:
  RowSampler(const float* logit, int vocab, const RowParams& params, SamplingRow& scratch)
      : params_(params), scratch_(scratch), left_{logit, nullptr, vocab} {
    chunk_max_ = scratch.chunk_max.Reserve(NumLogitChunks(vocab));
    valid_ = SimdScanLogits(logit, vocab, &max_, chunk_max_);
  }

  int Sample() {
    if (!valid_) return -1;
    if (!(params_.temperature > 0)) return FirstOfMax();
    if (params_.top_k > 0 && params_.top_k < left_.n) KeepTopK();
    if (params_.min_p > 0) KeepMinP();
    if (params_.top_p < 1) KeepTopP();
    return Draw();
  }

 private:
  int FirstOfMax() const;
  void KeepTopK();
  void KeepMinP();
  void KeepTopP();
  int Draw();

  const float* Weights(const Candidates& from);
  void Keep(const float* key, float threshold);
  void KeepWithTies(float threshold, int64_t ties);

  const RowParams params_;
  SamplingRow& scratch_;
  Candidates left_;
  float* chunk_max_;
  float max_ = 0;
  bool valid_;
};

int RowSampler::FirstOfMax() const {
  int i = 0;
  while (chunk_max_[i / kLogitChunk] != max_) i += kLogitChunk;
  while (left_.logit[i] != max_) ++i;
  return i;
}

const float* RowSampler::Weights(const Candidates& from) {
  float* weight = scratch_.weight.Reserve(from.n);
  SimdWeights(from.logit, from.n, max_, params_.temperature, weight);
  return weight;
}

void RowSampler::Keep(const float* key, float threshold) {
  // What was kept before is smaller and stands in these same arrays, so they never grow under it.
  float* logit = scratch_.logit.Reserve(left_.n + SamplingRow::kSelectSlack);
  int32_t* id = scratch_.id.Reserve(left_.n + SamplingRow::kSelectSlack);
  const int n = SimdSelect(key, left_.logit, left_.id, left_.n, threshold, logit, id);
  left_ = {logit, id, n};
}

// Keeps what is above the threshold and, lowest ids first, `ties` of those that equal it.
void RowSampler::KeepWithTies(float threshold, int64_t ties) {
  Keep(left_.logit, threshold);
  float* logit = scratch_.logit.data();
  int32_t* id = scratch_.id.data();
  int n = 0;
  for (int i = 0; i < left_.n; ++i) {
    if (logit[i] == threshold && --ties < 0) continue;
    logit[n] = logit[i];
    id[n++] = id[i];
  }
  left_.n = n;
}

void RowSampler::KeepTopK() {
  const int k = params_.top_k;
  Keep(left_.logit, LowerBoundOfBest(chunk_max_, NumLogitChunks(left_.n), k, scratch_.best_chunks));
  const float threshold = BisectThreshold(max_, [&](float t) {
    const CountAbove count = SimdCountAbove(left_.logit, left_.n, t);
    return count.greater + count.equal >= k;
  });
  KeepWithTies(threshold, k - SimdCountAbove(left_.logit, left_.n, threshold).greater);
}

// The largest weight is 1, so a weight is already relative to it.
void RowSampler::KeepMinP() { Keep(Weights(left_), std::min(params_.min_p, 1.0f)); }

void RowSampler::KeepTopP() {
  const float* weight = Weights(left_);
  const double wanted = params_.top_p * SimdSum(weight, left_.n);
  // Most rows have their mass in a few tokens: then the bisection runs over those.
  const float likely = max_ + params_.temperature * std::log(1e-3f);
  if (SimdSumAtLeast(left_.logit, weight, left_.n, likely) >= wanted) {
    Keep(left_.logit, likely);
    weight = Weights(left_);
  }
  const float threshold = BisectThreshold(max_, [&](float t) {
    return t == -kInfinity || SimdSumAtLeast(left_.logit, weight, left_.n, t) >= wanted;
  });
  const CountAbove count = SimdCountAbove(left_.logit, left_.n, threshold);
  const float above = std::nextafter(threshold, kInfinity);
  const double missing = wanted - SimdSumAtLeast(left_.logit, weight, left_.n, above);
  float tie_weight;
  SimdWeights(&threshold, 1, max_, params_.temperature, &tie_weight);
  const double ties = tie_weight > 0 ? std::ceil(missing / tie_weight) : 1;
  KeepWithTies(threshold,
               static_cast<int64_t>(std::clamp(ties, 1.0, static_cast<double>(count.equal))));
}

// Inverse CDF: the first id whose cumulative weight exceeds uniform * total. Whole chunks are
// skipped by their sums.
int RowSampler::Draw() {
  constexpr int kChunk = 1024;
  const float* weight = Weights(left_);
  const auto chunk_sum = [&](int begin) {
    return SimdSum(weight + begin, std::min(kChunk, left_.n - begin));
  };
  double total = 0;
  for (int begin = 0; begin < left_.n; begin += kChunk) total += chunk_sum(begin);
  const double target = params_.uniform * total;
  double sum = 0;
  int last = 0;  // with a weight, in case rounding puts the target past the end
  for (int begin = 0; begin < left_.n; begin += kChunk) {
    const double end_sum = sum + chunk_sum(begin);
    if (end_sum > target) {
      const int end = std::min(begin + kChunk, left_.n);
      for (int i = begin; i < end; ++i) {
        sum += weight[i];
        if (weight[i] > 0) last = i;
        if (sum > target) break;
      }
      break;
    }
    sum = end_sum;
  }
  return left_.id == nullptr ? last : left_.id[last];
}

// The row's mask; null: all tokens are allowed.
const uint32_t* MaskOf(const SampleArgs& args, int64_t row) {
  if (!args.allowed_row) return nullptr;
  const int mask = args.allowed_row.As<int>()[row];
  return mask < 0 ? nullptr : args.allowed.As<uint32_t>() + mask * args.allowed.dim[1];
}

// The row with its edits and its mask. An edit of a token that is not allowed changes nothing, so
// the mask may come first.
const float* Edited(const SampleArgs& args, int64_t row, SamplingRow& scratch) {
  const int vocab = static_cast<int>(args.logits.dim[1]);
  const float* logit = args.logits.As<float>() + row * vocab;
  const LogitEdits& edits = args.edits;
  const uint32_t* allowed = MaskOf(args, row);
  const int begin = edits.start ? edits.start.As<int>()[row] : 0;
  const int end = edits.start ? edits.start.As<int>()[row + 1] : 0;
  if (begin == end && allowed == nullptr) return logit;
  float* edited = scratch.edited.Reserve(vocab);
  if (allowed == nullptr) {
    std::copy(logit, logit + vocab, edited);
  } else {
    SimdCopyAllowed(logit, allowed, vocab, edited);
  }
  for (int i = begin; i < end; ++i) {
    const int token = edits.token.As<int>()[i];
    if (allowed != nullptr && (allowed[token / 32] >> token % 32 & 1) == 0) continue;
    float& x = edited[token];
    const float repetition = edits.repetition.As<float>()[i];
    x = (x > 0 ? x / repetition : x * repetition) + edits.add.As<float>()[i];
  }
  return edited;
}

int SampleRow(const SampleArgs& args, int64_t row, SamplingRow& scratch) {
  const int vocab = static_cast<int>(args.logits.dim[1]);
  const uint32_t* seed = args.seed.As<uint32_t>() + 2 * row;
  const RowParams params = {
      .temperature = args.temperature.As<float>()[row],
      .top_k = args.top_k.As<int>()[row],
      .top_p = args.top_p.As<float>()[row],
      .min_p = args.min_p.As<float>()[row],
      .uniform = UniformFor(uint64_t{seed[1]} << 32 | seed[0], args.position.As<uint32_t>()[row])};
  return RowSampler(Edited(args, row, scratch), vocab, params, scratch).Sample();
}

}  // namespace

void SamplingScratch::Reserve(int threads, int vocab, bool sort) {
  worker.resize(std::max<size_t>(worker.size(), threads));
  for (SamplingRow& row : worker) {
    row.edited.Reserve(vocab);
    row.chunk_max.Reserve(NumLogitChunks(vocab));
    row.best_chunks.Reserve(NumLogitChunks(vocab));
    row.logit.Reserve(vocab + SamplingRow::kSelectSlack);
    row.id.Reserve(vocab + SamplingRow::kSelectSlack);
    row.weight.Reserve(vocab);
    if (sort) row.sorted.Reserve(vocab);
  }
}

float LowerBoundOfBest(const float* chunk_max, int chunks, int k, GrowOnlyArray<float>& buffer) {
  if (k > chunks) return -kInfinity;
  float* best = buffer.Reserve(chunks);
  std::copy(chunk_max, chunk_max + chunks, best);
  std::nth_element(best, best + k - 1, best + chunks, std::greater<float>());
  return best[k - 1];
}

void CpuSample(ThreadPool& pool, const SampleArgs& args, SamplingScratch& scratch) {
  const int64_t rows = args.logits.dim[0];
  scratch.Reserve(pool.threads(), static_cast<int>(args.logits.dim[1]), /*sort=*/false);
  const auto body = [&](int64_t row, int worker) {
    args.out.As<int>()[row] = SampleRow(args, row, scratch.worker[worker]);
  };
  if (rows == 1) {
    body(0, 0);
  } else {
    pool.ParallelFor(rows, body);
  }
}

}  // namespace fairlead
