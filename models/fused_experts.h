// SPDX-License-Identifier: Apache-2.0
// gpt-oss's experts as Hugging Face folders have them (ExpertNames::kGptOss): gate and up in one
// tensor whose columns (or biases) take turns, everything as [experts, k, n], or in MXFP4 as U8
// `_blocks` and `_scales` of [experts, n, k / 32, 16] and [experts, n, k / 32]. Any thread.
#pragma once

#include <memory>

#include "models/weights.h"

namespace fairlead {

// `source` with mlp.experts.{gate,up,down}_proj.{weight,bias} of [experts, n, k] and [experts, n],
// made when they are read, in place of those; as it is where it has none, or its config does not
// say that they are of this form. kInvalidArgument names a tensor whose shape cannot be, or whose
// parts are there besides.
absl::StatusOr<std::unique_ptr<WeightSource>> SplitFusedExperts(
    std::unique_ptr<WeightSource> source);

}  // namespace fairlead
