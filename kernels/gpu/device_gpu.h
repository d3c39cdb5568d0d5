// SPDX-License-Identifier: Apache-2.0
// A GPU as a Device. Compiled once per target.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {

// `name` is DeviceInfo::name, `index` that of the GPU. kInvalidArgument: a dtype of the KV cache
// that there is no kernel for. options.threads: of the host, for loading weights.
absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view name, int index,
                                                      const DeviceOptions& options);

}  // namespace fairlead::FAIRLEAD_GPU
