// SPDX-License-Identifier: Apache-2.0
// The ops of a GPU device: each enqueues its kernels. Compiled once per target.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

class GpuOps final : public Ops {
 public:
  explicit GpuOps(DType kv_dtype) : kv_dtype_(kv_dtype) {}  // as the kernels
  FAIRLEAD_OVERRIDE_OPS

 private:
  const DType kv_dtype_;
};

}  // namespace fairlead::FAIRLEAD_GPU
