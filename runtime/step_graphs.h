// SPDX-License-Identifier: Apache-2.0
// Decode steps as graphs: one launch instead of some hundreds, which a GPU would wait for. A graph
// has fixed sizes, so a step runs in the next larger of some: rows are added that nobody looks at
// (batch invariance: the others keep their bits). Recorded when a size comes for the second time:
// the first loads what is not loaded yet. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/device.h"
#include "runtime/batch_builder.h"
#include "runtime/scheduler.h"

namespace fairlead {

class StepGraphs {
 public:
  // For steps of up to max_rows single tokens, of sequences of up to max_blocks blocks.
  StepGraphs(int max_rows, int max_blocks);

  // What a graph for the plan looks like; none where rows are not single tokens that are followed
  // by a draw, or are too many.
  std::optional<BatchShape> ShapeFor(const StepPlan& plan) const;

  // Whether Run records a graph for the shape, which takes milliseconds.
  bool Records(const BatchShape& shape) const;

  // Has the stream run what `enqueue` enqueues: the same ops with the same arguments for the same
  // shape, without copies or waits.
  void Run(Stream& stream, const BatchShape& shape, absl::FunctionRef<void()> enqueue);

  int64_t num_launched() const { return num_launched_; }

 private:
  struct Entry {
    bool seen = false;
    bool failed = false;  // the device had no memory for it, or cannot
    std::unique_ptr<Graph> graph;
  };

  // Each takes some memory of the device, which nobody plans for.
  static constexpr int kMaxGraphs = 96;

  size_t IndexOf(const BatchShape& shape) const;

  std::vector<int> rows_;    // sizes, ascending
  std::vector<int> blocks_;  // likewise
  std::vector<Entry> entries_;
  int num_recorded_ = 0;
  int64_t num_launched_ = 0;
};

}  // namespace fairlead
