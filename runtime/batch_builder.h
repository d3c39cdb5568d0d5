// SPDX-License-Identifier: Apache-2.0
// Turns a plan into the device-side input of Model::Forward. Engine thread only. The plan's rows
// are laid out one after the other in plan order: the tokens of row r are [query_start[r],
// query_start[r + 1]).
#pragma once

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "models/model.h"
#include "runtime/mirror.h"
#include "runtime/scheduler.h"

namespace fairlead {

// Sizes of a batch's tensors, at least the plan's: what the plan does not fill are sequences of one
// token at position 0, which writes no keys and whose results nobody reads.
struct BatchShape {
  int tokens, seqs;
  int blocks;  // of a sequence, in the block table
};
BatchShape ShapeOf(const StepPlan& plan);

class BatchBuilder {
 public:
  // For plans within `limits` over sequences of at most max_model_len tokens. `layers`: the blocks
  // of so many layers lie side by side in memory, so block b of a sequence is block b * layers of
  // the batch, counted from each layer's first block. Errors: the device's.
  static absl::StatusOr<BatchBuilder> Create(Device& device, const SchedulerLimits& limits,
                                             int max_model_len, int block_tokens, int layers);

  // One copy to the device. Valid until the next Build but one, which must not come before the
  // stream has done this one's copy.
  const Batch& Build(const StepPlan& plan, const BatchShape& shape, Stream& stream);
  // Of the last batch, i32 [tokens]: where the device has the token (Sequence::unknown_place), or
  // -1.
  const Tensor& token_source() const { return token_source_; }

 private:
  BatchBuilder(Mirror mirror, int block_tokens, int layers)
      : mirror_(std::move(mirror)), block_tokens_(block_tokens), layers_(layers) {}

  Mirror mirror_;
  int block_tokens_;
  int layers_;
  Batch batch_;
  Tensor token_source_;
};

}  // namespace fairlead
