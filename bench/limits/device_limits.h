// SPDX-License-Identifier: Apache-2.0
// What a device can do at most, as far as the Device interface can show it. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/limits/limits.h"
#include "kernels/device.h"

namespace fairlead::bench {

struct DeviceLimitOptions {
  size_t memory_bytes = size_t{1} << 30;  // of a tensor that is copied: no cache may hold it
  size_t transfer_bytes = size_t{256} << 20;
  int64_t matmul = 8192;  // rows, columns and tokens; a multiple of 256
  int repetitions = 5;
  absl::Duration time = absl::Milliseconds(20);  // of a repetition
  std::vector<DType> dtypes = {DType::kBF16, DType::kF16, DType::kQ8_0, DType::kQ4_0};
};

// "memory_copy"     GB/s read and written by GatherRows (isa: "GatherRows"), which copies rows, and
//                   by ActivateAndMul (isa: "ActivateAndMul"): the interface has no copy of device
//                   memory
// "matmul"          GFLOP/s of Matmul on a square problem, isa: the weight's dtype; those of
//                   `dtypes` that the device has
// "host_to_device"  GB/s from ordinary host memory: the interface hands out no pinned memory
// "device_to_host"  the other way
// kResourceExhausted when the memory for it is not there.
absl::StatusOr<std::vector<Limit>> MeasureDeviceLimits(Device& device,
                                                       const DeviceLimitOptions& options);

// The sizes of a rehearsal on a slow device.
DeviceLimitOptions TinyDeviceLimits();

}  // namespace fairlead::bench
