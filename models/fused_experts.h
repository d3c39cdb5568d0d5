// SPDX-License-Identifier: Apache-2.0
// gpt-oss's experts as Hugging Face folders have them: gate and up in one tensor whose columns (or
// biases) take turns, everything as [experts, k, n], or in MXFP4 as U8 `_blocks` and `_scales` of
// [experts, n, k / 32, 16] and [experts, n, k / 32]. Any thread.
#pragma once

#include <memory>

#include "models/weights.h"

namespace fairlead {

// `source` with mlp.experts.{gate,up,down}_proj.{weight,bias} of [experts, n, k] and [experts, n]
// besides what it has, made when they are read. `source` must outlive it. kInvalidArgument names a
// tensor whose shape cannot be.
absl::StatusOr<std::unique_ptr<WeightSource>> SplitFusedExperts(const WeightSource& source);

}  // namespace fairlead
