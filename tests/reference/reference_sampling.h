// SPDX-License-Identifier: Apache-2.0
// Sampling of one row, spelled out step by step as ops.h defines it.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace fairlead::reference {

struct SamplingRow {
  std::vector<float> logits;  // edited and masked already
  float temperature = 0;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float uniform = 0;  // in [0, 1)
};

// Whether the row's mask, if it has one, allows a token. In host memory, as the next.
bool Allows(const SampleArgs& args, int64_t row, int64_t token);

// Row `row` of the args, its edits and mask applied. Reads the tensors, so they must be in host
// memory.
SamplingRow ReadSamplingRow(const SampleArgs& args, int64_t row);

int32_t SampleRow(const SamplingRow& row);

// The answers that float32 arithmetic may give: all that come out when each threshold moves by
// `slack` of the whole mass. Ascending. One token unless a threshold lies that close to a boundary.
std::vector<int32_t> AcceptableTokens(const SamplingRow& row, double slack);

}  // namespace fairlead::reference
