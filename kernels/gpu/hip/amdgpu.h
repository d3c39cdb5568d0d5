// SPDX-License-Identifier: Apache-2.0
// What Linux' amdgpu driver tells of a GPU in sysfs (Documentation/gpu/amdgpu/thermal.rst and
// .../driver-misc.rst), which is also what AMD's management libraries read: power, clocks,
// temperature, memory errors. Thread-safe.
#pragma once

#include <string>

#include "kernels/telemetry.h"

namespace fairlead {

// folder: the GPU's, "/sys/bus/pci/devices/0000:03:00.0". What is not there is not told.
DeviceTelemetry ReadAmdgpu(const std::string& folder);

}  // namespace fairlead
