// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/ops_gpu.h"

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/stream_gpu.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

const StreamHandle& HandleOf(Stream& stream) { return static_cast<GpuStream&>(stream).handle(); }

}  // namespace

void GpuOps::Embed(Stream& stream, const EmbedArgs& args) const {
  LaunchEmbed(HandleOf(stream), args);
}

void GpuOps::RmsNorm(Stream& stream, const RmsNormArgs& args) const {
  LaunchRmsNorm(HandleOf(stream), args);
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

void GpuOps::SiluAndMul(Stream& stream, const SiluAndMulArgs& args) const {
  LaunchSiluAndMul(HandleOf(stream), args);
}

void GpuOps::GatherRows(Stream& stream, const GatherRowsArgs& args) const {
  LaunchGatherRows(HandleOf(stream), args);
}

void GpuOps::Sample(Stream& stream, const SampleArgs& args) const {
  LaunchSample(HandleOf(stream), args);
}

void GpuOps::Logprobs(Stream& stream, const LogprobsArgs& args) const {
  LaunchLogprobs(HandleOf(stream), args);
}

}  // namespace fairlead::FAIRLEAD_GPU
