// SPDX-License-Identifier: Apache-2.0
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

float Element(const uint32_t* first, const uint32_t* second, int k) {
  const uint32_t pair = k < 2 ? *first : *second;
  return F16ToF32(static_cast<uint16_t>(k % 2 == 0 ? pair : pair >> 16));
}

void Gather(const MmaLayout& layout, const uint64_t* lanes, Tile* tile) {
  for (int l = 0; l < layout.warp; ++l) {
    const MmaLane& lane = *reinterpret_cast<const MmaLane*>(lanes[l]);
    for (int k = 0; k < 4; ++k) {
      for (int r = 0; r < layout.rows; ++r) {
        tile->rows[layout.row[l][r]][4 * layout.quad[l] + k] =
            Element(lane.row_pairs + r, lane.row_pairs + r + layout.rows, k);
      }
      tile->tokens[4 * layout.quad[l] + k][layout.token[l]] =
          Element(lane.token_pairs, lane.token_pairs + 1, k);
    }
    for (int i = 0; i < layout.sums; ++i) {
      tile->sums[layout.sum_row[l][i]][layout.sum_token[l][i]] = lane.sums[i];
    }
  }
}

void Multiply(const MmaLayout& layout, const uint64_t* lanes) {
  Tile tile = {};
  Gather(layout, lanes, &tile);
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      const float w = tile.rows[row][k];
      for (int t = 0; t < 16; ++t) {
        tile.sums[row][t] = std::fmaf(w, tile.tokens[k][t], tile.sums[row][t]);
      }
    }
  }
  for (int l = 0; l < layout.warp; ++l) {
    const MmaLane& lane = *reinterpret_cast<const MmaLane*>(lanes[l]);
    for (int i = 0; i < layout.sums; ++i) {
      lane.sums[i] = tile.sums[layout.sum_row[l][i]][layout.sum_token[l][i]];
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
