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

// Of block tables: a longer one is a larger copy, and blocks of attention's grid that find no work.
std::vector<int> BlockSizes(int most) {
  std::vector<int> sizes;
  for (int blocks = 8; blocks < most; blocks *= 2) sizes.push_back(blocks);
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

size_t StepGraphs::IndexOf(const BatchShape& shape) const {
  const auto row = std::lower_bound(rows_.begin(), rows_.end(), shape.seqs) - rows_.begin();
  const auto block =
      std::lower_bound(blocks_.begin(), blocks_.end(), shape.blocks) - blocks_.begin();
  return static_cast<size_t>(row) * blocks_.size() + static_cast<size_t>(block);
}

bool StepGraphs::Records(const BatchShape& shape) const {
  const Entry& entry = entries_.at(IndexOf(shape));
  return entry.graph == nullptr && entry.seen && !entry.failed && num_recorded_ < kMaxGraphs;
}

void StepGraphs::Run(Stream& stream, const BatchShape& shape, absl::FunctionRef<void()> enqueue) {
  Entry& entry = entries_.at(IndexOf(shape));
  if (Records(shape)) {
    stream.BeginCapture();
    enqueue();
    entry.graph = stream.EndCapture();
    entry.failed = entry.graph == nullptr;
    num_recorded_ += entry.graph != nullptr;
  }
  entry.seen = true;
  if (entry.graph == nullptr) return enqueue();
  stream.Launch(*entry.graph);
  ++num_launched_;
}

}  // namespace fairlead
