// SPDX-License-Identifier: Apache-2.0
// What sample.cu and logprobs.cu share: the order of tokens, and passes of a block over a row.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/gpu/bits.h"
#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {

constexpr int kRowThreads = 512;

// Ascending as the floats are; no NaN. The two zeros are equal.
GPU_DEVICE uint32_t KeyOf(float x) {
  const uint32_t bits = x == 0 ? 0 : FloatBits(x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
GPU_DEVICE float FromKey(uint32_t key) {
  return BitsFloat((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}
constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;

// A token as a number that is larger the better it ranks: by logit, then by the lower id.
GPU_DEVICE uint64_t RankOf(float logit, int id) {
  return static_cast<uint64_t>(KeyOf(logit)) << 32 | ~static_cast<uint32_t>(id);
}
GPU_DEVICE int IdOf(uint64_t rank) { return static_cast<int>(~static_cast<uint32_t>(rank)); }
GPU_DEVICE float LogitOf(uint64_t rank) { return FromKey(static_cast<uint32_t>(rank >> 32)); }

// This thread's share of a row, every kRowThreads-th logit: visit(id, logit). Several loads are
// under way at a time. Logits: const float*, or what else has elements.
template <typename Logits, typename Visit>
GPU_DEVICE void ForEachLogit(const Logits& logit, int vocab, Visit visit) {
  constexpr int kLoads = 8;
  for (int first = ThreadX(); first < vocab; first += kLoads * kRowThreads) {
    float x[kLoads];
    for (int i = 0; i < kLoads; ++i) {
      const int id = first + i * kRowThreads;
      x[i] = id < vocab ? logit[id] : 0.0f;
    }
    for (int i = 0; i < kLoads; ++i) {
      const int id = first + i * kRowThreads;
      if (id < vocab) visit(id, x[i]);
    }
  }
}

// The best of this thread's tokens that rank no higher than `bound`. 0: there is none; kNoRank, if
// the bound is that: a logit is NaN or infinity.
constexpr uint64_t kNoRank = ~uint64_t{0};
template <typename Logits>
GPU_DEVICE uint64_t OwnBest(const Logits& logit, int vocab, uint64_t bound) {
  uint64_t best = 0;
  ForEachLogit(logit, vocab, [&](int id, float x) {
    const uint64_t rank = x < INFINITY ? RankOf(x, id) : kNoRank;
    if (rank <= bound && rank > best) best = rank;
  });
  return best;
}

// The best token of all that the threads hold; kNoRank when a row cannot be used: one of them is
// kNoRank, or all logits are -infinity.
GPU_DEVICE uint64_t BestOfRow(uint64_t own) {
  const uint64_t best = BlockMax<kRowThreads>(own);
  return (best >> 32) > kKeyOfMinusInfinity ? best : kNoRank;
}

}  // namespace fairlead::FAIRLEAD_GPU
