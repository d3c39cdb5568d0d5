// SPDX-License-Identifier: Apache-2.0
// libfairlead_cuda.so: the GPU backend on NVIDIA's.
#include <charconv>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/gpu/cuda/driver.h"
#include "kernels/gpu/device_gpu.h"

namespace fairlead::gpu_cuda {
namespace {

constexpr CudaBuild kBuild = {.version = CUDART_VERSION, .code = FAIRLEAD_CUDA_CODE};

// Makes the process a context on the GPU: the first thing that others can be in the way of.
absl::Status StartDevice(int index, const CudaGpu& gpu) {
  cudaError_t error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaFree(nullptr);
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // no later call reports it again
  const std::string words = absl::StrCat(gpu.name, " cannot be used: ", cudaGetErrorName(error),
                                         ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(words);
  if (error == cudaErrorDevicesUnavailable) {
    return absl::ResourceExhaustedError(absl::StrCat(
        words, " (another process may have it for itself: nvidia-smi shows the compute mode)"));
  }
  return absl::FailedPreconditionError(words);
}

absl::StatusOr<std::unique_ptr<Device>> Open(std::string_view name, const DeviceOptions& options) {
  constexpr std::string_view kPrefix = "cuda:";
  int index = -1;
  if (name.starts_with(kPrefix)) {
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), index);
  }
  if (index < 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", std::string(name), "' is not cuda:N"));
  }
  const absl::StatusOr<CudaGpu> gpu = FindCudaGpu("libcuda.so.1", index, kBuild);
  if (!gpu.ok()) return gpu.status();
  if (absl::Status status = StartDevice(index, *gpu); !status.ok()) return status;
  return OpenGpuDevice(name, index, options);
}

}  // namespace
}  // namespace fairlead::gpu_cuda

extern "C" [[gnu::visibility("default")]] const fairlead::BackendApi fairlead_backend = {
    .id = FAIRLEAD_BACKEND_ID, .open = &fairlead::gpu_cuda::Open};
