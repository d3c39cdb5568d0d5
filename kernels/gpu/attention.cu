// SPDX-License-Identifier: Apache-2.0
// Attention over the paged cache, for query rows of any mix of prefill and decode: which
// kernel takes which sequence, and the merge of splits that were spread over blocks.
#include "kernels/gpu/attention.h"

#include <climits>

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 8;  // splits in flight
constexpr int kColumns = KvShape::kMaxHeadDim / kThreads;

// A block a row's head; a thread a dimension or two.
GPU_KERNEL void MergeSplits(AttentionCall call) {
  const int head_dim = call.layout.head_dim;
  const Plan plan = MakePlan<kThreads>(call);
  if (!plan.spread) return;
  for (int64_t task = BlockX(); task < plan.rows * call.heads; task += call.blocks) {
    const Place place =
        Locate<kThreads>(call, task / call.heads, [](const Amount& a) { return int64_t{a.rows}; });
    const int head = static_cast<int>(task % call.heads), seq = static_cast<int>(place.seq);
    const int rows = call.Rows(seq), row = static_cast<int>(place.index);
    const int position = call.Position(call.context_tokens[seq], rows, row);
    const Splits all = SplitsOfSequence(call, seq, rows);
    const Splits own = SplitsOf(call, position, position);
    const int64_t slot = place.slot + int64_t{1} * row * all.count() + own.first - all.first;
    float max = -INFINITY, sum = 0.0f, total[kColumns] = {};
    for (int first = 0; first < own.count(); first += kAhead) {
      float later_max[kAhead], later_sum[kAhead], value[kAhead][kColumns];
      for (int i = 0; i < kAhead; ++i) {
        if (first + i >= own.count()) continue;
        later_max[i] = call.Sums(slot + first + i, head)[0];
        later_sum[i] = call.Sums(slot + first + i, head)[1];
        for (int c = 0; c < kColumns; ++c) {
          const int dim = ThreadX() + c * kThreads;
          value[i][c] = dim < head_dim ? call.Values(slot + first + i, head)[dim] : 0.0f;
        }
      }
      for (int i = 0; i < kAhead; ++i) {
        if (first + i >= own.count()) continue;
        const float merged = fmaxf(max, later_max[i]);
        const float old_factor = FactorOf(max, merged);
        const float new_factor = FactorOf(later_max[i], merged);
        max = merged;
        sum = Merged(sum, old_factor, later_sum[i], new_factor);
        for (int c = 0; c < kColumns; ++c) {
          total[c] = Merged(total[c], old_factor, value[i][c], new_factor);
        }
      }
    }
    const Finish finish(call, head, max, sum);
    float* out =
        call.out + ((int64_t{1} * call.query_start[seq] + row) * call.heads + head) * head_dim;
    for (int c = 0; c < kColumns; ++c) {
      const int dim = ThreadX() + c * kThreads;
      if (dim < head_dim) out[dim] = finish.Of(total[c]);
    }
  }
}

// `attended`: what the kernel was launched with whose splits are merged.
void LaunchMerge(const StreamHandle& stream, const AttentionLaunch& attended) {
  AttentionCall call = attended.call;
  const int64_t tasks = attended.tokens * call.heads;
  call.blocks = static_cast<int>(tasks < attended.max_blocks ? tasks : attended.max_blocks);
  GPU_LAUNCH(stream, Grid{static_cast<unsigned>(call.blocks)}, kThreads, 0, MergeSplits, call);
}

}  // namespace

void LaunchAttention(const StreamHandle& stream, const AttentionArgs& args, DType kv_dtype,
                     const AttentionMemory& memory, const AttentionChoice& choice) {
  const int64_t tokens = args.out.dim[0], seqs = args.context_tokens.dim[0];
  if (tokens == 0 || seqs == 0) return;
  const KvShape& shape = args.kv.shape;
  const int64_t table_keys = args.block_table.dim[1] * shape.block_tokens;
  const int splits = static_cast<int>((table_keys + kSplitKeys - 1) / kSplitKeys);
  const size_t slot_bytes = sizeof(float) * args.heads * (shape.head_dim + 2);
  AttentionLaunch launch = {
      .call = {.qkv = args.qkv.As<float>(),
               .out = args.out.As<float>(),
               .kv = static_cast<const unsigned char*>(args.kv.data),
               .query_start = args.query_start.As<int>(),
               .context_tokens = args.context_tokens.As<int>(),
               .block_table = args.block_table.As<int>(),
               .sinks = args.sinks.As<float>(),
               .partial = memory.data,
               .slots = splits > 1 ? static_cast<int64_t>(memory.bytes / slot_bytes) : 0,
               .layout = KvLayout(shape, kv_dtype),
               .seqs = static_cast<int>(seqs),
               .max_blocks = static_cast<int>(args.block_table.dim[1]),
               .heads = args.heads,
               .window = args.window,
               .row_step = args.causal ? 1 : 0,
               .scale = args.scale,
               .soft_cap = args.soft_cap,
               .min_rows = 1,
               .max_rows = INT_MAX,
               .tile_rows = 0,
               .tile_heads = 0,
               .parts = 0,
               .enough_tiles = choice.enough_tiles,
               .blocks = 0},
      .kv_dtype = kv_dtype,
      .tokens = tokens,
      .splits = splits,
      .max_blocks = choice.max_blocks};
  // As many rows as sequences: one each, almost always; any other split is right, too.
  const bool decode = choice.few_rows > 0 && tokens == seqs;
  const bool all_few = decode || tokens <= choice.few_rows;
  const bool all_many = !all_few && (seqs == 1 || choice.few_rows == 0);
  if (!all_many) {
    if (!all_few) launch.call.max_rows = choice.few_rows;
    const AttentionCall call = LaunchFewRows(stream, launch, decode);
    if (call.slots > 0) LaunchMerge(stream, {call, kv_dtype, tokens, splits, choice.max_blocks});
  }
  if (!all_few) {
    launch.call.min_rows = choice.few_rows + 1;
    launch.call.max_rows = INT_MAX;
    const AttentionCall call = LaunchManyRows(stream, launch);
    if (call.slots > 0) LaunchMerge(stream, {call, kv_dtype, tokens, splits, choice.max_blocks});
  }
}

}  // namespace fairlead::FAIRLEAD_GPU
