// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_info.h"
#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {

GpuSummary DescribeDevice(int) {
  return {.description = absl::StrCat("SIMT executor on ", CpuModelName(), ", warps of ", kWarp),
          .memory_bytes = TotalMemoryBytes()};
}

size_t AvailableMemory(int) { return FreeMemoryBytes(); }

}  // namespace fairlead::FAIRLEAD_GPU
