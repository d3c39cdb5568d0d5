// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/check.h"
#include "kernels/cpu/tile_attention.h"

namespace fairlead {
namespace {

using Tile = AttentionScratch::Tile;

// Queries (rows x heads of a group) that read the keys together. 48: 8 register tiles of 6, and
// scores of 48 KiB.
constexpr int kTileQueries = 48;

// What one call's tasks share.
class AttentionCall {
 public:
  AttentionCall(const AttentionArgs& args, const KvFormat& format, AttentionScratch& scratch)
      : args_(args),
        layout_(args.kv.shape, format),
        attend_split_(format.paired ? TileAttention() : &SimdAttendSplit),
        scratch_(scratch),
        kv_heads_(args.kv.shape.kv_heads),
        head_dim_(args.kv.shape.head_dim),
        group_(args.heads / kv_heads_),
        q_stride_(int64_t{args.heads + 2 * kv_heads_} * head_dim_) {
    FAIRLEAD_CHECK(args.heads % kv_heads_ == 0);
    FAIRLEAD_CHECK(head_dim_ <= KvShape::kMaxHeadDim &&
                   layout_.shape.block_tokens % kKeyGroup == 0);
  }

  void Run(ThreadPool& pool);

 private:
  struct Queries {  // of a tile, that see some key of a split
    int begin, end;
  };
  struct Worker {  // parts of its scratch
    int* begin;
    int* limit;
    float* q;
    float* score;
    SoftmaxSums total;
    SoftmaxSums later;
  };

  void RunTasks(ThreadPool& pool, int64_t tasks, ThreadPool::Body body) const;
  void MakeTiles();
  void MakeSplitTasks();
  Worker WorkerScratch(int worker) const;
  SoftmaxSums SumsAt(float* at) const;
  int64_t sums_size() const { return int64_t{tile_queries_} * (2 + layout_.v_stride); }

  void LoadQueries(const Tile& tile, int kv_head, float* q) const;
  Queries AttendSplit(const Tile& tile, int kv_head, int split, const Worker& worker,
                      const SoftmaxSums& sums) const;
  int Position(const Tile& tile, int row) const {
    return args_.causal ? tile.position + row : tile.position;
  }
  int FirstKey(int position) const {  // that a row at `position` sees
    return args_.window > 0 ? std::max(0, position - args_.window + 1) : 0;
  }
  int FirstSplit(const Tile& tile) const { return FirstKey(tile.position) / kSplitKeys; }
  Queries QueriesOf(const Tile& tile, int split) const;
  void Add(const Queries& queries, const SoftmaxSums& later, const SoftmaxSums& total) const;
  void AttendTile(const Tile& tile, int kv_head, const Worker& worker) const;
  void MergeTile(const Tile& tile, int kv_head, const Worker& worker) const;
  void Finish(const Tile& tile, int kv_head, const SoftmaxSums& sums) const;
  SoftmaxSums PartialSums(const Tile& tile, int kv_head, int split) const;

  const AttentionArgs& args_;
  const KvLayout layout_;
  const AttendSplitFunction attend_split_;
  AttentionScratch& scratch_;
  const int kv_heads_;
  const int head_dim_;
  const int group_;
  const int64_t q_stride_;
  int tile_queries_ = 0;       // of the largest tile
  int64_t multiply_adds_ = 0;  // about half of the call's work: those of the scores
};

// Late rows first: they see the most keys, and a long task at the end would leave workers idle.
void AttentionCall::MakeTiles() {
  const int* query_start = args_.query_start.As<int>();
  const int* context = args_.context_tokens.As<int>();
  const int seqs = static_cast<int>(args_.context_tokens.dim[0]);
  const int tile_rows = std::max(1, kTileQueries / group_);
  scratch_.tiles.clear();
  int largest = 0;
  for (int seq = 0; seq < seqs; ++seq) {
    const int rows = query_start[seq + 1] - query_start[seq];
    for (int begin = (rows - 1) / tile_rows * tile_rows; begin >= 0 && rows > 0;
         begin -= tile_rows) {
      const int n = std::min(tile_rows, rows - begin), last = context[seq] - 1;
      const int position = args_.causal ? last - (rows - 1) + begin : last;
      scratch_.tiles.push_back({.seq = seq,
                                .token = query_start[seq] + begin,
                                .position = position,
                                .rows = n,
                                .last_position = args_.causal ? position + n - 1 : last,
                                .task = 0});
      largest = std::max(largest, n);
      multiply_adds_ += int64_t{context[seq]} * n * args_.heads * head_dim_;
    }
  }
  tile_queries_ = largest * group_;
}

void AttentionCall::MakeSplitTasks() {
  scratch_.task_tile.clear();
  for (size_t i = 0; i < scratch_.tiles.size(); ++i) {
    Tile& tile = scratch_.tiles[i];
    tile.task = static_cast<int64_t>(scratch_.task_tile.size());
    scratch_.task_tile.resize(scratch_.task_tile.size() + tile.num_splits() * kv_heads_,
                              static_cast<int>(i));
  }
}

SoftmaxSums AttentionCall::SumsAt(float* at) const {
  return {.max = at, .sum = at + tile_queries_, .out = at + 2 * tile_queries_};
}

AttentionCall::Worker AttentionCall::WorkerScratch(int worker) const {
  const int64_t q = int64_t{tile_queries_} * head_dim_;
  const int64_t scores = int64_t{tile_queries_} * kSplitKeys;
  float* at = scratch_.worker[worker].floats.Reserve(scores + q + 2 * sums_size());
  int* keys = scratch_.worker[worker].keys.Reserve(2 * tile_queries_);
  return {.begin = keys,
          .limit = keys + tile_queries_,
          .q = at + scores,
          .score = at,
          .total = SumsAt(at + scores + q),
          .later = SumsAt(at + scores + q + sums_size())};
}

SoftmaxSums AttentionCall::PartialSums(const Tile& tile, int kv_head, int split) const {
  const int64_t task = tile.task + int64_t{kv_head} * tile.num_splits() + split;
  return SumsAt(scratch_.partial.data() + task * sums_size());
}

void AttentionCall::LoadQueries(const Tile& tile, int kv_head, float* q) const {
  const float* qkv = args_.qkv.As<float>() + int64_t{kv_head} * group_ * head_dim_;
  for (int row = 0; row < tile.rows; ++row) {
    SimdScale(qkv + (tile.token + row) * q_stride_, group_ * head_dim_, args_.scale,
              q + int64_t{row} * group_ * head_dim_);
  }
}

AttentionCall::Queries AttentionCall::QueriesOf(const Tile& tile, int split) const {
  const int first_key = split * kSplitKeys;
  int end = tile.rows;
  while (end > 0 && FirstKey(Position(tile, end - 1)) >= first_key + kSplitKeys) --end;
  return {std::max(0, first_key - tile.position) * group_, end * group_};
}

// The sums of other queries than those returned are not written.
AttentionCall::Queries AttentionCall::AttendSplit(const Tile& tile, int kv_head, int split,
                                                  const Worker& worker,
                                                  const SoftmaxSums& sums) const {
  const int first_key = split * kSplitKeys;
  const Queries queries = QueriesOf(tile, split);
  if (queries.begin >= queries.end) return queries;
  int *begin = worker.begin, *limit = worker.limit;
  for (int query = queries.begin; query < queries.end; ++query) {
    const int position = Position(tile, query / group_);
    begin[query] = std::max(0, FirstKey(position) - first_key);
    limit[query] = std::min(position + 1 - first_key, kSplitKeys);
  }
  const int groups = (limit[queries.end - 1] + kKeyGroup - 1) / kKeyGroup;
  const int* blocks = args_.block_table.As<int>() + tile.seq * args_.block_table.dim[1];
  const int block_tokens = layout_.shape.block_tokens;
  const auto* kv = static_cast<const std::byte*>(args_.kv.data);
  std::array<const void*, kSplitGroups> k_group;
  std::array<const void*, kSplitGroups> v_group;
  std::array<const void*, kSplitGroups> k_scale;
  std::array<const void*, kSplitGroups> v_scale;
  for (int g = begin[queries.begin] / kKeyGroup; g < groups; ++g) {
    const int key = first_key + g * kKeyGroup;
    const int block = blocks[key / block_tokens];
    k_group[g] = kv + layout_.KeyOffset(block, kv_head, key % block_tokens);
    v_group[g] = kv + layout_.ValueOffset(block, kv_head, key % block_tokens);
    k_scale[g] = kv + layout_.KeyScaleOffset(block, kv_head, key % block_tokens);
    v_scale[g] = kv + layout_.ValueScaleOffset(block, kv_head, key % block_tokens);
  }
  const int skipped = queries.begin;
  attend_split_({.kv_dtype = layout_.dtype,
                 .queries = queries.end - skipped,
                 .head_dim = head_dim_,
                 .v_stride = layout_.v_stride,
                 .k_stride = block_tokens,
                 .q = worker.q + skipped * head_dim_,
                 .begin = begin + skipped,
                 .limit = limit + skipped,
                 .soft_cap = args_.soft_cap,
                 .k_group = k_group.data(),
                 .v_group = v_group.data(),
                 .k_scale = k_scale.data(),
                 .v_scale = v_scale.data(),
                 .v_scales = layout_.scales,
                 .score = worker.score,
                 .sums = {.max = sums.max + skipped,
                          .sum = sums.sum + skipped,
                          .out = sums.out + int64_t{skipped} * layout_.v_stride}});
  return queries;
}

void AttentionCall::Finish(const Tile& tile, int kv_head, const SoftmaxSums& sums) const {
  const int64_t out_stride = int64_t{args_.heads} * head_dim_;
  float* out = args_.out.As<float>() + int64_t{kv_head} * group_ * head_dim_;
  for (int row = 0; row < tile.rows; ++row) {
    for (int i = 0; i < group_; ++i) {
      const float sink = args_.sinks ? args_.sinks.As<float>()[kv_head * group_ + i]
                                     : -std::numeric_limits<float>::infinity();
      SimdFinishRow(sums, row * group_ + i, head_dim_, layout_.v_stride, sink,
                    out + (tile.token + row) * out_stride + i * head_dim_);
    }
  }
}

SoftmaxSums Skip(const SoftmaxSums& sums, int queries, int v_stride) {
  return {sums.max + queries, sums.sum + queries, sums.out + int64_t{queries} * v_stride};
}

void AttentionCall::Add(const Queries& queries, const SoftmaxSums& later,
                        const SoftmaxSums& total) const {
  if (queries.begin >= queries.end) return;
  SimdMergeSums(queries.end - queries.begin, layout_.v_stride,
                Skip(later, queries.begin, layout_.v_stride),
                Skip(total, queries.begin, layout_.v_stride));
}

// Without a window all queries see the first split, whose sums the others are added to; with one,
// their first splits differ.
void AttentionCall::AttendTile(const Tile& tile, int kv_head, const Worker& worker) const {
  LoadQueries(tile, kv_head, worker.q);
  int split = 0;
  if (args_.window > 0) {
    split = FirstSplit(tile);
    SimdClearSums(tile.rows * group_, layout_.v_stride, worker.total);
  } else {
    AttendSplit(tile, kv_head, split++, worker, worker.total);
  }
  for (; split < tile.num_splits(); ++split) {
    const Queries queries = AttendSplit(tile, kv_head, split, worker, worker.later);
    Add(queries, worker.later, worker.total);
  }
  Finish(tile, kv_head, worker.total);
}

void AttentionCall::MergeTile(const Tile& tile, int kv_head, const Worker& worker) const {
  SoftmaxSums total = worker.total;
  int split = 0;
  if (args_.window > 0) {
    split = FirstSplit(tile);
    SimdClearSums(tile.rows * group_, layout_.v_stride, total);
  } else {
    total = PartialSums(tile, kv_head, split++);
  }
  for (; split < tile.num_splits(); ++split) {
    Add(QueriesOf(tile, split), PartialSums(tile, kv_head, split), total);
  }
  Finish(tile, kv_head, total);
}

// Below some 10 us of work, waking the workers costs more than it gains.
void AttentionCall::RunTasks(ThreadPool& pool, int64_t tasks, ThreadPool::Body body) const {
  if (multiply_adds_ > 100'000) return pool.ParallelFor(tasks, body);
  for (int64_t task = 0; task < tasks; ++task) body(task, 0);
}

void AttentionCall::Run(ThreadPool& pool) {
  MakeTiles();
  const std::vector<Tile>& tiles = scratch_.tiles;
  if (tiles.empty()) return;
  scratch_.worker.resize(std::max<size_t>(scratch_.worker.size(), pool.threads()));
  // All of them now, so that a worker that idled through the first calls does not allocate later.
  for (int worker = 0; worker < pool.threads(); ++worker) WorkerScratch(worker);
  const int64_t tile_tasks = static_cast<int64_t>(tiles.size()) * kv_heads_;
  const bool several_splits =
      std::any_of(tiles.begin(), tiles.end(), [](const Tile& t) { return t.num_splits() > 1; });
  int64_t split_tasks = 0;
  for (const Tile& tile : tiles) split_tasks += int64_t{tile.num_splits()} * kv_heads_;
  // With 4 tasks a thread the last ones to finish cost little; below that, spread the splits,
  // unless their sums would take more memory than caches hold.
  constexpr int64_t kMostPartialFloats = int64_t{1} << 21;
  if (pool.threads() == 1 || !several_splits || tile_tasks >= 4 * pool.threads() ||
      split_tasks * sums_size() > kMostPartialFloats) {
    RunTasks(pool, tile_tasks, [&](int64_t task, int worker) {
      AttendTile(tiles[task / kv_heads_], static_cast<int>(task % kv_heads_),
                 WorkerScratch(worker));
    });
    return;
  }
  MakeSplitTasks();
  const int64_t tasks = static_cast<int64_t>(scratch_.task_tile.size());
  scratch_.partial.Reserve(tasks * sums_size());
  RunTasks(pool, tasks, [&](int64_t task, int worker) {
    const Tile& tile = tiles[scratch_.task_tile[task]];
    const int kv_head = static_cast<int>((task - tile.task) / tile.num_splits());
    const int split = static_cast<int>((task - tile.task) % tile.num_splits());
    if (split < FirstSplit(tile)) return;
    const Worker scratch = WorkerScratch(worker);
    LoadQueries(tile, kv_head, scratch.q);
    AttendSplit(tile, kv_head, split, scratch, PartialSums(tile, kv_head, split));
  });
  RunTasks(pool, tile_tasks, [&](int64_t task, int worker) {
    MergeTile(tiles[task / kv_heads_], static_cast<int>(task % kv_heads_), WorkerScratch(worker));
  });
}

}  // namespace

void CpuAttention(ThreadPool& pool, const AttentionArgs& args, const KvFormat& format,
                  AttentionScratch& scratch) {
  AttentionCall(args, format, scratch).Run(pool);
}

}  // namespace fairlead
