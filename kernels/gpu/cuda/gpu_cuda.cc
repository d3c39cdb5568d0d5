// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/gpu/cuda/nvml.h"
#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// What is known of the GPUs. Never destroyed: a thread may fail while the process ends.
struct Known {
  std::mutex mutex;
  std::map<int, std::string> names;
  std::map<int, std::unique_ptr<Nvml>> nvml;
  std::map<std::pair<int, const void*>, size_t> shared_bytes;  // a kernel may have, by device
};
Known& AllKnown() {
  static auto* const known = new Known;
  return *known;
}

// Of errors that no caller can do anything about: the GPU, the driver or a kernel failed. Later
// calls would fail as well, so the process ends and whoever supervises it starts another.
[[noreturn]] void Die(int device, const char* what, cudaError_t error) {
  std::string name;
  {
    const std::lock_guard<std::mutex> lock(AllKnown().mutex);
    const auto found = AllKnown().names.find(device);
    if (found != AllKnown().names.end()) name = absl::StrCat(" (", found->second, ")");
  }
  std::fprintf(stderr, "error: cuda:%d%s: %s failed: %s: %s\n", device, name.c_str(), what,
               cudaGetErrorName(error), cudaGetErrorString(error));
  std::fflush(stderr);
  std::abort();
}

void Check(int device, const char* what, cudaError_t error) {
  if (error != cudaSuccess) Die(device, what, error);
}

// At the end of the process the runtime may be gone before the last owner of memory is.
void CheckRelease(int device, const char* what, cudaError_t error) {
  if (error != cudaErrorCudartUnloading) Check(device, what, error);
}

// The runtime's current device is a thread's.
void Use(int device) { CheckRelease(device, "cudaSetDevice", cudaSetDevice(device)); }

// More dynamic shared memory than all GPUs have, a kernel must be allowed.
void AllowSharedMemory(const char* name, int device, const void* kernel, size_t bytes) {
  const std::lock_guard<std::mutex> lock(AllKnown().mutex);
  size_t& allowed = AllKnown().shared_bytes[{device, kernel}];
  if (bytes <= allowed) return;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) {
    std::fprintf(stderr, "error: cuda:%d: kernel %s asks for %zu bytes of shared memory: %s\n",
                 device, name, bytes, cudaGetErrorString(error));
    std::abort();
  }
  allowed = bytes;
}

// What was to be recorded runs without it. If the device is lost, the next call says so.
GraphHandle WithoutGraph(int device, const char* what, cudaError_t error) {
  cudaGetLastError();  // no later call reports it again
  std::fprintf(stderr, "warning: cuda:%d: a step runs without a graph: %s failed: %s: %s\n", device,
               what, cudaGetErrorName(error), cudaGetErrorString(error));
  return {.device = device, .graph = nullptr};
}

std::string Version(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

}  // namespace

GpuSummary DescribeDevice(int device) {
  Use(device);
  cudaDeviceProp properties;
  Check(device, "cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device));
  {
    const std::lock_guard<std::mutex> lock(AllKnown().mutex);
    AllKnown().names[device] = properties.name;
  }
  int driver = 0, runtime = 0;
  Check(device, "cudaDriverGetVersion", cudaDriverGetVersion(&driver));
  Check(device, "cudaRuntimeGetVersion", cudaRuntimeGetVersion(&runtime));
  const double gib = static_cast<double>(properties.totalGlobalMem) / (1 << 30);
  return {
      .description = absl::StrFormat(
          "%s, compute capability %d.%d, %d SMs, %.1f GiB%s, driver for CUDA %s, runtime %s",
          properties.name, properties.major, properties.minor, properties.multiProcessorCount, gib,
          properties.ECCEnabled != 0 ? " with ECC" : "", Version(driver), Version(runtime)),
      .memory_bytes = properties.totalGlobalMem};
}

size_t AvailableMemory(int device) {
  Use(device);
  size_t free = 0, total = 0;
  Check(device, "cudaMemGetInfo", cudaMemGetInfo(&free, &total));
  return free;
}

DeviceTelemetry ReadTelemetry(int device) {
  const Nvml* nvml = nullptr;
  {
    const std::lock_guard<std::mutex> lock(AllKnown().mutex);
    std::unique_ptr<Nvml>& known = AllKnown().nvml[device];
    if (known == nullptr) {
      char bus[32] = "";
      Check(device, "cudaDeviceGetPCIBusId", cudaDeviceGetPCIBusId(bus, sizeof(bus), device));
      known = std::make_unique<Nvml>("libnvidia-ml.so.1", bus);
    }
    nvml = known.get();
  }
  return nvml->Read();
}

void* AllocateMemory(int device, size_t bytes) {
  Use(device);
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // no later call reports it again
    return nullptr;
  }
  Check(device, "cudaMalloc", error);
  // On a stream of its own: no other work waits for it.
  Check(device, "cudaMemsetAsync", cudaMemsetAsync(data, 0, bytes, cudaStreamPerThread));
  Check(device, "cudaStreamSynchronize", cudaStreamSynchronize(cudaStreamPerThread));
  return data;
}

void ReleaseMemory(int device, void* data) {
  Use(device);
  CheckRelease(device, "cudaFree", cudaFree(data));
}

void* AllocatePinned(int device, size_t bytes) {
  Use(device);
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, std::max<size_t>(bytes, 1), cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  Check(device, "cudaHostAlloc", error);
  return data;
}

void ReleasePinned(int device, void* data) {
  Use(device);
  CheckRelease(device, "cudaFreeHost", cudaFreeHost(data));
}

StreamHandle CreateStream(int device) {
  Use(device);
  StreamHandle handle = {.device = device, .stream = nullptr};
  // Not ordered with the default stream.
  Check(device, "cudaStreamCreateWithFlags",
        cudaStreamCreateWithFlags(&handle.stream, cudaStreamNonBlocking));
  return handle;
}

void DestroyStream(const StreamHandle& stream) {
  Use(stream.device);
  CheckRelease(stream.device, "cudaStreamDestroy", cudaStreamDestroy(stream.stream));
}

void CopyToDevice(const StreamHandle& stream, void* device, const void* host, size_t bytes) {
  Use(stream.device);
  Check(stream.device, "cudaMemcpyAsync to the device",
        cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream.stream));
}

void CopyToHost(const StreamHandle& stream, void* host, const void* device, size_t bytes) {
  Use(stream.device);
  Check(stream.device, "cudaMemcpyAsync to the host",
        cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream.stream));
}

void Wait(const StreamHandle& stream) {
  Use(stream.device);
  CheckRelease(stream.device, "cudaStreamSynchronize", cudaStreamSynchronize(stream.stream));
}

EventHandle CreateEvent(int device, bool timed) {
  Use(device);
  EventHandle handle = {.device = device, .event = nullptr};
  Check(device, "cudaEventCreateWithFlags",
        cudaEventCreateWithFlags(&handle.event, timed ? cudaEventDefault : cudaEventDisableTiming));
  return handle;
}

void DestroyEvent(const EventHandle& event) {
  Use(event.device);
  CheckRelease(event.device, "cudaEventDestroy", cudaEventDestroy(event.event));
}

void Record(const StreamHandle& stream, const EventHandle& event) {
  Use(stream.device);
  Check(stream.device, "cudaEventRecord", cudaEventRecord(event.event, stream.stream));
}

void WaitFor(const StreamHandle& stream, const EventHandle& event) {
  Use(stream.device);
  Check(stream.device, "cudaStreamWaitEvent", cudaStreamWaitEvent(stream.stream, event.event, 0));
}

void WaitForEvent(const EventHandle& event) {
  Use(event.device);
  CheckRelease(event.device, "cudaEventSynchronize", cudaEventSynchronize(event.event));
}

double SecondsBetween(const EventHandle& from, const EventHandle& to) {
  Use(from.device);
  float milliseconds = 0;
  Check(from.device, "cudaEventElapsedTime",
        cudaEventElapsedTime(&milliseconds, from.event, to.event));
  return milliseconds / 1e3;
}

void BeginCapture(const StreamHandle& stream) {
  Use(stream.device);
  // Other threads may allocate meanwhile.
  Check(stream.device, "cudaStreamBeginCapture",
        cudaStreamBeginCapture(stream.stream, cudaStreamCaptureModeThreadLocal));
}

GraphHandle EndCapture(const StreamHandle& stream) {
  Use(stream.device);
  cudaGraph_t recorded = nullptr;
  GraphHandle handle = {.device = stream.device, .graph = nullptr};
  cudaError_t error = cudaStreamEndCapture(stream.stream, &recorded);
  if (error != cudaSuccess) return WithoutGraph(stream.device, "cudaStreamEndCapture", error);
  error = cudaGraphInstantiate(&handle.graph, recorded, 0);
  Check(stream.device, "cudaGraphDestroy", cudaGraphDestroy(recorded));
  if (error != cudaSuccess) return WithoutGraph(stream.device, "cudaGraphInstantiate", error);
  // Now, not by the first launch, for which too little memory would be fatal.
  error = cudaGraphUpload(handle.graph, stream.stream);
  if (error == cudaSuccess) return handle;
  DestroyGraph(handle);
  return WithoutGraph(stream.device, "cudaGraphUpload", error);
}

void LaunchGraph(const StreamHandle& stream, const GraphHandle& graph) {
  Use(stream.device);
  Check(stream.device, "cudaGraphLaunch", cudaGraphLaunch(graph.graph, stream.stream));
}

void DestroyGraph(const GraphHandle& graph) {
  Use(graph.device);
  CheckRelease(graph.device, "cudaGraphExecDestroy", cudaGraphExecDestroy(graph.graph));
}

void LaunchKernel(const char* name, const StreamHandle& stream, Grid grid, int threads,
                  size_t shared_bytes, const void* kernel, const void* args) {
  constexpr size_t kAlwaysAllowed = size_t{40} << 10;  // of 48 KiB, which hold static memory, too
  Use(stream.device);
  if (shared_bytes > kAlwaysAllowed) AllowSharedMemory(name, stream.device, kernel, shared_bytes);
  void* pointers[] = {const_cast<void*>(args)};  // it reads them
  const cudaError_t error =
      cudaLaunchKernel(kernel, dim3(grid.x, grid.y, grid.z), dim3(static_cast<unsigned>(threads)),
                       pointers, shared_bytes, stream.stream);
  if (error != cudaSuccess) Die(stream.device, absl::StrCat("launch of ", name).c_str(), error);
}

}  // namespace fairlead::FAIRLEAD_GPU
