// SPDX-License-Identifier: Apache-2.0
// The ops of a GPU device: each enqueues its kernels. Compiled once per target.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

const StreamHandle& HandleOf(Stream& stream);  // of a GpuStream

class GpuOps final : public Ops {
 public:
  // kv_dtype: as the kernels.
  GpuOps(DType kv_dtype, Numerics numerics) : kv_dtype_(kv_dtype), numerics_(numerics) {}
  FAIRLEAD_OVERRIDE_OPS

 private:
  const DType kv_dtype_;
  const Numerics numerics_;
};

}  // namespace fairlead::FAIRLEAD_GPU
