// SPDX-License-Identifier: Apache-2.0
// The CPU as a Device: memory is the process's own, a stream runs everything at once.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace fairlead {

// INVALID_ARGUMENT: a number of threads that is not 0..1024.
absl::StatusOr<std::unique_ptr<Device>> OpenCpuDevice(const DeviceOptions& options);

}  // namespace fairlead
