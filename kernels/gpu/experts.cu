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
  const float* bias;    // or null
  int* expert;          // [tokens, slots]
  float* weight;
  int tokens, experts, slots;
  int groups, in_group, chosen_groups, group_scores;
  bool normalize, sigmoid;
  bool adds;  // to scores, before they are compared
  float scale;
};

using GroupMask = uint32_t;  // bit g: group g
static_assert(RouteArgs::kMaxGroups <= 32 && RouteArgs::kMaxGroups <= kWarp);
constexpr GroupMask kAllGroups = ~GroupMask{0};

// The best of this lane's experts in `groups` that rank below `bound`; kNoRank for what is NaN or
// infinity. 0: there is none.
GPU_DEVICE uint64_t LaneBest(const RouteCall& call, const float* compared, GroupMask groups,
                             uint64_t bound) {
  uint64_t best = 0;
  for (int g = 0; g < call.groups; ++g) {
    if ((groups >> g & 1) == 0) continue;
    const int end = (g + 1) * call.in_group;
    for (int e = g * call.in_group + LaneId(); e < end; e += kWarp) {
      const float x = compared[e];
      const uint64_t rank = x < INFINITY ? RankOf(x, e) : kNoRank;
      if ((rank < bound || bound == kNoRank) && rank > best) best = rank;
    }
  }
  return best;
}
GPU_DEVICE bool IsUsable(uint64_t best) {
  return best != kNoRank && (best >> 32) > kKeyOfMinusInfinity;
}

// A lane a group.
GPU_DEVICE GroupMask BestGroups(const RouteCall& call, const float* compared) {
  if (call.groups == 1) return kAllGroups;
  uint64_t own = 0;
  if (LaneId() < call.groups) {
    const float* of_group = compared + LaneId() * call.in_group;
    float score = 0.0f;
    uint64_t bound = kNoRank;
    for (int i = 0; i < call.group_scores; ++i) {
      uint64_t best = 0;
      for (int e = 0; e < call.in_group; ++e) {
        const uint64_t rank = RankOf(of_group[e], e);
        if (rank < bound && rank > best) best = rank;
      }
      score = i == 0 ? LogitOf(best) : score + LogitOf(best);
      bound = best;
    }
    own = RankOf(score, LaneId());
  }
  GroupMask groups = 0;
  for (int i = 0; i < call.chosen_groups; ++i) {
    const uint64_t best = WarpMax(own);
    groups |= GroupMask{1} << IdOf(best);
    if (own == best) own = 0;
  }
  return groups;
}

// Of softmax, not divided by the sum yet.
GPU_DEVICE float ScoreOf(const RouteCall& call, float logit, float max) {
  if (!call.sigmoid) return ExpNonPositive(logit - max);
  const float e = ExpNonPositive(-fabsf(logit));
  return (logit >= 0.0f ? 1.0f : e) / (1.0f + e);
}

GPU_KERNEL void RouteTokens(RouteCall call) {
  static_assert(RouteArgs::kMaxSlots <= kWarp);
  GPU_DYNAMIC_SHARED(float, rows);  // [warps, experts]
  const int token = static_cast<int>(BlockX()) * (kThreads / kWarp) + WarpId();
  if (token >= call.tokens) return;
  const float* logit = call.logits + int64_t{1} * token * call.experts;
  float* compared = rows + WarpId() * call.experts;
  for (int e = LaneId(); e < call.experts; e += kWarp) compared[e] = logit[e];
  SyncWarp();
  uint64_t own = LaneBest(call, compared, kAllGroups, kNoRank);
  uint64_t best = WarpMax(own);
  bool usable = IsUsable(best);  // the same for all lanes
  const float max = usable ? LogitOf(best) : 0.0f;
  float all = 0.0f;
  if (usable && !call.sigmoid) {
    for (int e = LaneId(); e < call.experts; e += kWarp) all += ExpNonPositive(logit[e] - max);
  }
  all = call.sigmoid ? 1.0f : WarpSum(all);
  if (usable && call.adds) {
    SyncWarp();
    for (int e = LaneId(); e < call.experts; e += kWarp) {
      const float bias = call.bias == nullptr ? 0.0f : call.bias[e];
      compared[e] = ScoreOf(call, logit[e], max) / all + bias;
    }
    SyncWarp();
    own = LaneBest(call, compared, kAllGroups, kNoRank);
    best = WarpMax(own);
    usable = IsUsable(best);
  }
  int my_expert = LaneId();  // lane j has slot j
  float my_weight = NAN;
  if (usable) {
    const GroupMask groups = BestGroups(call, compared);
    if (groups != kAllGroups) {
      own = LaneBest(call, compared, groups, kNoRank);
      best = WarpMax(own);
    }
    float chosen = 0.0f;
    for (int slot = 0; slot < call.slots; ++slot) {
      const float score = ScoreOf(call, logit[IdOf(best)], max);
      chosen += score;
      if (LaneId() == slot) {
        my_expert = IdOf(best);
        my_weight = score;
      }
      if (own == best) own = LaneBest(call, compared, groups, best);
      best = WarpMax(own);
    }
    if (call.sigmoid) chosen += 1e-20f;
    my_weight = my_weight / (call.normalize ? chosen : all) * call.scale;
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
  const int experts = static_cast<int>(args.logits.dim[1]);
  const RouteCall call = {.logits = args.logits.As<float>(),
                          .bias = args.bias.As<float>(),
                          .expert = args.expert.As<int>(),
                          .weight = args.weight.As<float>(),
                          .tokens = static_cast<int>(tokens),
                          .experts = experts,
                          .slots = static_cast<int>(slots),
                          .groups = args.groups,
                          .in_group = experts / args.groups,
                          .chosen_groups = args.chosen_groups,
                          .group_scores = args.group_scores,
                          .normalize = args.normalize,
                          .sigmoid = args.scores == RouteArgs::Scores::kSigmoid,
                          .adds = args.bias || args.group_scores > 1,
                          .scale = args.scale};
  const size_t shared = sizeof(float) * (kThreads / kWarp) * experts;
  GPU_LAUNCH(stream, Grid{Blocks(tokens * kWarp)}, kThreads, shared, RouteTokens, call);
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
