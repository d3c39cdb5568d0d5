// SPDX-License-Identifier: Apache-2.0
// The executor's tensor cores: what mma_host.h is made of.
#pragma once

#include <cstdint>
#include <source_location>

namespace fairlead::simt {

// Which lane holds what of a tile of 16 rows, 16 k in four quads, and 8 or 16 tokens.
struct MmaLayout {
  int warp, rows, sums;  // rows and sums: of a lane
  int row[64][2];        // [lane, r]
  int quad[64];          // of its rows and its token
  int token[64];
  int sum_row[64][4], sum_token[64][4];  // [lane, i]
};

// A lane's registers: f16, two a word. Of a row first the first pair of its quad, `rows` words
// later the second.
struct MmaLane {
  static constexpr int kMaxSteps = 2;
  int steps;
  float* sums;
  const uint32_t* row_pairs[kMaxSteps] = {};  // [step]
  const uint32_t* token_pairs[kMaxSteps] = {};
};

// Kernel: adds the tiles' products, step after step, to the sums of all lanes. All lanes of the
// warp, with equally many steps.
void Mma(const MmaLayout& layout, MmaLane* lane, const std::source_location& where);

}  // namespace fairlead::simt
