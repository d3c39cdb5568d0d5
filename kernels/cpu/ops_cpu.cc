// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/ops_cpu.h"

#include <memory>
#include <mutex>

#include "kernels/cpu/elementwise.h"

namespace fairlead {

void CpuOps::Embed(Stream&, const EmbedArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuEmbed(pool_, args);
}

void CpuOps::RmsNorm(Stream&, const RmsNormArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuRmsNorm(pool_, args);
}

void CpuOps::Matmul(Stream&, const MatmulArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuMatmul(pool_, int8_mode_, args, matmul_scratch_);
}

void CpuOps::RopeAndWriteKv(Stream&, const RopeAndWriteKvArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuRopeAndWriteKv(pool_, args, kv_dtype_);
}

void CpuOps::Attention(Stream&, const AttentionArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuAttention(pool_, args, kv_dtype_, attention_scratch_);
}

void CpuOps::SiluAndMul(Stream&, const SiluAndMulArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuSiluAndMul(pool_, args);
}

void CpuOps::GatherRows(Stream&, const GatherRowsArgs& args) const {
  const std::lock_guard lock(mutex_);
  CpuGatherRows(pool_, args);
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
