// SPDX-License-Identifier: Apache-2.0
// Calls of the ops that have files of their own; elementwise.cc defines the others.
#include "kernels/cpu/ops_cpu.h"

#include <memory>
#include <mutex>

namespace fairlead {

void CpuOps::Embed(Stream&, const EmbedArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuEmbed(pool_, args);
}

void CpuOps::Matmul(Stream&, const MatmulArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuMatmul(pool_, int8_mode_, args, matmul_scratch_);
}

void CpuOps::Attention(Stream&, const AttentionArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuAttention(pool_, args, kv_format_, attention_scratch_);
}

void CpuOps::Route(Stream&, const RouteArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuRoute(pool_, args);
}

void CpuOps::GroupedMatmul(Stream&, const GroupedMatmulArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuGroupedMatmul(pool_, int8_mode_, args, matmul_scratch_, expert_scratch_);
}

void CpuOps::CombineExperts(Stream&, const CombineExpertsArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuCombineExperts(pool_, args);
}

void CpuOps::Sample(Stream&, const SampleArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuSample(pool_, args, sampling_scratch_);
}

void CpuOps::Logprobs(Stream&, const LogprobsArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuLogprobs(pool_, args, sampling_scratch_);
}

absl::StatusOr<std::unique_ptr<PackedWeight>> CpuOps::PackWeight(const PackWeightArgs& args,
                                                                 Numerics numerics) const {
  const std::lock_guard lock(mutex_);
  return PackCpuWeight(args, numerics, pool_);
}

}  // namespace fairlead
