// SPDX-License-Identifier: Apache-2.0
// Ops as launches on a stream, for tests to choose what a device chooses by itself; arguments are
// those of ops.h, in device memory, checked by MakeCheckedOps. Compiled once per target.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

// matmul.cu
void LaunchEmbed(const StreamHandle& stream, const EmbedArgs& args);
struct MatmulMemory {  // device memory for activations, of this stream alone, 256-byte aligned
  void* data = nullptr;
  size_t bytes = 0;
};
void LaunchMatmul(const StreamHandle& stream, const MatmulArgs& args, Numerics numerics,
                  const MatmulMemory& memory);
void LaunchGroupedMatmul(const StreamHandle& stream, const GroupedMatmulArgs& args,
                         Numerics numerics, const MatmulMemory& memory);

// experts.cu
void LaunchRoute(const StreamHandle& stream, const RouteArgs& args);
void LaunchCombineExperts(const StreamHandle& stream, const CombineExpertsArgs& args);

// rope.cu; kv_dtype: kF32, kF16, kBF16, kQ8_0 or kF8_E4M3
void LaunchRopeAndWriteKv(const StreamHandle& stream, const RopeAndWriteKvArgs& args,
                          DType kv_dtype);

// attention.cu
struct AttentionMemory {  // device memory for sums of splits, of this stream alone; may be none
  float* data = nullptr;
  size_t bytes = 0;
};
// What decides who computes a row, but never its bits.
struct AttentionChoice {
  int few_rows = 8;  // of a sequence: up to these, threads take keys; above, tiles share them
  int enough_tiles = 1024;  // from here on, blocks are busy without splits of their own
  int max_blocks = 2048;    // of a grid; they take turns
};
void LaunchAttention(const StreamHandle& stream, const AttentionArgs& args, DType kv_dtype,
                     const AttentionMemory& memory, const AttentionChoice& choice = {});

// sample.cu, logprobs.cu
void LaunchSample(const StreamHandle& stream, const SampleArgs& args);
void LaunchLogprobs(const StreamHandle& stream, const LogprobsArgs& args);

}  // namespace fairlead::FAIRLEAD_GPU
