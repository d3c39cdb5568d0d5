// SPDX-License-Identifier: Apache-2.0
// Rows of a product that each choose their matrix (GroupedMatmul), grouped for kernels that
// multiply tiles of rows: the GPU alone knows the choices, the host knows only how many tiles there
// may be.
//
// A pair is a token and one of its slots, token * slots + slot. All pairs are put in the order of
// their experts, and each expert's are cut into tiles of so many.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {

struct ExpertTile {
  int expert;
  int first, end;  // places in the order; none where the host asked for more tiles than there are
};

struct ExpertTiles {
  const int* order = nullptr;         // [pairs]
  const ExpertTile* tiles = nullptr;  // [count]
  int count = 0;

  // Tiles of `tile` pairs: the experts' last ones may have fewer.
  static int64_t MaxCount(int64_t pairs, int64_t experts, int64_t tile) {
    return pairs / tile + experts;
  }
  static size_t MemoryBytes(int64_t pairs, int64_t experts, int64_t tile) {
    return static_cast<size_t>(pairs) * sizeof(int) +
           static_cast<size_t>(MaxCount(pairs, experts, tile)) * sizeof(ExpertTile);
  }
};

// experts.cu. expert: i32 [pairs] in device memory; memory: of MemoryBytes, 4-byte aligned.
ExpertTiles LaunchExpertTiles(const StreamHandle& stream, const int* expert, int64_t pairs,
                              int64_t experts, int tile, void* memory);

}  // namespace fairlead::FAIRLEAD_GPU
