// SPDX-License-Identifier: Apache-2.0
// Attention of sequences with few query rows: a decode, a draft that is verified. A thread takes a
// key's scores, with its vectors of the cache in flight, and then a dimension of the values, which
// go through shared memory; all heads of a group share what is read.
#include "kernels/gpu/attention.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = kSplitKeys;
constexpr int kStageFloats = 4096;  // of values
constexpr int kAhead = 4;           // vectors of a key in flight, and as many of values
constexpr int kColumnDims = kThreads;
constexpr int kColumns = KvShape::kMaxHeadDim / kColumnDims;

template <typename Kv>
using Stage = ValueStage<Kv, kThreads, kStageFloats>;

struct Shared {
  float* q;  // [kQueries, stride], scaled; zeros after the last dimension, up to a vector's end
  int stride;
  float* stage;
  SplitState state;

  GPU_BOTH static int Stride(int head_dim) { return (head_dim + 15) / 16 * 16; }
  GPU_BOTH static size_t Bytes(int queries, int head_dim) {
    return sizeof(float) * (static_cast<size_t>(queries) * Stride(head_dim) + kStageFloats +
                            SplitState::Floats(queries));
  }
  GPU_METHOD Shared(float* base, int queries, int head_dim)
      : q(base),
        stride(Stride(head_dim)),
        stage(q + queries * stride),
        state(stage + kStageFloats, queries) {}
};

GPU_DEVICE void LoadQueries(const AttentionCall& call, const Tile& tile, const Shared& shared) {
  const int head_dim = call.layout.head_dim;
  const int row_heads = call.heads + 2 * call.layout.kv_heads;
  for (int i = ThreadX(); i < tile.queries * shared.stride; i += kThreads) {
    const int query = i / shared.stride, dim = i % shared.stride;
    const int64_t head =
        (tile.token + query / tile.heads) * row_heads + tile.head + query % tile.heads;
    shared.q[i] = dim < head_dim ? call.qkv[head * head_dim + dim] * call.scale : 0.0f;
  }
}

// Adds the products of a vector of a key, `dims` elements of it, with those of every query.
template <typename Kv, int kQueries>
GPU_DEVICE void AddProducts(const KvVector& raw, float scale, int dims, const float* q, int stride,
                            int queries, float (&sum)[kQueries]) {
  float key[Kv::kElements];
  Kv::Decode(raw, key);
  if (Kv::kScaled) {
    for (int i = 0; i < Kv::kElements; ++i) key[i] *= scale;
  }
  if (dims < Kv::kElements) {  // the others may be NaN; the query has zeros there
    for (int i = 0; i < Kv::kElements; ++i) key[i] = i < dims ? key[i] : 0.0f;
  }
  for (int m = 0; m < kQueries; ++m) {
    if (m >= queries) continue;
    for (int i = 0; i < Kv::kElements; i += 4) {
      const Four four = *reinterpret_cast<const Four*>(q + m * stride + i);
      for (int j = 0; j < 4; ++j) sum[m] = fmaf(four.value[j], key[i + j], sum[m]);
    }
  }
}

// Vectors of a key from `first` on. Not loops over an index: constants keep them in registers.
template <typename Kv>
struct KeyVectors {
  KvVector raw[kAhead];
  float scale[kAhead];

  template <int kIndex = 0>
  GPU_METHOD void Load(const KvLayout& layout, const unsigned char* head, int offset, int first) {
    if (first + kIndex >= layout.vectors) return;
    raw[kIndex] = *reinterpret_cast<const KvVector*>(head + layout.Key(offset, first + kIndex));
    scale[kIndex] = 1.0f;
    if constexpr (Kv::kScaled) {
      scale[kIndex] = F16Value(*reinterpret_cast<const uint16_t*>(
          head + layout.KeyScale(offset, (first + kIndex) * Kv::kElements / kKvScaleDims)));
    }
    if constexpr (kIndex + 1 < kAhead) Load<kIndex + 1>(layout, head, offset, first);
  }
  template <int kIndex = 0, int kQueries>
  GPU_METHOD void AddTo(const KvLayout& layout, int first, const Shared& shared, int queries,
                        float (&sum)[kQueries]) const {
    if (first + kIndex >= layout.vectors) return;
    const int dim = (first + kIndex) * Kv::kElements;
    AddProducts<Kv>(raw[kIndex], scale[kIndex], layout.head_dim - dim, shared.q + dim,
                    shared.stride, queries, sum);
    if constexpr (kIndex + 1 < kAhead) AddTo<kIndex + 1>(layout, first, shared, queries, sum);
  }
};

// The scores of this thread's key, -infinity where a query does not see it.
template <typename Kv, int kQueries>
GPU_DEVICE void Score(const AttentionCall& call, const Tile& tile, const Shared& shared) {
  const KvLayout& layout = call.layout;
  const int key = ThreadX();
  const Range first = shared.state.seen[0], last = shared.state.seen[tile.queries - 1];
  float sum[kQueries];
  for (int m = 0; m < kQueries; ++m) sum[m] = 0.0f;
  if (key >= first.begin && key < last.end) {
    const unsigned char* head = call.kv + shared.state.place[key].head;
    const int offset = static_cast<int>(shared.state.place[key].offset);
    for (int first_vector = 0; first_vector < layout.vectors; first_vector += kAhead) {
      KeyVectors<Kv> vectors;
      vectors.Load(layout, head, offset, first_vector);
      vectors.AddTo(layout, first_vector, shared, tile.queries, sum);
    }
  }
  for (int m = 0; m < kQueries; ++m) {
    if (m >= tile.queries) continue;
    const Range seen = shared.state.seen[m];
    const bool sees = key >= seen.begin && key < seen.end;
    shared.state.score[m * kScoreStride + key] = sees ? Capped(sum[m], call.soft_cap) : -INFINITY;
  }
}

// The dimensions of a column and which of them, and for which queries, is this thread's.
struct Outputs {
  int width;  // threads side by side, a power of two
  int dim;    // in the head
  int first_query, queries;

  GPU_METHOD Outputs(const Tile& tile, int head_dim, int column) : width(16) {
    const int dims = Min(kColumnDims, head_dim - column * kColumnDims);
    while (width < dims) width *= 2;
    const int groups = kThreads / width;
    const int most = (tile.queries + groups - 1) / groups;
    dim = column * kColumnDims + ThreadX() % width;
    first_query = ThreadX() / width * most;
    const int left = tile.queries - first_query;
    queries = dim >= head_dim || left < 0 ? 0 : Min(most, left);
  }
  GPU_METHOD int stage_keys() const { return Min(kStageFloats / width, kSplitKeys); }
};

// Adds the keys [first, first + keys) of the stage.
template <int kQueries>
GPU_DEVICE void AddStage(const Tile& tile, const Shared& shared, const Outputs& outputs, int first,
                         int keys, float (&sum)[kQueries]) {
  const SplitState& state = shared.state;
  // Of the tile, and of all its queries.
  const Range front = state.seen[0], back = state.seen[tile.queries - 1];
  const float* values = shared.stage + ThreadX() % outputs.width;
  const int end = Min(first + keys, back.end);
  int key = first;
  if (front.begin > key) key = front.begin / 4 * 4;
  for (; key < end; key += 4) {
    float value[4];
    for (int i = 0; i < 4; ++i) value[i] = values[(key - first + i) * outputs.width];
    const bool common = key >= back.begin && key + 4 <= front.end;
    for (int m = 0; m < kQueries; ++m) {
      if (m >= outputs.queries) continue;
      const Range seen = state.seen[outputs.first_query + m];
      if (seen.empty()) continue;
      const Four weight = *reinterpret_cast<const Four*>(
          state.score + (outputs.first_query + m) * kScoreStride + key);
      for (int i = 0; i < 4; ++i) {
        if (common || (key + i >= seen.begin && key + i < seen.end)) {
          sum[m] = fmaf(weight.value[i], value[i], sum[m]);
        }
      }
    }
  }
}

// One column of the split's weighted values: merged with `total`, or into scratch memory. `stage`
// has loaded its first keys.
template <typename Kv, int kQueries>
GPU_DEVICE void AddValues(const AttentionCall& call, const Tile& tile, const Shared& shared,
                          bool spread, int column, Stage<Kv>& stage, float (&total)[kQueries]) {
  const Outputs outputs(tile, call.layout.head_dim, column);
  const SplitState& state = shared.state;
  const Range keys = {state.seen[0].begin, state.seen[tile.queries - 1].end};
  const int step = outputs.stage_keys(), row_vectors = outputs.width / Kv::kElements;
  const int first_vector = column * kColumnDims / Kv::kElements;
  float sum[kQueries];
  for (int m = 0; m < kQueries; ++m) sum[m] = 0.0f;
  for (int first = keys.begin / step * step; first < keys.end; first += step) {
    stage.Store(step, row_vectors, shared.stage);
    SyncThreads();
    if (first + step < keys.end) {
      stage.Load(call, state, keys, first + step, step, first_vector, row_vectors);
    }
    AddStage(tile, shared, outputs, first, step, sum);
    SyncThreads();
  }
  for (int m = 0; m < kQueries; ++m) {
    const int query = outputs.first_query + m;
    if (m >= outputs.queries || state.seen[query].empty()) continue;
    if (spread) {
      const int64_t slot = tile.Slot(state.row[query], tile.splits.first);
      call.Values(slot, state.head[query])[outputs.dim] = sum[m];
    } else {
      total[m] = Merged(total[m], state.old_factor[query], sum[m], state.new_factor[query]);
    }
  }
}

template <typename Kv>
GPU_DEVICE void LoadFirst(const AttentionCall& call, const Tile& tile, const Shared& shared,
                          int column, Stage<Kv>& stage) {
  const Outputs outputs(tile, call.layout.head_dim, column);
  const Range keys = {shared.state.seen[0].begin, shared.state.seen[tile.queries - 1].end};
  const int step = outputs.stage_keys();
  stage.Load(call, shared.state, keys, keys.begin / step * step, step,
             column * kColumnDims / Kv::kElements, outputs.width / Kv::kElements);
}

GPU_DEVICE void StoreSums(const AttentionCall& call, const Tile& tile, const SplitState& state) {
  for (int i = ThreadX(); i < tile.queries; i += kThreads) {
    if (state.seen[i].empty()) continue;
    float* sums = call.Sums(tile.Slot(state.row[i], tile.splits.first), state.head[i]);
    sums[0] = state.max[i];
    sums[1] = state.sum[i];
  }
}

template <int kQueries>
GPU_DEVICE void StoreColumn(const AttentionCall& call, const Tile& tile, const SplitState& state,
                            int column, const float (&total)[kQueries]) {
  const Outputs outputs(tile, call.layout.head_dim, column);
  for (int m = 0; m < kQueries; ++m) {
    if (m >= outputs.queries) continue;
    const int query = outputs.first_query + m, head = state.head[query];
    const Finish finish(call, head, state.max[query], state.sum[query]);
    const int64_t row = tile.token + state.row[query];
    call.out[(row * call.heads + head) * call.layout.head_dim + outputs.dim] = finish.Of(total[m]);
  }
}

template <typename Kv, int kQueries>
GPU_KERNEL void AttendFewRows(AttentionCall call) {
  GPU_DYNAMIC_SHARED(float, base);
  const int head_dim = call.layout.head_dim;
  const Shared shared(base, kQueries, head_dim);
  const Plan plan = MakePlan<kThreads>(call);
  for (int64_t task = BlockX(); task < plan.tasks * call.parts; task += call.blocks) {
    const Tile tile = TileOf<kThreads>(call, plan, task);
    LoadQueries(call, tile, shared);
    StartTile(tile, kQueries, shared.state);
    float total[kColumns][kQueries];
    for (int c = 0; c < kColumns; ++c) {
      for (int m = 0; m < kQueries; ++m) total[c][m] = 0.0f;
    }
    for (int split = tile.splits.first; split < tile.splits.end; ++split) {
      SyncThreads();  // the split before is read
      PrepareSplit(call, tile, split * kSplitKeys, tile.queries, shared.state);
      SyncThreads();
      Stage<Kv> stage;
      LoadFirst(call, tile, shared, 0, stage);
      Score<Kv, kQueries>(call, tile, shared);
      SyncThreads();
      Softmax<kThreads>(tile.queries, shared.state);
      SyncThreads();
      AddValues<Kv>(call, tile, shared, plan.spread, 0, stage, total[0]);
      if (head_dim > kColumnDims) {
        LoadFirst(call, tile, shared, 1, stage);
        AddValues<Kv>(call, tile, shared, plan.spread, 1, stage, total[1]);
      }
      if (plan.spread) StoreSums(call, tile, shared.state);
    }
    if (!plan.spread) {
      StoreColumn(call, tile, shared.state, 0, total[0]);
      if (head_dim > kColumnDims) StoreColumn(call, tile, shared.state, 1, total[1]);
    }
  }
}

template <typename Kv, int kQueries>
void Launch(const StreamHandle& stream, AttentionLaunch& launch) {
  SetTiles(&launch, kQueries);
  const Grid grid = {static_cast<unsigned>(launch.call.blocks)};
  const size_t shared = Shared::Bytes(kQueries, launch.call.layout.head_dim);
  GPU_LAUNCH(stream, grid, kThreads, shared, (AttendFewRows<Kv, kQueries>), launch.call);
}

}  // namespace

AttentionCall LaunchFewRows(const StreamHandle& stream, AttentionLaunch launch, bool one_row) {
  ForKvDtype(launch.kv_dtype, [&](auto kv) {
    using Kv = decltype(kv);
    const int group = launch.call.heads / launch.call.layout.kv_heads;
    if (one_row && group == 1) return Launch<Kv, 1>(stream, launch);
    if (one_row && group <= 4) return Launch<Kv, 4>(stream, launch);
    if (one_row && group <= 8) return Launch<Kv, 8>(stream, launch);
    Launch<Kv, 16>(stream, launch);
  });
  return launch.call;
}

}  // namespace fairlead::FAIRLEAD_GPU
