// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share. The arithmetic of a query (a row's head) is the same in all:
//   keys are cut at multiples of kSplitKeys;
//   a score is one chain of fused multiply-adds over the dimensions, of q * scale;
//   a split's sum of exp(score - max) has 16 lanes, of keys l, l + 16, ..., which a tree adds up;
//   its weighted values are one chain over its keys, in order;
//   splits are merged in order (online softmax: Milakov and Gimelshein, arXiv 1805.02867).
// So a row's bits depend on its position (and the window) alone, or without causal on the context:
// not on the kernel, the tile, the batch, whether splits were spread over blocks, or the warp's
// size. What a query does not see is not touched.
//
// A tile is some consecutive rows of a sequence times some of the heads that share a kv head. Its
// splits are summed by one block in order or, where tiles are few, each by a block of its own, into
// scratch memory, which a last kernel merges (Dao et al., "Flash-Decoding", 2023). All blocks come
// to the same decision from the lengths in device memory: the host does not know them.
#pragma once

#include "kernels/gpu/exp.h"
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/kv_formats.h"
#include "kernels/gpu/kv_layout.h"

namespace fairlead::FAIRLEAD_GPU {

constexpr int kSplitKeys = 128;
constexpr int kSumLanes = 16;
constexpr int kLaneKeys = kSplitKeys / kSumLanes;
// Of the scores of a query: the next query's begin in other banks.
constexpr int kScoreStride = kSplitKeys + kSumLanes;

struct alignas(16) Four {
  float value[4];
};

struct AttentionCall {
  const float* qkv;
  float* out;
  const unsigned char* kv;
  const int* query_start;
  const int* context_tokens;
  const int* block_table;
  const float* sinks;  // or null
  float* partial;      // [slots, heads, head_dim], then [slots, heads, 2]: maxima and sums
  int64_t slots;       // that there is memory for: a row's split each
  KvLayout layout;
  int seqs, max_blocks, heads, window;
  int row_step;  // from a row's position to the next one's: 1, or without causal 0
  float scale, soft_cap;
  // Of the kernel.
  int min_rows, max_rows;  // it takes the sequences of so many rows
  int tile_rows;
  int tile_heads;    // of a group, at most
  int parts;         // tiles of the same rows: kv_heads * (group / tile_heads, rounded up)
  int enough_tiles;  // from here on (parts counted), splits are not spread
  int blocks;        // of the grid

  GPU_METHOD int Rows(int seq) const {
    const int rows = query_start[seq + 1] - query_start[seq];
    return rows >= min_rows && rows <= max_rows ? rows : 0;
  }
  // The last that a row sees.
  GPU_METHOD int Position(int context, int rows, int row) const {
    return context - 1 - (rows - 1 - row) * row_step;
  }
  GPU_METHOD int FirstKey(int position) const {  // that a row at `position` sees
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
  GPU_METHOD float* Sums(int64_t slot, int head) const {
    return partial + slots * heads * layout.head_dim + (slot * heads + head) * 2;
  }
  GPU_METHOD float* Values(int64_t slot, int head) const {
    return partial + (slot * heads + head) * layout.head_dim;
  }
};

// The splits that some row of a sequence or tile sees.
struct Splits {
  int first, end;
  GPU_METHOD int count() const { return end - first; }
};
GPU_DEVICE Splits SplitsOf(const AttentionCall& call, int first_position, int last_position) {
  return {call.FirstKey(first_position) / kSplitKeys, last_position / kSplitKeys + 1};
}
GPU_DEVICE Splits SplitsOfSequence(const AttentionCall& call, int seq, int rows) {
  const int context = call.context_tokens[seq];
  return SplitsOf(call, context - rows, context - 1);
}

// What a kernel has to do, the same in every block.
struct Plan {
  bool spread;
  int64_t tasks;  // tiles, or their splits
  int64_t rows;
};

// Of one sequence.
struct Amount {
  int rows = 0, tiles = 0, splits = 0;
  GPU_METHOD Amount(const AttentionCall& call, int seq) {
    if (seq >= call.seqs) return;
    rows = call.Rows(seq);
    if (rows == 0) return;
    tiles = (rows + call.tile_rows - 1) / call.tile_rows;
    splits = SplitsOfSequence(call, seq, rows).count();
  }
  GPU_METHOD int64_t slots() const { return int64_t{1} * rows * splits; }
};

template <int kThreads>
GPU_DEVICE Plan MakePlan(const AttentionCall& call) {
  int64_t rows = 0, tiles = 0, spread_tasks = 0, slots = 0;
  for (int seq = ThreadX(); seq < call.seqs; seq += kThreads) {
    const Amount amount(call, seq);
    rows += amount.rows;
    tiles += amount.tiles;
    spread_tasks += int64_t{1} * amount.tiles * amount.splits;
    slots += amount.slots();
  }
  rows = BlockSum<kThreads>(rows);
  tiles = BlockSum<kThreads>(tiles);
  spread_tasks = BlockSum<kThreads>(spread_tasks);
  slots = BlockSum<kThreads>(slots);
  const bool spread = slots <= call.slots && tiles * call.parts < call.enough_tiles;
  return {spread, spread ? spread_tasks : tiles, rows};
}

// Where element `index` of all sequences' units stands.
struct Place {
  int64_t seq;
  int64_t index;  // within the sequence
  int64_t slot;   // the sequence's first
};

template <typename T>
GPU_DEVICE T WarpPrefix(T value) {  // the sum of this lane's and all before
  for (int i = 1; i < kWarp; i *= 2) {
    const T before = Shfl(value, LaneId() >= i ? LaneId() - i : LaneId());
    if (LaneId() >= i) value += before;
  }
  return value;
}

// All threads must come here, with the same index; it has barriers. units(amount): of a sequence.
template <int kThreads, typename Units>
GPU_DEVICE Place Locate(const AttentionCall& call, int64_t index, const Units& units) {
  constexpr int kWarps = kThreads / kWarp;
  GPU_SHARED(int64_t, warp_units, kWarps);
  GPU_SHARED(int64_t, warp_slots, kWarps);
  GPU_SHARED(Place, found, 1);
  int64_t units_before = 0, slots_before = 0;
  for (int base = 0;; base += kThreads) {
    const Amount amount(call, base + ThreadX());
    const int64_t own_units = units(amount), own_slots = amount.slots();
    const int64_t unit_prefix = WarpPrefix(own_units), slot_prefix = WarpPrefix(own_slots);
    SyncThreads();  // what an earlier round or call wrote is read
    if (LaneId() == kWarp - 1) {
      warp_units[WarpId()] = unit_prefix;
      warp_slots[WarpId()] = slot_prefix;
    }
    SyncThreads();
    int64_t begin = units_before + unit_prefix - own_units;
    int64_t slot = slots_before + slot_prefix - own_slots;
    for (int i = 0; i < kWarps; ++i) {
      if (i < WarpId()) {
        begin += warp_units[i];
        slot += warp_slots[i];
      }
      units_before += warp_units[i];
      slots_before += warp_slots[i];
    }
    if (index >= begin && index < begin + own_units) {
      found[0] = {base + ThreadX(), index - begin, slot};
    }
    if (index < units_before) break;
  }
  SyncThreads();
  return found[0];
}

// Some rows and heads, and some of their splits. Query i is head i % heads of row i / heads.
struct Tile {
  int rows, heads, queries;
  int kv_head, head;   // the first
  int64_t token;       // of the first row
  int position;        // of the first row
  const int* blocks;   // of the sequence
  Splits splits;       // to sum
  Splits of_sequence;  // that have slots
  int64_t slot;        // of the first row

  GPU_METHOD int Position(const AttentionCall& call, int row) const {
    return position + row * call.row_step;
  }
  GPU_METHOD int64_t Slot(int row, int split) const {
    return slot + int64_t{1} * row * of_sequence.count() + split - of_sequence.first;
  }
};

template <int kThreads>
GPU_DEVICE Tile TileOf(const AttentionCall& call, const Plan& plan, int64_t task) {
  const bool spread = plan.spread;
  // The last rows first: they see the most keys, and long tasks at the end leave others idle.
  const Place place = Locate<kThreads>(
      call, plan.tasks - 1 - task / call.parts,
      [spread](const Amount& a) { return int64_t{1} * a.tiles * (spread ? a.splits : 1); });
  const int part = static_cast<int>(task % call.parts);
  const int group = call.heads / call.layout.kv_heads;
  const int group_parts = call.parts / call.layout.kv_heads;
  const int seq = static_cast<int>(place.seq);
  const int rows = call.Rows(seq);
  Tile tile;
  tile.of_sequence = SplitsOfSequence(call, seq, rows);
  const int count = spread ? tile.of_sequence.count() : 1;
  const int first_row = static_cast<int>(place.index / count) * call.tile_rows;
  const int first_head = part % group_parts * call.tile_heads;
  tile.rows = Min(call.tile_rows, rows - first_row);
  tile.heads = Min(call.tile_heads, group - first_head);
  tile.queries = tile.rows * tile.heads;
  tile.kv_head = part / group_parts;
  tile.head = tile.kv_head * group + first_head;
  tile.token = call.query_start[seq] + first_row;
  tile.position = call.Position(call.context_tokens[seq], rows, first_row);
  tile.blocks = call.block_table + int64_t{1} * seq * call.max_blocks;
  tile.slot = place.slot + int64_t{1} * first_row * tile.of_sequence.count();
  tile.splits = SplitsOf(call, tile.position, tile.Position(call, tile.rows - 1));
  if (spread) {
    const int split = tile.of_sequence.first + static_cast<int>(place.index % count);
    const bool seen = split >= tile.splits.first && split < tile.splits.end;
    tile.splits = {split, seen ? split + 1 : split};
  }
  return tile;
}

// Keys of a split, from its first on.
struct Range {
  int begin, end;
  GPU_METHOD bool empty() const { return begin >= end; }
};
GPU_DEVICE int Clamped(int key) { return key < 0 ? 0 : Min(key, kSplitKeys); }
// Those that a row at `position` sees of the split that begins at key `first`.
GPU_DEVICE Range SeenBy(const AttentionCall& call, int position, int first) {
  return {Clamped(call.FirstKey(position) - first), Clamped(position + 1 - first)};
}

// Where a key's data are.
struct KeyPlace {
  int64_t head;    // in the cache
  int64_t offset;  // in the block
};

// Of a tile's current split, in shared memory; arrays of kQueries unless it says otherwise.
struct SplitState {
  float* score;     // [kQueries, kScoreStride]: scores, then exp(score - max)
  KeyPlace* place;  // [kSplitKeys], of those that are seen
  Range* seen;
  int* row;           // of the tile
  int* head;          // of all heads
  float* max;         // of all splits so far
  float* sum;         // likewise, of exp(score - max)
  float* old_factor;  // what the merge multiplies earlier values by
  float* new_factor;  // and this split's

  GPU_BOTH static size_t Floats(int queries) {
    return static_cast<size_t>(queries) * (kScoreStride + 8) + 4 * kSplitKeys;
  }
  GPU_METHOD SplitState(float* base, int queries)
      : score(base),
        place(reinterpret_cast<KeyPlace*>(score + queries * kScoreStride)),
        seen(reinterpret_cast<Range*>(place + kSplitKeys)),
        row(reinterpret_cast<int*>(seen + queries)),
        head(row + queries),
        max(reinterpret_cast<float*>(head + queries)),
        sum(max + queries),
        old_factor(sum + queries),
        new_factor(old_factor + queries) {}
};

GPU_DEVICE void StartTile(const Tile& tile, int queries, const SplitState& state) {
  for (int i = ThreadX(); i < queries; i += BlockThreads()) {
    state.row[i] = i / tile.heads;
    state.head[i] = tile.head + i % tile.heads;
    state.max[i] = -INFINITY;
    state.sum[i] = 0.0f;
  }
}

// Keys' places and queries' ranges. `queries`: with those that the tile does not have, which see
// nothing. Between barriers.
GPU_DEVICE void PrepareSplit(const AttentionCall& call, const Tile& tile, int first, int queries,
                             const SplitState& state) {
  const int begin = SeenBy(call, tile.position, first).begin;
  const int end = SeenBy(call, tile.Position(call, tile.rows - 1), first).end;
  for (int key = begin + ThreadX(); key < end; key += BlockThreads()) {
    const int64_t block = tile.blocks[(first + key) / call.layout.block_tokens];
    state.place[key] = {call.layout.Head(block, tile.kv_head),
                        (first + key) % call.layout.block_tokens};
  }
  for (int i = ThreadX(); i < queries; i += BlockThreads()) {
    state.seen[i] =
        i < tile.queries ? SeenBy(call, tile.Position(call, i / tile.heads), first) : Range{0, 0};
  }
}

GPU_DEVICE float Capped(float score, float soft_cap) {
  return soft_cap > 0.0f ? soft_cap * Tanh(score / soft_cap) : score;
}

// Of the values that were summed with the maximum `max`, once it is `merged`.
GPU_DEVICE float FactorOf(float max, float merged) {
  return max == -INFINITY ? 0.0f : ExpNonPositive(max - merged);
}
GPU_DEVICE float Merged(float earlier, float old_factor, float later, float new_factor) {
  return fmaf(earlier, old_factor, later * new_factor);
}

// 16 lanes a query: exp(score - max) in place, and the merge of max and sum with those of earlier
// splits. A barrier before and after.
template <int kThreads>
GPU_DEVICE void Softmax(int queries, const SplitState& state) {
  constexpr int kGroups = kThreads / kSumLanes;
  const int lane = ThreadX() % kSumLanes;
  for (int first = 0; first < queries; first += kGroups) {
    const int query = first + ThreadX() / kSumLanes;
    const bool active = query < queries && !state.seen[query].empty();
    float* at = state.score + query * kScoreStride + lane;
    float score[kLaneKeys];
    float max = -INFINITY;
    for (int i = 0; i < kLaneKeys; ++i) {
      score[i] = active ? at[i * kSumLanes] : -INFINITY;
      max = fmaxf(max, score[i]);
    }
    for (int i = kSumLanes / 2; i > 0; i /= 2) max = fmaxf(max, ShflXor(max, i));
    float sum = 0.0f;
    for (int i = 0; i < kLaneKeys; ++i) {
      const float weight = score[i] == -INFINITY ? 0.0f : ExpNonPositive(score[i] - max);
      if (active) at[i * kSumLanes] = weight;
      sum += weight;
    }
    for (int i = kSumLanes / 2; i > 0; i /= 2) sum += ShflXor(sum, i);
    if (!active || lane != 0) continue;
    const float merged = fmaxf(state.max[query], max);
    const float old_factor = FactorOf(state.max[query], merged);
    const float new_factor = FactorOf(max, merged);
    state.sum[query] = Merged(state.sum[query], old_factor, sum, new_factor);
    state.max[query] = merged;
    state.old_factor[query] = old_factor;
    state.new_factor[query] = new_factor;
  }
}

// What the sum of weighted values is multiplied by and divided by to be the result of `head`.
struct Finish {
  float factor, sum;
  GPU_METHOD Finish(const AttentionCall& call, int head, float max, float weights)
      : factor(1.0f), sum(weights) {
    if (call.sinks == nullptr) return;
    const float sink = call.sinks[head];
    const float merged = fmaxf(max, sink);
    factor = FactorOf(max, merged);
    sum = Merged(weights, factor, 1.0f, FactorOf(sink, merged));
  }
  GPU_METHOD float Of(float values) const { return values * factor / sum; }
};

// Vectors of values on their way to shared memory, f32 there: rows of kDims of them, from vector
// `first_vector` on, for the keys from `first_key` on.
template <typename Kv, int kThreads, int kStageFloats>
struct ValueStage {
  static constexpr int kVectors = (kStageFloats / Kv::kElements + kThreads - 1) / kThreads;
  KvVector raw[kVectors];
  float scale[Kv::kScaled ? kVectors : 1];

  // `row_vectors`: of a row; a power of two.
  GPU_METHOD void Load(const AttentionCall& call, const SplitState& state, Range tile,
                       int first_key, int keys, int first_vector, int row_vectors) {
    for (int i = 0; i < kVectors; ++i) {
      raw[i] = KvVector{};
      if constexpr (Kv::kScaled) scale[i] = 0.0f;
      const int index = ThreadX() + i * kThreads;
      const int key = first_key + index / row_vectors;
      const int vector = first_vector + index % row_vectors;
      if (index >= keys * row_vectors || key < tile.begin || key >= tile.end ||
          vector >= call.layout.vectors) {
        continue;
      }
      const KeyPlace place = state.place[key];
      const unsigned char* head = call.kv + place.head;
      raw[i] = *reinterpret_cast<const KvVector*>(
          head + call.layout.Value(static_cast<int>(place.offset), vector));
      if constexpr (Kv::kScaled) {
        scale[i] = F16Value(*reinterpret_cast<const uint16_t*>(
            head + call.layout.ValueScale(static_cast<int>(place.offset),
                                          vector * Kv::kElements / kKvScaleDims)));
      }
    }
  }
  GPU_METHOD void Store(int keys, int row_vectors, float* stage) const {
    for (int i = 0; i < kVectors; ++i) {
      const int index = ThreadX() + i * kThreads;
      if (index >= keys * row_vectors) break;
      float value[Kv::kElements];
      Kv::Decode(raw[i], value);
      for (int j = 0; j < Kv::kElements; j += 4) {
        Four four;
        for (int l = 0; l < 4; ++l) {
          four.value[l] = Kv::kScaled ? value[j + l] * scale[i] : value[j + l];
        }
        *reinterpret_cast<Four*>(stage + index * Kv::kElements + j) = four;
      }
    }
  }
};

// A launch as the host knows it; a kernel's file adds what is the kernel's and returns the call.
struct AttentionLaunch {
  AttentionCall call;
  DType kv_dtype;
  int64_t tokens;
  int splits;      // of a row, at most
  int max_blocks;  // of a grid
};
// attention_few.cu. `one_row`: few sequences, if any, have more.
AttentionCall LaunchFewRows(const StreamHandle& stream, AttentionLaunch launch, bool one_row);
// attention_tiles.cu
AttentionCall LaunchManyRows(const StreamHandle& stream, AttentionLaunch launch);

// For tiles of at most `queries`; a group of more heads is cut.
inline void SetTiles(AttentionLaunch* launch, int queries) {
  AttentionCall& call = launch->call;
  const int kv_heads = call.layout.kv_heads, group = call.heads / kv_heads;
  call.tile_rows = queries > group ? queries / group : 1;
  call.tile_heads = group < queries ? group : queries;
  call.parts = kv_heads * ((group + call.tile_heads - 1) / call.tile_heads);
  // Sequences end in a tile each; none is empty.
  const int64_t tiles = launch->tokens / call.tile_rows + call.seqs;
  int64_t tasks = tiles < launch->tokens ? tiles : launch->tokens;
  if (call.slots > 0) tasks *= launch->splits;
  tasks *= call.parts;
  call.blocks = static_cast<int>(tasks < launch->max_blocks ? tasks : launch->max_blocks);
}

}  // namespace fairlead::FAIRLEAD_GPU
