// SPDX-License-Identifier: Apache-2.0
// The ops of a GPU device: each enqueues its kernels. Compiled once per target.
#pragma once

#include "kernels/gpu/gpu.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

class GpuStream final : public Stream {
 public:
  explicit GpuStream(int device) : handle_(CreateStream(device)) {}
  ~GpuStream() override { DestroyStream(handle_); }
  void CopyToDevice(void* device, const void* host, size_t bytes) override;
  void CopyToHost(void* host, const void* device, size_t bytes) override;
  void Wait() override;
  const StreamHandle& handle() const { return handle_; }

 private:
  StreamHandle handle_;
};

class GpuOps final : public Ops {
 public:
  explicit GpuOps(DType kv_dtype) : kv_dtype_(kv_dtype) {}  // kF32 or kF16
  FAIRLEAD_OVERRIDE_OPS

 private:
  const DType kv_dtype_;
};

}  // namespace fairlead::FAIRLEAD_GPU
