// SPDX-License-Identifier: Apache-2.0
// Calls of the ops that have files of their own; rows.cu defines the others.
#include "kernels/gpu/ops_gpu.h"

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/packed_weight.h"
#include "kernels/gpu/stream_gpu.h"

namespace fairlead::FAIRLEAD_GPU {

namespace {

// launch: of a product, whose weight may be in host memory.
template <typename Args>
void LaunchWithWeight(Stream& stream, const Args& args, Numerics numerics,
                      void (*launch)(const StreamHandle&, const Args&, Numerics,
                                     const MatmulMemory&)) {
  auto& gpu = static_cast<GpuStream&>(stream);
  const MatmulMemory memory = {gpu.scratch().data(), gpu.scratch().bytes()};
  const auto& weight = static_cast<const GpuPackedWeight&>(*args.weight);
  if (!weight.streamed()) return launch(gpu.handle(), args, numerics, memory);
  // As if it were there: a view of its place for now.
  std::byte* place = gpu.ring().Acquire(weight);
  const GpuPackedWeight there(weight.dtype(), weight.rows(), weight.cols(), weight.groups(),
                              Buffer(place, weight.host_bytes(), nullptr));
  Args call = args;
  call.weight = &there;
  launch(gpu.handle(), call, numerics, memory);
  gpu.ring().Release();
}

}  // namespace

const StreamHandle& HandleOf(Stream& stream) { return static_cast<GpuStream&>(stream).handle(); }

void GpuOps::Embed(Stream& stream, const EmbedArgs& args) const {
  LaunchEmbed(HandleOf(stream), args);
}

void GpuOps::Matmul(Stream& stream, const MatmulArgs& args) const {
  LaunchWithWeight(stream, args, numerics_, LaunchMatmul);
}

void GpuOps::Route(Stream& stream, const RouteArgs& args) const {
  LaunchRoute(HandleOf(stream), args);
}

void GpuOps::GroupedMatmul(Stream& stream, const GroupedMatmulArgs& args) const {
  LaunchWithWeight(stream, args, numerics_, LaunchGroupedMatmul);
}

void GpuOps::CombineExperts(Stream& stream, const CombineExpertsArgs& args) const {
  LaunchCombineExperts(HandleOf(stream), args);
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
