// SPDX-License-Identifier: Apache-2.0
// Attention over a paged KV cache on CPU threads (online softmax: Milakov and Gimelshein,
// arXiv 1805.02867; splits of the keys: Dao et al., "Flash-Decoding", 2023).
//
// The unit is (tile of query rows, kv head): the query heads of a group share the keys they read. A
// tile handles its splits in order; where tiles are too few for the threads (a long decode), each
// (tile, kv head, split) is a task and the sums are merged in the same order afterwards.
#pragma once

#include <vector>

#include "kernels/cpu/aligned_array.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/simd_attention.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

// Grows to what the largest call needs. One call at a time.
class AttentionScratch {
 public:
  struct Tile {  // consecutive query rows of one sequence
    int seq;
    int token;     // of its first row
    int position;  // likewise; without causal the sequence's last, where all rows stand then
    int rows;
    int last_position;
    int64_t task;  // number of its first (kv head, split) task when splits are spread
    int num_splits() const { return last_position / kSplitKeys + 1; }
  };

  struct Worker {
    GrowOnlyArray<float> floats;  // queries, scores and sums of its task
    GrowOnlyArray<int> keys;      // first and last that each query sees
  };

  std::vector<Tile> tiles;
  std::vector<int> task_tile;    // of a spread task, its tile
  GrowOnlyArray<float> partial;  // sums of spread tasks
  std::vector<Worker> worker;
};

// Tensors as in AttentionArgs, in host memory.
void CpuAttention(ThreadPool& pool, const AttentionArgs& args, const KvFormat& format,
                  AttentionScratch& scratch);

}  // namespace fairlead
