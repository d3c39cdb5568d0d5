// SPDX-License-Identifier: Apache-2.0
// Calls of the ops that have files of their own; rows.cu defines the others.
#include "kernels/gpu/ops_gpu.h"

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/gpu/stream_gpu.h"

namespace fairlead::FAIRLEAD_GPU {

const StreamHandle& HandleOf(Stream& stream) { return static_cast<GpuStream&>(stream).handle(); }

void GpuOps::Embed(Stream& stream, const EmbedArgs& args) const {
  LaunchEmbed(HandleOf(stream), args);
}

void GpuOps::Matmul(Stream& stream, const MatmulArgs& args) const {
  auto& gpu = static_cast<GpuStream&>(stream);
  const MatmulMemory memory = {gpu.scratch().data(), gpu.scratch().bytes()};
  const auto& weight = static_cast<const GpuPackedWeight&>(*args.weight);
  if (!weight.streamed()) return LaunchMatmul(gpu.handle(), args, numerics_, memory);
  // As if it were there: a view of its place for now.
  std::byte* place = gpu.ring().Acquire(weight);
  const GpuPackedWeight there(weight.dtype(), weight.rows(), weight.cols(),
                              Buffer(place, weight.host_bytes(), nullptr));
  MatmulArgs call = args;
  call.weight = &there;
  LaunchMatmul(gpu.handle(), call, numerics_, memory);
  gpu.ring().Release();
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
