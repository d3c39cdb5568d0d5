// SPDX-License-Identifier: Apache-2.0
// The ops as launches on a stream, one declaration a source file's kernels; arguments are those of
// ops.h, in device memory, checked by MakeCheckedOps. Compiled once per target.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

// rows.cu
void LaunchRmsNorm(const StreamHandle& stream, const RmsNormArgs& args);
void LaunchSiluAndMul(const StreamHandle& stream, const SiluAndMulArgs& args);
void LaunchGatherRows(const StreamHandle& stream, const GatherRowsArgs& args);

// matmul.cu
void LaunchEmbed(const StreamHandle& stream, const EmbedArgs& args);
void LaunchMatmul(const StreamHandle& stream, const MatmulArgs& args);

// rope.cu, attention.cu; kv_dtype: kF32 or kF16
void LaunchRopeAndWriteKv(const StreamHandle& stream, const RopeAndWriteKvArgs& args,
                          DType kv_dtype);
void LaunchAttention(const StreamHandle& stream, const AttentionArgs& args, DType kv_dtype);

// sample.cu, logprobs.cu
void LaunchSample(const StreamHandle& stream, const SampleArgs& args);
void LaunchLogprobs(const StreamHandle& stream, const LogprobsArgs& args);

}  // namespace fairlead::FAIRLEAD_GPU
