// SPDX-License-Identifier: Apache-2.0
// Drawing tokens on CPU threads, one row a task. No sort of the vocabulary: a filter finds the
// logit that separates what it keeps (by bisection over the bits of the float, which is exact and
// does not mind ties), then the survivors are copied together in id order.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/aligned_array.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

struct TokenLogit {
  float logit;
  int32_t id;
};

// One worker's memory for one row; grows to the largest vocabulary. One call at a time.
struct SamplingRow {
  static constexpr int kSelectSlack = 16;  // SimdSelect writes whole vectors

  GrowOnlyArray<float> edited;
  GrowOnlyArray<float> chunk_max;
  GrowOnlyArray<float> best_chunks;
  GrowOnlyArray<float> logit;
  GrowOnlyArray<int32_t> id;
  GrowOnlyArray<float> weight;
  GrowOnlyArray<TokenLogit> sorted;
};

struct SamplingScratch {
  // For all workers, also those that idle through the first calls.
  void Reserve(int threads, int vocab, bool sort);

  std::vector<SamplingRow> worker;
};

// A value v such that at least k of the n logits are >= v, and not many more when their order is
// random: the k-th largest of the chunks' maxima. -infinity when there are fewer chunks than k.
float LowerBoundOfBest(const float* chunk_max, int chunks, int k, GrowOnlyArray<float>& buffer);

void CpuSample(ThreadPool& pool, const SampleArgs& args, SamplingScratch& scratch);

}  // namespace fairlead
