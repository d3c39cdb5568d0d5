// SPDX-License-Identifier: Apache-2.0
// Attention of sequences with many query rows, a prompt's chunks: tiles of queries share the keys
// and values through shared memory, and a thread has a tile of registers, of queries times keys and
// then of queries times dimensions. What a tensor core would multiply stands in ScoreTile and
// AddTile.
#include "kernels/gpu/attention.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// Four warps: one for each scheduler of a multiprocessor or SIMD of a compute unit.
constexpr int kThreads = 4 * kWarp;
constexpr int kStageFloats = 2048;  // of keys or values
constexpr int kStageDims = kStageFloats / kSplitKeys;
constexpr int kQueryGroups = 8;
constexpr int kSideGroups = kThreads / kQueryGroups;  // of keys or dimensions
constexpr int kThreadKeys = kSplitKeys / kSideGroups;
constexpr int kQuads = kThreadKeys / 4;

template <int kCount>
struct alignas(kCount * sizeof(float)) Pack {
  float value[kCount];
};
template <int kCount>
GPU_DEVICE Pack<kCount> PackAt(const float* at) {
  return *reinterpret_cast<const Pack<kCount>*>(at);
}

// kDims: of a head, rounded up. 48 KiB of shared memory and a thread's registers bound the tile.
template <int kDims>
struct Sizes {
  static constexpr int kQueries = kDims > 128 ? 16 : 32;
  static constexpr int kThreadQueries = kQueries / kQueryGroups;
  static constexpr int kThreadDims = kDims / kSideGroups;
  static constexpr int kPackDims = kThreadDims < 4 ? kThreadDims : 4;
  static constexpr int kPacks = kThreadDims / kPackDims;
  static constexpr int kStageKeys = kStageFloats / kDims;
};

struct Shared {
  float* q;  // [head_dim, kQueries], scaled; zeros where the tile has no query
  float* stage;
  SplitState state;

  GPU_BOTH static size_t Bytes(int queries, int head_dim) {
    return sizeof(float) *
           (static_cast<size_t>(queries) * head_dim + kStageFloats + SplitState::Floats(queries));
  }
  GPU_METHOD Shared(float* base, int queries, int head_dim)
      : q(base), stage(q + queries * head_dim), state(stage + kStageFloats, queries) {}
};

template <int kQueries>
GPU_DEVICE void LoadQueries(const AttentionCall& call, const Tile& tile, const Shared& shared) {
  const int head_dim = call.layout.head_dim;
  const int row_heads = call.heads + 2 * call.layout.kv_heads;
  for (int i = ThreadX(); i < head_dim * kQueries; i += kThreads) {
    const int query = i % kQueries, dim = i / kQueries;
    const int64_t head =
        (tile.token + query / tile.heads) * row_heads + tile.head + query % tile.heads;
    shared.q[i] = query < tile.queries ? call.qkv[head * head_dim + dim] * call.scale : 0.0f;
  }
}

// Vectors of keys on their way to shared memory, f32 there: [kStageDims, kSplitKeys].
template <typename Kv>
struct KeyStage {
  static constexpr int kRowVectors = kStageDims / Kv::kElements;
  static constexpr int kVectors = (kRowVectors * kSplitKeys + kThreads - 1) / kThreads;
  KvVector raw[kVectors];
  float scale[Kv::kScaled ? kVectors : 1];

  // From dimension `first_dim` on; zeros for keys that the tile does not see.
  GPU_METHOD void Load(const AttentionCall& call, const SplitState& state, Range tile,
                       int first_dim) {
    for (int i = 0; i < kVectors; ++i) {
      raw[i] = KvVector{};
      if constexpr (Kv::kScaled) scale[i] = 0.0f;
      const int index = ThreadX() + i * kThreads;
      const int key = index % kSplitKeys;
      const int vector = first_dim / Kv::kElements + index / kSplitKeys;
      if (index >= kRowVectors * kSplitKeys || key < tile.begin || key >= tile.end ||
          vector >= call.layout.vectors) {
        continue;
      }
      const unsigned char* head = call.kv + state.place[key].head;
      const int offset = static_cast<int>(state.place[key].offset);
      raw[i] = *reinterpret_cast<const KvVector*>(head + call.layout.Key(offset, vector));
      if constexpr (Kv::kScaled) {
        scale[i] = F16Value(*reinterpret_cast<const uint16_t*>(
            head + call.layout.KeyScale(offset, vector * Kv::kElements / kKvScaleDims)));
      }
    }
  }
  GPU_METHOD void Store(float* stage) const {
    for (int i = 0; i < kVectors; ++i) {
      const int index = ThreadX() + i * kThreads;
      if (index >= kRowVectors * kSplitKeys) continue;
      float value[Kv::kElements];
      Kv::Decode(raw[i], value);
      float* at = stage + index / kSplitKeys * Kv::kElements * kSplitKeys + index % kSplitKeys;
      for (int j = 0; j < Kv::kElements; ++j) {
        at[j * kSplitKeys] = Kv::kScaled ? value[j] * scale[i] : value[j];
      }
    }
  }
};

// This thread's first query, and its place among those of the same queries.
GPU_DEVICE int QueryGroup() { return ThreadX() / kSideGroups; }
GPU_DEVICE int SideGroup() { return ThreadX() % kSideGroups; }

// Adds the products of `dims` dimensions, of which `q` and the stage begin with the first.
template <int kQueries, int kThreadQueries>
GPU_DEVICE void ScoreTile(const float* q, const float* stage, int dims,
                          float (&sum)[kThreadQueries][kThreadKeys]) {
  q += QueryGroup() * kThreadQueries;
  stage += SideGroup() * 4;
  for (int dim = 0; dim < dims; ++dim, q += kQueries, stage += kSplitKeys) {
    const Pack<kThreadQueries> query = PackAt<kThreadQueries>(q);
    for (int j = 0; j < kQuads; ++j) {
      const Four key = *reinterpret_cast<const Four*>(stage + j * 4 * kSideGroups);
      for (int m = 0; m < kThreadQueries; ++m) {
        for (int i = 0; i < 4; ++i) {
          sum[m][4 * j + i] = fmaf(query.value[m], key.value[i], sum[m][4 * j + i]);
        }
      }
    }
  }
}

template <typename Kv, int kDims>
GPU_DEVICE void Score(const AttentionCall& call, Range keys, const Shared& shared) {
  using S = Sizes<kDims>;
  const int head_dim = call.layout.head_dim;
  float sum[S::kThreadQueries][kThreadKeys];
  for (int m = 0; m < S::kThreadQueries; ++m) {
    for (int i = 0; i < kThreadKeys; ++i) sum[m][i] = 0.0f;
  }
  KeyStage<Kv> stage;
  stage.Load(call, shared.state, keys, 0);
  for (int dim = 0; dim < head_dim; dim += kStageDims) {
    stage.Store(shared.stage);
    SyncThreads();
    if (dim + kStageDims < head_dim) stage.Load(call, shared.state, keys, dim + kStageDims);
    ScoreTile<S::kQueries>(shared.q + dim * S::kQueries, shared.stage,
                           Min(kStageDims, head_dim - dim), sum);
    SyncThreads();
  }
  for (int m = 0; m < S::kThreadQueries; ++m) {
    const int query = QueryGroup() * S::kThreadQueries + m;
    const Range seen = shared.state.seen[query];
    for (int j = 0; j < kQuads; ++j) {
      const int key = 4 * (SideGroup() + j * kSideGroups);
      Four four;
      for (int i = 0; i < 4; ++i) {
        const bool sees = key + i >= seen.begin && key + i < seen.end;
        four.value[i] = sees ? Capped(sum[m][4 * j + i], call.soft_cap) : -INFINITY;
      }
      *reinterpret_cast<Four*>(shared.state.score + query * kScoreStride + key) = four;
    }
  }
}

// A thread's sums of weighted values: kPacks runs of kPackDims neighbouring dimensions.
template <int kDims>
struct ThreadValues {
  using S = Sizes<kDims>;
  float sum[S::kThreadQueries][S::kThreadDims];
  GPU_METHOD void Clear() {
    for (int m = 0; m < S::kThreadQueries; ++m) {
      for (int i = 0; i < S::kThreadDims; ++i) sum[m][i] = 0.0f;
    }
  }
  // The dimension of sum[m][i].
  GPU_METHOD static int Dim(int i) {
    return (SideGroup() + i / S::kPackDims * kSideGroups) * S::kPackDims + i % S::kPackDims;
  }
};

// Adds the keys [first, first + kStageKeys) of the stage.
template <int kDims>
GPU_DEVICE void AddTile(const SplitState& state, Range tile, Range common, int first,
                        const float* stage, ThreadValues<kDims>& values) {
  using S = Sizes<kDims>;
  const int end = Min(first + S::kStageKeys, tile.end);
  const int query = QueryGroup() * S::kThreadQueries;
  int begin = first;
  if (tile.begin > begin) begin = tile.begin / 4 * 4;
  for (int base = begin; base < end; base += 4) {
    Four weight[S::kThreadQueries];
    for (int m = 0; m < S::kThreadQueries; ++m) {
      weight[m] = *reinterpret_cast<const Four*>(state.score + (query + m) * kScoreStride + base);
    }
    const bool all = base >= common.begin && base + 4 <= common.end;
    for (int i = 0; i < 4; ++i) {
      const float* row = stage + (base - first + i) * kDims;
      bool sees[S::kThreadQueries];
      for (int m = 0; m < S::kThreadQueries; ++m) {
        sees[m] = all ||
                  (base + i >= state.seen[query + m].begin && base + i < state.seen[query + m].end);
      }
      for (int p = 0; p < S::kPacks; ++p) {
        const auto value = PackAt<S::kPackDims>(row + ThreadValues<kDims>::Dim(p * S::kPackDims));
        for (int m = 0; m < S::kThreadQueries; ++m) {
          for (int d = 0; d < S::kPackDims; ++d) {
            float& sum = values.sum[m][p * S::kPackDims + d];
            const float more = fmaf(weight[m].value[i], value.value[d], sum);
            sum = sees[m] ? more : sum;
          }
        }
      }
    }
  }
}

template <typename Kv, int kDims>
GPU_DEVICE void AddValues(const AttentionCall& call, const Tile& tile, Range keys,
                          const Shared& shared, ThreadValues<kDims>& values) {
  using S = Sizes<kDims>;
  const SplitState& state = shared.state;
  const Range common = {state.seen[tile.queries - 1].begin, state.seen[0].end};
  constexpr int kRowVectors = kDims / Kv::kElements;
  ValueStage<Kv, kThreads, kStageFloats> stage;
  int first = keys.begin / S::kStageKeys * S::kStageKeys;
  stage.Load(call, state, keys, first, S::kStageKeys, 0, kRowVectors);
  for (; first < keys.end; first += S::kStageKeys) {
    stage.Store(S::kStageKeys, kRowVectors, shared.stage);
    SyncThreads();
    const int next = first + S::kStageKeys;
    if (next < keys.end) stage.Load(call, state, keys, next, S::kStageKeys, 0, kRowVectors);
    AddTile(state, keys, common, first, shared.stage, values);
    SyncThreads();
  }
}

// Of a split: merged with `total`, or into scratch memory.
template <int kDims>
GPU_DEVICE void MergeSplit(const AttentionCall& call, const Tile& tile, const SplitState& state,
                           bool spread, const ThreadValues<kDims>& split,
                           ThreadValues<kDims>& total) {
  using S = Sizes<kDims>;
  for (int m = 0; m < S::kThreadQueries; ++m) {
    const int query = QueryGroup() * S::kThreadQueries + m;
    if (state.seen[query].empty()) continue;
    if (!spread) {
      const float old_factor = state.old_factor[query], new_factor = state.new_factor[query];
      for (int i = 0; i < S::kThreadDims; ++i) {
        total.sum[m][i] = Merged(total.sum[m][i], old_factor, split.sum[m][i], new_factor);
      }
      continue;
    }
    const int64_t slot = tile.Slot(state.row[query], tile.splits.first);
    const int head = state.head[query];
    float* to = call.Values(slot, head);
    for (int i = 0; i < S::kThreadDims; ++i) {
      const int dim = ThreadValues<kDims>::Dim(i);
      if (dim < call.layout.head_dim) to[dim] = split.sum[m][i];
    }
    if (SideGroup() != 0) continue;
    call.Sums(slot, head)[0] = state.max[query];
    call.Sums(slot, head)[1] = state.sum[query];
  }
}

template <int kDims>
GPU_DEVICE void Store(const AttentionCall& call, const Tile& tile, const SplitState& state,
                      const ThreadValues<kDims>& total) {
  using S = Sizes<kDims>;
  for (int m = 0; m < S::kThreadQueries; ++m) {
    const int query = QueryGroup() * S::kThreadQueries + m;
    if (query >= tile.queries) continue;
    const int head = state.head[query];
    const Finish finish(call, head, state.max[query], state.sum[query]);
    float* out =
        call.out + ((tile.token + state.row[query]) * call.heads + head) * call.layout.head_dim;
    for (int i = 0; i < S::kThreadDims; ++i) {
      const int dim = ThreadValues<kDims>::Dim(i);
      if (dim < call.layout.head_dim) out[dim] = finish.Of(total.sum[m][i]);
    }
  }
}

template <typename Kv, int kDims>
GPU_KERNEL void AttendTiles(AttentionCall call) {
  constexpr int kQueries = Sizes<kDims>::kQueries;
  GPU_DYNAMIC_SHARED(float, base);
  const Shared shared(base, kQueries, call.layout.head_dim);
  const SplitState& state = shared.state;
  const Plan plan = MakePlan<kThreads>(call);
  for (int64_t task = BlockX(); task < plan.tasks * call.parts; task += call.blocks) {
    const Tile tile = TileOf<kThreads>(call, plan, task);
    LoadQueries<kQueries>(call, tile, shared);
    StartTile(tile, kQueries, state);
    ThreadValues<kDims> total;
    total.Clear();
    for (int split = tile.splits.first; split < tile.splits.end; ++split) {
      SyncThreads();  // the split before is read
      PrepareSplit(call, tile, split * kSplitKeys, kQueries, state);
      SyncThreads();
      const Range keys = {state.seen[0].begin, state.seen[tile.queries - 1].end};
      Score<Kv, kDims>(call, keys, shared);
      SyncThreads();
      Softmax<kThreads>(tile.queries, state);
      SyncThreads();
      ThreadValues<kDims> values;
      values.Clear();
      AddValues<Kv>(call, tile, keys, shared, values);
      MergeSplit(call, tile, state, plan.spread, values, total);
    }
    if (!plan.spread) Store(call, tile, state, total);
  }
}

template <typename Kv, int kDims>
void Launch(const StreamHandle& stream, AttentionLaunch& launch) {
  constexpr int kQueries = Sizes<kDims>::kQueries;
  SetTiles(&launch, kQueries);
  const Grid grid = {static_cast<unsigned>(launch.call.blocks)};
  const size_t shared = Shared::Bytes(kQueries, launch.call.layout.head_dim);
  GPU_LAUNCH(stream, grid, kThreads, shared, (AttendTiles<Kv, kDims>), launch.call);
}

}  // namespace

AttentionCall LaunchManyRows(const StreamHandle& stream, AttentionLaunch launch) {
  ForKvDtype(launch.kv_dtype, [&](auto kv) {
    using Kv = decltype(kv);
    if (launch.call.layout.head_dim <= 64) return Launch<Kv, 64>(stream, launch);
    if (launch.call.layout.head_dim <= 128) return Launch<Kv, 128>(stream, launch);
    Launch<Kv, 256>(stream, launch);
  });
  return launch.call;
}

}  // namespace fairlead::FAIRLEAD_GPU
