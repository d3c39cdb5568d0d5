// SPDX-License-Identifier: Apache-2.0
// libfairlead_host.so: the GPU backend on the SIMT executor, in both warp sizes.
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"

namespace fairlead {
namespace gpu_host32 {
absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view, int, const DeviceOptions&);
}
namespace gpu_host64 {
absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view, int, const DeviceOptions&);
}

namespace {

absl::StatusOr<std::unique_ptr<Device>> Open(std::string_view name, const DeviceOptions& options) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
    return absl::FailedPreconditionError("this processor lacks FMA or F16C instructions");
  }
#endif
  if (name == "host-simt:32") return gpu_host32::OpenGpuDevice(name, 0, options);
  if (name == "host-simt:64") return gpu_host64::OpenGpuDevice(name, 0, options);
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(name), "' is not one of host-simt:32, host-simt:64"));
}

}  // namespace
}  // namespace fairlead

extern "C" [[gnu::visibility("default")]] const fairlead::BackendApi fairlead_backend = {
    .id = FAIRLEAD_BACKEND_ID, .open = &fairlead::Open};
