// SPDX-License-Identifier: Apache-2.0
// Calls of the ops that have files of their own; rows.cu defines the others.
#include "kernels/gpu/ops_gpu.h"

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/stream_gpu.h"

namespace fairlead::FAIRLEAD_GPU {

const StreamHandle& HandleOf(Stream& stream) { return static_cast<GpuStream&>(stream).handle(); }

void GpuOps::Embed(Stream& stream, const EmbedArgs& args) const {
  LaunchEmbed(HandleOf(stream), args);
}

void GpuOps::Matmul(Stream& stream, const MatmulArgs& args) const {
  const Buffer& scratch = static_cast<GpuStream&>(stream).scratch();
  LaunchMatmul(HandleOf(stream), args, numerics_, {scratch.data(), scratch.bytes()});
}

void GpuOps::RopeAndWriteKv(Stream& stream, const RopeAndWriteKvArgs& args) const {
  LaunchRopeAndWriteKv(HandleOf(stream), args, kv_dtype_);
}

void GpuOps::Attention(Stream& stream, const AttentionArgs& args) const {
  const Buffer& scratch = static_cast<GpuStream&>(stream).scratch();
  LaunchAttention(HandleOf(stream), args, kv_dtype_,
                  {static_cast<float*>(scratch.data()), scratch.bytes()});
}

void GpuOps::Sample(Stream& stream, const SampleArgs& args) const {
  LaunchSample(HandleOf(stream), args);
}

void GpuOps::Logprobs(Stream& stream, const LogprobsArgs& args) const {
  LaunchLogprobs(HandleOf(stream), args);
}

}  // namespace fairlead::FAIRLEAD_GPU
