// SPDX-License-Identifier: Apache-2.0
// Causal attention over the paged cache, for query rows of any mix of prefill and decode. A block
// takes one query row and some of the query heads that share a kv head. Keys are cut at fixed
// multiples of kSplitKeys; each split is summed on its own and splits are merged in order (online
// softmax: Milakov and Gimelshein, arXiv 1805.02867), so the bits of a row depend on its position
// and the warp's size alone.
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/kv_layout.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 128;
constexpr int kSplitKeys = 256;
constexpr int kHeads = 8;  // query heads of a block, at most

template <typename T>
struct AttentionCall {
  const float* qkv;
  float* out;
  const T* kv;
  const int* query_start;
  const int* context_tokens;
  const int* block_table;
  KvLayout layout;
  int seqs;
  int max_blocks;
  int heads;
  float scale;
};

// Of a block's heads, in shared memory.
struct Shared {
  float* q;      // [kHeads, head_dim], scaled
  float* score;  // [kHeads, kSplitKeys]: scores, then exp(score - max)
  float* out;    // [kHeads, head_dim]: sum of exp(score - max) * value, all splits so far
  float* max;    // [kHeads, 2]: of all splits before this one, of this one
  float* sum;    // [kHeads, 2]: sums of exp(score - max), likewise

  GPU_BOTH static size_t Bytes(int head_dim) {
    return sizeof(float) * kHeads * (2 * head_dim + kSplitKeys + 4);
  }
  GPU_METHOD Shared(float* base, int head_dim)
      : q(base),
        score(q + kHeads * head_dim),
        out(score + kHeads * kSplitKeys),
        max(out + kHeads * head_dim),
        sum(max + kHeads * 2) {}
};

// The sequence of query row `token`: the last whose first row is not after it.
GPU_DEVICE int SequenceOf(const int* query_start, int seqs, int token) {
  int low = 0, high = seqs - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (query_start[middle] <= token) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// What a block works on.
template <typename T>
struct Row {
  const T* kv;
  const int* blocks;  // of the sequence
  int kv_head;
  int heads;  // of this block
};

// score[h, key] = q[h] . k[key] for the keys [first, first + keys): a thread a key, dimensions in
// order.
template <typename T>
GPU_DEVICE void Score(const KvLayout& layout, const Row<T>& row, int first, int keys,
                      const Shared& shared) {
  for (int key = ThreadX(); key < keys; key += kThreads) {
    const int64_t block = row.blocks[(first + key) / layout.block_tokens];
    const int offset = (first + key) % layout.block_tokens;
    float sum[kHeads];
    for (int h = 0; h < kHeads; ++h) sum[h] = 0.0f;
    for (int vector = 0; vector < layout.key_vectors(); ++vector) {
      const T* k = row.kv + layout.Key(block, row.kv_head, offset, vector);
      float value[kKeyVector];
      for (int i = 0; i < kKeyVector; ++i) value[i] = KvValue(k[i]);
      const int dims = Min(kKeyVector, layout.head_dim - vector * kKeyVector);
      for (int h = 0; h < row.heads; ++h) {
        const float* q = shared.q + h * layout.head_dim + vector * kKeyVector;
        for (int i = 0; i < dims; ++i) sum[h] = fmaf(q[i], value[i], sum[h]);
      }
    }
    for (int h = 0; h < row.heads; ++h) shared.score[h * kSplitKeys + key] = sum[h];
  }
}

// A warp a head: the split's largest score, exp(score - largest) in place, and their sum.
GPU_DEVICE void Softmax(int heads, int keys, const Shared& shared) {
  for (int h = WarpId(); h < heads; h += kThreads / kWarp) {
    float* score = shared.score + h * kSplitKeys;
    float max = -INFINITY;
    for (int key = LaneId(); key < keys; key += kWarp) max = fmaxf(max, score[key]);
    max = WarpMax(max);
    float sum = 0.0f;
    for (int key = LaneId(); key < keys; key += kWarp) {
      score[key] = expf(score[key] - max);
      sum += score[key];
    }
    sum = WarpSum(sum);
    if (LaneId() == 0) {
      shared.max[2 * h + 1] = max;
      shared.sum[2 * h + 1] = sum;
    }
  }
}

// Adds the split's weighted values to those before it. A thread takes one dimension of one head.
template <typename T>
GPU_DEVICE void AddValues(const KvLayout& layout, const Row<T>& row, int first, int keys,
                          const Shared& shared) {
  const int head_dim = layout.head_dim;
  for (int i = ThreadX(); i < row.heads * head_dim; i += kThreads) {
    const int h = i / head_dim;
    const float* weight = shared.score + h * kSplitKeys;
    float sum = 0.0f;
    for (int key = 0; key < keys; ++key) {
      const int64_t block = row.blocks[(first + key) / layout.block_tokens];
      const int offset = (first + key) % layout.block_tokens;
      const T* v = row.kv + layout.Value(block, row.kv_head, offset);
      sum = fmaf(weight[key], KvValue(v[i % head_dim]), sum);
    }
    if (first == 0) {
      shared.out[i] = sum;
      continue;
    }
    const float max = fmaxf(shared.max[2 * h], shared.max[2 * h + 1]);
    shared.out[i] =
        fmaf(shared.out[i], expf(shared.max[2 * h] - max), sum * expf(shared.max[2 * h + 1] - max));
  }
}

// The merged largest score and sum of each head, for the next split.
GPU_DEVICE void MergeSums(int heads, bool first, const Shared& shared) {
  for (int h = ThreadX(); h < heads; h += kThreads) {
    float* max = shared.max + 2 * h;
    float* sum = shared.sum + 2 * h;
    if (first) {
      max[0] = max[1];
      sum[0] = sum[1];
      continue;
    }
    const float merged = fmaxf(max[0], max[1]);
    sum[0] = fmaf(sum[0], expf(max[0] - merged), sum[1] * expf(max[1] - merged));
    max[0] = merged;
  }
}

// Grid: query rows by (kv heads times the blocks of a group).
template <typename T>
GPU_KERNEL void Attention(AttentionCall<T> call) {
  const KvLayout& layout = call.layout;
  const int head_dim = layout.head_dim, group = call.heads / layout.kv_heads;
  GPU_DYNAMIC_SHARED(float, base);
  const Shared shared(base, head_dim);
  const int token = static_cast<int>(BlockX());
  const int blocks_of_group = (group + kHeads - 1) / kHeads;
  const int kv_head = static_cast<int>(BlockY()) / blocks_of_group;
  const int first_head = static_cast<int>(BlockY()) % blocks_of_group * kHeads;
  const int seq = SequenceOf(call.query_start, call.seqs, token);
  const Row<T> row = {.kv = call.kv,
                      .blocks = call.block_table + int64_t{1} * seq * call.max_blocks,
                      .kv_head = kv_head,
                      .heads = Min(kHeads, group - first_head)};
  const int position = call.context_tokens[seq] - (call.query_start[seq + 1] - token);
  const int64_t head = int64_t{1} * kv_head * group + first_head;
  const float* q =
      call.qkv + (int64_t{1} * token * (call.heads + 2 * layout.kv_heads) + head) * head_dim;
  for (int i = ThreadX(); i < row.heads * head_dim; i += kThreads) shared.q[i] = q[i] * call.scale;
  for (int first = 0; first <= position; first += kSplitKeys) {
    const int keys = Min(kSplitKeys, position + 1 - first);
    SyncThreads();  // q is there; the split before is read
    Score(layout, row, first, keys, shared);
    SyncThreads();
    Softmax(row.heads, keys, shared);
    SyncThreads();
    AddValues(layout, row, first, keys, shared);
    SyncThreads();
    MergeSums(row.heads, first == 0, shared);
  }
  SyncThreads();
  float* out = call.out + (int64_t{1} * token * call.heads + head) * head_dim;
  for (int i = ThreadX(); i < row.heads * head_dim; i += kThreads) {
    out[i] = shared.out[i] / shared.sum[2 * (i / head_dim)];
  }
}

template <typename T>
void Launch(const StreamHandle& stream, const AttentionArgs& args) {
  const KvShape& shape = args.kv.shape;
  const AttentionCall<T> call = {
      .qkv = args.qkv.As<float>(),
      .out = args.out.As<float>(),
      .kv = static_cast<const T*>(args.kv.data),
      .query_start = args.query_start.As<int>(),
      .context_tokens = args.context_tokens.As<int>(),
      .block_table = args.block_table.As<int>(),
      .layout = KvLayout(shape.kv_heads, shape.head_dim, shape.block_tokens),
      .seqs = static_cast<int>(args.context_tokens.dim[0]),
      .max_blocks = static_cast<int>(args.block_table.dim[1]),
      .heads = args.heads,
      .scale = args.scale};
  const int blocks_of_group = (args.heads / shape.kv_heads + kHeads - 1) / kHeads;
  const Grid grid = {static_cast<unsigned>(args.out.dim[0]),
                     static_cast<unsigned>(shape.kv_heads * blocks_of_group)};
  GPU_LAUNCH(stream, grid, kThreads, Shared::Bytes(shape.head_dim), Attention<T>, call);
}

}  // namespace

void LaunchAttention(const StreamHandle& stream, const AttentionArgs& args, DType kv_dtype) {
  if (args.out.dim[0] == 0) return;
  const auto launch = kv_dtype == DType::kF16 ? &Launch<uint16_t> : &Launch<float>;
  launch(stream, args);
}

}  // namespace fairlead::FAIRLEAD_GPU
