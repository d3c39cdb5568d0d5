// SPDX-License-Identifier: Apache-2.0
#include "runtime/step_graphs.h"

#include <algorithm>
#include <cstddef>

#include "kernels/check.h"

namespace fairlead {
namespace {

// Every size up to 4, then by steps that add at most a third, or 16 rows.
std::vector<int> RowSizes(int most) {
  std::vector<int> sizes;
  for (int rows = 1; rows < most; rows += rows < 4 ? 1 : std::min(rows / 4, 16)) {
    sizes.push_back(rows);
  }
  sizes.push_back(most);
  return sizes;
}

// Of block tables: their length costs a copy and nothing else.
std::vector<int> BlockSizes(int most) {
  std::vector<int> sizes;
  for (int blocks = 8; blocks < most; blocks *= 4) sizes.push_back(blocks);
  sizes.push_back(most);
  return sizes;
}

}  // namespace

StepGraphs::StepGraphs(int max_rows, int max_blocks)
    : rows_(RowSizes(max_rows)),
      blocks_(BlockSizes(max_blocks)),
      entries_(rows_.size() * blocks_.size()) {}

std::optional<BatchShape> StepGraphs::ShapeFor(const StepPlan& plan) const {
  size_t blocks = 0;
  for (const PlannedRow& row : plan.rows) {
    if (!row.sample || row.num_tokens != 1) return std::nullopt;
    blocks = std::max(blocks, row.sequence->blocks.block.size());
  }
  const auto rows =
      std::lower_bound(rows_.begin(), rows_.end(), static_cast<int>(plan.rows.size()));
  const auto width = std::lower_bound(blocks_.begin(), blocks_.end(), static_cast<int>(blocks));
  if (rows == rows_.end() || width == blocks_.end()) return std::nullopt;
  return BatchShape{.tokens = *rows, .seqs = *rows, .blocks = *width};
}

void StepGraphs::Run(Stream& stream, const BatchShape& shape, absl::FunctionRef<void()> enqueue) {
  const auto row = std::lower_bound(rows_.begin(), rows_.end(), shape.seqs) - rows_.begin();
  const auto block =
      std::lower_bound(blocks_.begin(), blocks_.end(), shape.blocks) - blocks_.begin();
  Entry& entry =
      entries_.at(static_cast<size_t>(row) * blocks_.size() + static_cast<size_t>(block));
  if (entry.graph == nullptr) {
    if (!entry.seen || entry.failed) {
      entry.seen = true;
      return enqueue();
    }
    stream.BeginCapture();
    enqueue();
    entry.graph = stream.EndCapture();
    if (entry.graph == nullptr) {
      entry.failed = true;
      return enqueue();
    }
  }
  stream.Launch(*entry.graph);
  ++num_launched_;
}

}  // namespace fairlead
