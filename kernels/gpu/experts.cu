// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: which ones a token takes, the order in which matmuls take them, and the sum
// of what they give.
#include "kernels/gpu/experts.h"

#include <cstdint>

#include "kernels/check.h"
#include "kernels/gpu/exp.h"
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/row_search.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

// ---- Route: a warp a token

struct RouteCall {
  const float* logits;  // [tokens, experts]
  int* expert;          // [tokens, slots]
  float* weight;
  int tokens, experts, slots;
  bool normalize;
};

// The best of this lane's experts that rank below `bound`; kNoRank for a logit that is NaN or
// infinity. 0: there is none.
GPU_DEVICE uint64_t LaneBest(const float* logit, int experts, uint64_t bound) {
  uint64_t best = 0;
  for (int e = LaneId(); e < experts; e += kWarp) {
    const float x = logit[e];
    const uint64_t rank = x < INFINITY ? RankOf(x, e) : kNoRank;
    if ((rank < bound || bound == kNoRank) && rank > best) best = rank;
  }
  return best;
}

GPU_KERNEL void RouteTokens(RouteCall call) {
  static_assert(RouteArgs::kMaxSlots <= kWarp);
  const int token = static_cast<int>(BlockX()) * (kThreads / kWarp) + WarpId();
  if (token >= call.tokens) return;
  const float* logit = call.logits + int64_t{1} * token * call.experts;
  uint64_t own = LaneBest(logit, call.experts, kNoRank);
  uint64_t best = WarpMax(own);
  int my_expert = LaneId();  // lane j has slot j
  float my_weight = NAN;
  if (best != kNoRank && (best >> 32) > kKeyOfMinusInfinity) {  // the same for all lanes
    const float max = LogitOf(best);
    float all = 0.0f, chosen = 0.0f;
    for (int e = LaneId(); e < call.experts; e += kWarp) all += ExpNonPositive(logit[e] - max);
    all = WarpSum(all);
    for (int slot = 0; slot < call.slots; ++slot) {
      const float power = ExpNonPositive(LogitOf(best) - max);
      chosen += power;
      if (LaneId() == slot) {
        my_expert = IdOf(best);
        my_weight = power;
      }
      if (own == best) own = LaneBest(logit, call.experts, best);
      best = WarpMax(own);
    }
    my_weight /= call.normalize ? chosen : all;
  }
  if (LaneId() >= call.slots) return;
  call.expert[int64_t{1} * token * call.slots + LaneId()] = my_expert;
  call.weight[int64_t{1} * token * call.slots + LaneId()] = my_weight;
}

// ---- the order of pairs

struct OrderCall {
  const int* expert;  // [pairs]
  int pairs, tile;
  int* order;
  ExpertTile* tiles;
};

GPU_DEVICE int CountBits(LaneMask mask) {
  int count = 0;
  for (; mask != 0; mask &= mask - 1) ++count;
  return count;
}

// Block e finds expert e's pairs, in ascending order; each warp has a stretch of all. Its tiles
// begin at (pairs of experts before) / tile + e, which leaves room for theirs: a sum of c_i / tile,
// each rounded up, is at most the sum / tile, rounded down, and one more for each.
GPU_KERNEL void OrderPairs(OrderCall call) {
  constexpr int kWarps = kThreads / kWarp;
  GPU_SHARED(int, warp_pairs, kWarps);
  const int expert = static_cast<int>(BlockX());
  const int stretch = (call.pairs + kThreads - 1) / kThreads * kWarp;
  const int begin = Min(WarpId() * stretch, call.pairs), end = Min(begin + stretch, call.pairs);
  int before = 0, own = 0;
  for (int i = begin + LaneId(); i < end; i += kWarp) {
    before += call.expert[i] < expert;
    own += call.expert[i] == expert;
  }
  own = WarpSum(own);
  if (LaneId() == 0) warp_pairs[WarpId()] = own;
  before = BlockSum<kThreads>(before);
  int count = 0, place = before;
  for (int w = 0; w < kWarps; ++w) {
    if (w < WarpId()) place += warp_pairs[w];
    count += warp_pairs[w];
  }
  for (int first = begin; first < end; first += kWarp) {
    const int i = first + LaneId();
    const bool mine = i < end && call.expert[i] == expert;
    const LaneMask all = Ballot(mine);
    if (mine) call.order[place + CountBits(all & ((LaneMask{1} << LaneId()) - 1))] = i;
    place += CountBits(all);
  }
  const int first_tile = before / call.tile + expert;
  const int end_tile = (before + count) / call.tile + expert + 1;
  for (int i = first_tile + ThreadX(); i < end_tile; i += kThreads) {
    const int first = before + (i - first_tile) * call.tile;
    call.tiles[i] = {expert, Min(first, before + count), Min(first + call.tile, before + count)};
  }
}

// ---- CombineExperts: tokens by chunks of kThreads elements

struct CombineCall {
  const float* x;       // [tokens * slots, hidden]
  const float* weight;  // [tokens, slots]
  float* out;
  int slots, hidden;
  bool accumulate;
};

GPU_KERNEL void CombineRows(CombineCall call) {
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.hidden) return;
  const int64_t token = BlockX();
  float sum = 0.0f;
  for (int slot = 0; slot < call.slots; ++slot) {
    const int64_t pair = token * call.slots + slot;
    sum += call.weight[pair] * call.x[pair * call.hidden + i];
  }
  float* out = call.out + token * call.hidden + i;
  *out = call.accumulate ? *out + sum : sum;
}

}  // namespace

void LaunchRoute(const StreamHandle& stream, const RouteArgs& args) {
  const int64_t tokens = args.logits.dim[0], slots = args.expert.dim[1];
  if (tokens == 0) return;
  const RouteCall call = {.logits = args.logits.As<float>(),
                          .expert = args.expert.As<int>(),
                          .weight = args.weight.As<float>(),
                          .tokens = static_cast<int>(tokens),
                          .experts = static_cast<int>(args.logits.dim[1]),
                          .slots = static_cast<int>(slots),
                          .normalize = args.normalize};
  GPU_LAUNCH(stream, Grid{Blocks(tokens * kWarp)}, kThreads, 0, RouteTokens, call);
}

ExpertTiles LaunchExpertTiles(const StreamHandle& stream, const int* expert, int64_t pairs,
                              int64_t experts, int tile, void* memory) {
  auto* order = static_cast<int*>(memory);
  auto* tiles = reinterpret_cast<ExpertTile*>(order + pairs);
  const int64_t count = ExpertTiles::MaxCount(pairs, experts, tile);
  FAIRLEAD_CHECK(pairs <= INT32_MAX - kThreads && count <= INT32_MAX);
  const OrderCall call = {.expert = expert,
                          .pairs = static_cast<int>(pairs),
                          .tile = tile,
                          .order = order,
                          .tiles = tiles};
  GPU_LAUNCH(stream, Grid{static_cast<unsigned>(experts)}, kThreads, 0, OrderPairs, call);
  return {.order = order, .tiles = tiles, .count = static_cast<int>(count)};
}

void LaunchCombineExperts(const StreamHandle& stream, const CombineExpertsArgs& args) {
  const int64_t tokens = args.out.dim[0], hidden = args.out.dim[1];
  if (tokens == 0 || hidden == 0) return;
  const CombineCall call = {.x = args.x.As<float>(),
                            .weight = args.weight.As<float>(),
                            .out = args.out.As<float>(),
                            .slots = static_cast<int>(args.weight.dim[1]),
                            .hidden = static_cast<int>(hidden),
                            .accumulate = args.accumulate};
  const Grid grid = {static_cast<unsigned>(tokens), Blocks(hidden)};
  GPU_LAUNCH(stream, grid, kThreads, 0, CombineRows, call);
}

}  // namespace fairlead::FAIRLEAD_GPU
