// SPDX-License-Identifier: Apache-2.0
// libfairlead_hip.so: the backend for AMD GPUs. Every kernel is in it twice, for GPUs with warps of
// 64 (gfx9) and of 32 (gfx11, gfx12); which is taken is a property of the GPU. Where the runtime,
// libamdhip64.so, is missing, the loader has said so before this runs.
#include <hip/hip_runtime.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/backend.h"

namespace fairlead {
#if defined(FAIRLEAD_HIP_WARP32)
namespace gpu_hip32 {
absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view, int, const DeviceOptions&);
}
#endif
#if defined(FAIRLEAD_HIP_WARP64)
namespace gpu_hip64 {
absl::StatusOr<std::unique_ptr<Device>> OpenGpuDevice(std::string_view, int, const DeviceOptions&);
}
#endif

namespace {

constexpr std::string_view kArchitectures = FAIRLEAD_HIP_ARCHITECTURES;  // "gfx942, gfx1100"

std::string Words(hipError_t error) {
  return absl::StrCat(hipGetErrorName(error), ", ", hipGetErrorString(error));
}

// Of "gfx942:sramecc+:xnack-", the part before the first colon; the code is for any of the others.
std::string ArchitectureOf(const hipDeviceProp_t& properties) {
  const std::string_view name = properties.gcnArchName;
  return std::string(name.substr(0, name.find(':')));
}

bool IsCompiled(std::string_view architecture) {
  for (const auto compiled :
       absl::StrSplit(absl::string_view(kArchitectures.data(), kArchitectures.size()), ", ")) {
    if (std::string_view(compiled.data(), compiled.size()) == architecture) return true;
  }
  return false;
}

// Makes the process a context on the GPU: the first thing that others can be in the way of.
absl::Status StartDevice(int index, const hipDeviceProp_t& properties) {
  hipError_t error = hipSetDevice(index);
  if (error == hipSuccess) error = hipFree(nullptr);
  hipStream_t stream = nullptr;
  if (error == hipSuccess) error = hipStreamCreateWithFlags(&stream, hipStreamNonBlocking);
  if (error == hipSuccess) error = hipStreamDestroy(stream);
  if (error == hipSuccess) return absl::OkStatus();
  static_cast<void>(hipGetLastError());  // no later call reports it again
  const std::string words = absl::StrCat(properties.name, " cannot be used: ", Words(error));
  if (error == hipErrorOutOfMemory) return absl::ResourceExhaustedError(words);
  return absl::FailedPreconditionError(words);
}

absl::StatusOr<std::unique_ptr<Device>> Open(std::string_view name, const DeviceOptions& options) {
  int index = 0, devices = 0;
  if (!name.starts_with("hip:") || !absl::SimpleAtoi(std::string(name.substr(4)), &index)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(name), "' is not one of hip:N"));
  }
  const hipError_t error = hipGetDeviceCount(&devices);
  if (error == hipErrorNoDevice || (error == hipSuccess && devices == 0)) {
    return absl::FailedPreconditionError("the driver shows no AMD GPU to this process");
  }
  if (error != hipSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("the driver answers ", Words(error)));
  }
  if (index < 0 || index >= devices) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPU ", index, " of ", devices, "; known are 0 to ", devices - 1));
  }
  hipDeviceProp_t properties;
  if (const hipError_t got = hipGetDeviceProperties(&properties, index); got != hipSuccess) {
    return absl::FailedPreconditionError(absl::StrCat("the driver answers ", Words(got)));
  }
  const std::string architecture = ArchitectureOf(properties);
  if (!IsCompiled(architecture)) {
    return absl::FailedPreconditionError(absl::StrCat(properties.name, " is ", architecture,
                                                      "; this build is for ",
                                                      std::string(kArchitectures)));
  }
  if (absl::Status status = StartDevice(index, properties); !status.ok()) return status;
#if defined(FAIRLEAD_HIP_WARP64)
  if (properties.warpSize == 64) return gpu_hip64::OpenGpuDevice(name, index, options);
#endif
#if defined(FAIRLEAD_HIP_WARP32)
  if (properties.warpSize == 32) return gpu_hip32::OpenGpuDevice(name, index, options);
#endif
  return absl::FailedPreconditionError(absl::StrCat(properties.name, " runs warps of ",
                                                    properties.warpSize,
                                                    "; this build has none for ", architecture));
}

}  // namespace
}  // namespace fairlead

extern "C" [[gnu::visibility("default")]] const fairlead::BackendApi fairlead_backend = {
    .id = FAIRLEAD_BACKEND_ID, .open = &fairlead::Open};
