// SPDX-License-Identifier: Apache-2.0
#include "runtime/batch_builder.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace fairlead {

absl::StatusOr<BatchBuilder> BatchBuilder::Create(Device& device, const SchedulerLimits& limits,
                                                  int max_model_len, int block_tokens, int layers) {
  const int64_t seqs = std::min(limits.max_num_seqs, limits.max_batched_tokens);
  const int64_t max_blocks = (max_model_len + block_tokens - 1) / block_tokens;
  const size_t bytes = 4 * Mirror::BytesFor(limits.max_batched_tokens) +
                       Mirror::BytesFor(seqs + 1) + Mirror::BytesFor(seqs) +
                       Mirror::BytesFor(seqs * max_blocks);
  absl::StatusOr<Mirror> mirror = Mirror::Create(device, bytes);
  if (!mirror.ok()) return mirror.status();
  return BatchBuilder(*std::move(mirror), block_tokens, layers);
}

BatchShape ShapeOf(const StepPlan& plan) {
  size_t blocks = 0;
  for (const PlannedRow& row : plan.rows) {
    blocks = std::max(blocks, row.sequence->blocks.block.size());
  }
  return {.tokens = plan.num_tokens,
          .seqs = static_cast<int>(plan.rows.size()),
          .blocks = static_cast<int>(blocks)};
}

const Batch& BatchBuilder::Build(const StepPlan& plan, const BatchShape& shape, Stream& stream) {
  const int64_t tokens = shape.tokens, seqs = shape.seqs;
  const size_t max_blocks = static_cast<size_t>(shape.blocks);
  mirror_.Flip();
  const auto token = mirror_.Add<int32_t>({tokens});
  const auto source = mirror_.Add<int32_t>({tokens});
  const auto position = mirror_.Add<int32_t>({tokens});
  const auto kv_slot = mirror_.Add<int32_t>({tokens});
  const auto query_start = mirror_.Add<int32_t>({seqs + 1});
  const auto context_tokens = mirror_.Add<int32_t>({seqs});
  const auto block_table = mirror_.Add<int32_t>({seqs, shape.blocks});

  int t = 0;
  const int64_t rows = static_cast<int64_t>(plan.rows.size());
  for (int64_t r = 0; r < rows; ++r) {
    const PlannedRow& row = plan.rows[r];
    const std::vector<int32_t>& blocks = row.sequence->blocks.block;
    query_start.host[r] = t;
    context_tokens.host[r] = row.first_token + row.num_tokens;
    for (int i = 0; i < row.num_tokens; ++i, ++t) {
      const int p = row.first_token + i;
      token.host[t] = row.sequence->TokenAt(p);
      source.host[t] = token.host[t] == kUnknownToken ? row.sequence->unknown_place : -1;
      position.host[t] = p;
      kv_slot.host[t] = blocks[p / block_tokens_] * layers_ * block_tokens_ + p % block_tokens_;
    }
    const auto table = block_table.host.subspan(r * max_blocks, max_blocks);
    // Entries beyond a sequence's blocks are never read; 0 is a valid block all the same.
    const auto end = std::transform(blocks.begin(), blocks.end(), table.begin(),
                                    [this](int32_t block) { return block * layers_; });
    std::fill(end, table.end(), 0);
  }
  FAIRLEAD_CHECK(tokens - t == seqs - rows);
  for (int64_t r = rows; r < seqs; ++r, ++t) {
    query_start.host[r] = t;
    context_tokens.host[r] = 1;
    token.host[t] = position.host[t] = 0;
    source.host[t] = kv_slot.host[t] = -1;
    const auto table = block_table.host.subspan(r * max_blocks, max_blocks);
    std::fill(table.begin(), table.end(), 0);
  }
  query_start.host[seqs] = t;
  mirror_.CopyToDevice(stream);
  batch_ = {.token = token.device,
            .position = position.device,
            .kv_slot = kv_slot.device,
            .query_start = query_start.device,
            .context_tokens = context_tokens.device,
            .block_table = block_table.device};
  token_source_ = source.device;
  return batch_;
}

}  // namespace fairlead
