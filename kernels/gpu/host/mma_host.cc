// SPDX-License-Identifier: Apache-2.0
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "kernels/gpu/host/simt.h"
#include "kernels/gpu/host/simt_mma.h"
#include "kernels/half.h"

namespace fairlead::simt {
namespace {

struct Tile {
  float rows[16][16];    // [row, k]
  float tokens[16][16];  // [k, token]
  float sums[16][16];    // [row, token]
};

// The four elements of a quad.
void Widen(uint32_t first, uint32_t second, float (&out)[4]) {
#if defined(__F16C__)
  const auto pairs = static_cast<int64_t>(first | static_cast<uint64_t>(second) << 32);
  _mm_storeu_ps(out, _mm_cvtph_ps(_mm_cvtsi64_si128(pairs)));
#else
  for (int i = 0; i < 4; ++i) {
    const uint32_t pair = i < 2 ? first : second;
    out[i] = F16ToF32(static_cast<uint16_t>(i % 2 == 0 ? pair : pair >> 16));
  }
#endif
}

const MmaLane& LaneAt(const uint64_t* lanes, int l) {
  return *reinterpret_cast<const MmaLane*>(lanes[l]);
}

void Gather(const MmaLayout& layout, const uint64_t* lanes, int step, Tile* tile) {
  for (int l = 0; l < layout.warp; ++l) {
    const MmaLane& lane = LaneAt(lanes, l);
    float quad[4];
    for (int r = 0; r < layout.rows; ++r) {
      const uint32_t* pairs = lane.row_pairs[step] + r;
      Widen(pairs[0], pairs[layout.rows], quad);
      std::copy_n(quad, 4, &tile->rows[layout.row[l][r]][4 * layout.quad[l]]);
    }
    Widen(lane.token_pairs[step][0], lane.token_pairs[step][1], quad);
    for (int k = 0; k < 4; ++k) tile->tokens[4 * layout.quad[l] + k][layout.token[l]] = quad[k];
  }
}

void Multiply(const MmaLayout& layout, const uint64_t* lanes) {
  Tile tile = {};
  for (int l = 0; l < layout.warp; ++l) {
    for (int i = 0; i < layout.sums; ++i) {
      tile.sums[layout.sum_row[l][i]][layout.sum_token[l][i]] = LaneAt(lanes, l).sums[i];
    }
  }
  for (int step = 0; step < LaneAt(lanes, 0).steps; ++step) {
    Gather(layout, lanes, step, &tile);
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 16; ++k) {
        const float w = tile.rows[row][k];
        for (int t = 0; t < 16; ++t) {
          tile.sums[row][t] = std::fmaf(w, tile.tokens[k][t], tile.sums[row][t]);
        }
      }
    }
  }
  for (int l = 0; l < layout.warp; ++l) {
    for (int i = 0; i < layout.sums; ++i) {
      LaneAt(lanes, l).sums[i] = tile.sums[layout.sum_row[l][i]][layout.sum_token[l][i]];
    }
  }
}

}  // namespace

void Mma(const MmaLayout& layout, MmaLane* lane, const std::source_location& where) {
  Collective(
      reinterpret_cast<uint64_t>(lane), [&](const uint64_t* lanes) { Multiply(layout, lanes); },
      where);
}

}  // namespace fairlead::simt
