// SPDX-License-Identifier: Apache-2.0
// The ops of the CPU device. They run at once, on the calling thread and the device's workers; the
// stream only says whose order it is. Thread-safe: calls wait for each other.
#pragma once

#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/experts.h"
#include "kernels/cpu/logprobs.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

class CpuOps final : public Ops {
 public:
  CpuOps(int threads, const KvFormat& kv_format, const Int8Mode& int8_mode)
      : kv_format_(kv_format), int8_mode_(int8_mode), pool_(threads) {}

  FAIRLEAD_OVERRIDE_OPS

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args,
                                                           Numerics numerics) const;

 private:
  const KvFormat kv_format_;
  const Int8Mode int8_mode_;
  // The pool takes one job at a time, and the scratch belongs to the job.
  mutable std::mutex mutex_;  // guards all below
  mutable ThreadPool pool_;
  mutable MatmulScratch matmul_scratch_;
  mutable ExpertScratch expert_scratch_;
  mutable AttentionScratch attention_scratch_;
  mutable SamplingScratch sampling_scratch_;
};

}  // namespace fairlead
