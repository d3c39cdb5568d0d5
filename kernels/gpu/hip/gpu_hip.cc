// SPDX-License-Identifier: Apache-2.0
// Memory, streams and launches of gpu_hip.h. HIP's current device is the calling thread's, so each
// function sets it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/hip/amdgpu.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// Of errors that no caller can do anything about: the GPU, the driver or a kernel failed. Later
// calls would fail as well, so the process ends and whoever supervises it starts another.
[[noreturn]] void Die(int device, const char* what, hipError_t error) {
  std::fprintf(stderr, "error: hip:%d: %s failed: %s: %s\n", device, what, hipGetErrorName(error),
               hipGetErrorString(error));
  std::fflush(stderr);
  std::abort();
}

void Check(int device, hipError_t error, const char* what) {
  if (error != hipSuccess) Die(device, what, error);
}

// At the end of the process the runtime may be gone before the last owner of memory is.
void CheckRelease(int device, hipError_t error, const char* what) {
  if (error != hipErrorDeinitialized) Check(device, error, what);
}

void Use(int device) { CheckRelease(device, hipSetDevice(device), "hipSetDevice"); }

// Whether there was memory; all other errors are the device's.
bool WasEnough(int device, hipError_t error, const char* what) {
  if (error != hipErrorOutOfMemory) {
    Check(device, error, what);
    return true;
  }
  static_cast<void>(hipGetLastError());  // or the next launch would report it
  return false;
}

// What was to be recorded runs without it. If the device is lost, the next call says so.
GraphHandle WithoutGraph(int device, const char* what, hipError_t error) {
  static_cast<void>(hipGetLastError());
  std::fprintf(stderr, "warning: hip:%d: a step runs without a graph: %s failed: %s: %s\n", device,
               what, hipGetErrorName(error), hipGetErrorString(error));
  return {.device = device, .graph = nullptr};
}

}  // namespace

GpuSummary DescribeDevice(int device) {
  hipDeviceProp_t properties;
  Check(device, hipGetDeviceProperties(&properties, device), "hipGetDeviceProperties");
  int runtime = 0;
  Check(device, hipRuntimeGetVersion(&runtime), "hipRuntimeGetVersion");
  // HIP's numbers are major * 10^7 + minor * 10^5 + patch.
  return {.description = absl::StrCat(properties.name, ", ", properties.gcnArchName, ", ",
                                      properties.multiProcessorCount, " compute units, ",
                                      properties.totalGlobalMem >> 20, " MiB, HIP ",
                                      runtime / 10000000, ".", runtime / 100000 % 100),
          .memory_bytes = properties.totalGlobalMem};
}

size_t AvailableMemory(int device) {
  Use(device);
  size_t free = 0, total = 0;
  Check(device, hipMemGetInfo(&free, &total), "hipMemGetInfo");
  return free;
}

DeviceTelemetry ReadTelemetry(int device) {
  char bus[32] = "";
  Check(device, hipDeviceGetPCIBusId(bus, sizeof(bus), device), "hipDeviceGetPCIBusId");
  return ReadAmdgpu(absl::StrCat("/sys/bus/pci/devices/", absl::AsciiStrToLower(bus)));
}

void* AllocateMemory(int device, size_t bytes) {
  Use(device);
  void* data = nullptr;
  // Of no bytes HIP gives null, which means that there is not enough.
  const size_t some = bytes > 0 ? bytes : 1;
  if (!WasEnough(device, hipMalloc(&data, some), "hipMalloc")) return nullptr;
  Check(device, hipMemset(data, 0, some), "hipMemset");
  // Our streams do not wait for the null stream, which the memset may still run on.
  Check(device, hipStreamSynchronize(nullptr), "hipStreamSynchronize");
  return data;
}

void ReleaseMemory(int device, void* data) {
  Use(device);
  CheckRelease(device, hipFree(data), "hipFree");
}

void* AllocatePinned(int device, size_t bytes) {
  Use(device);
  void* data = nullptr;
  const size_t some = bytes > 0 ? bytes : 1;
  const hipError_t error = hipHostMalloc(&data, some, hipHostMallocDefault);
  return WasEnough(device, error, "hipHostMalloc") ? data : nullptr;
}

void ReleasePinned(int device, void* data) {
  Use(device);
  CheckRelease(device, hipHostFree(data), "hipHostFree");
}

StreamHandle CreateStream(int device) {
  Use(device);
  StreamHandle handle = {.device = device, .stream = nullptr};
  Check(device, hipStreamCreateWithFlags(&handle.stream, hipStreamNonBlocking),
        "hipStreamCreateWithFlags");
  return handle;
}

void DestroyStream(const StreamHandle& stream) {
  Use(stream.device);
  CheckRelease(stream.device, hipStreamDestroy(stream.stream), "hipStreamDestroy");
}

void CopyToDevice(const StreamHandle& stream, void* device, const void* host, size_t bytes) {
  Use(stream.device);
  Check(stream.device, hipMemcpyAsync(device, host, bytes, hipMemcpyHostToDevice, stream.stream),
        "hipMemcpyAsync to the device");
}

void CopyToHost(const StreamHandle& stream, void* host, const void* device, size_t bytes) {
  Use(stream.device);
  Check(stream.device, hipMemcpyAsync(host, device, bytes, hipMemcpyDeviceToHost, stream.stream),
        "hipMemcpyAsync to the host");
}

void Wait(const StreamHandle& stream) {
  Use(stream.device);
  CheckRelease(stream.device, hipStreamSynchronize(stream.stream), "hipStreamSynchronize");
}

EventHandle CreateEvent(int device, bool timed) {
  Use(device);
  EventHandle handle = {.device = device, .event = nullptr};
  Check(device,
        hipEventCreateWithFlags(&handle.event, timed ? hipEventDefault : hipEventDisableTiming),
        "hipEventCreateWithFlags");
  return handle;
}

void DestroyEvent(const EventHandle& event) {
  Use(event.device);
  CheckRelease(event.device, hipEventDestroy(event.event), "hipEventDestroy");
}

void Record(const StreamHandle& stream, const EventHandle& event) {
  Use(stream.device);
  Check(stream.device, hipEventRecord(event.event, stream.stream), "hipEventRecord");
}

void WaitFor(const StreamHandle& stream, const EventHandle& event) {
  Use(stream.device);
  Check(stream.device, hipStreamWaitEvent(stream.stream, event.event, 0), "hipStreamWaitEvent");
}

void WaitForEvent(const EventHandle& event) {
  Use(event.device);
  CheckRelease(event.device, hipEventSynchronize(event.event), "hipEventSynchronize");
}

double SecondsBetween(const EventHandle& from, const EventHandle& to) {
  Use(from.device);
  float milliseconds = 0;
  Check(from.device, hipEventElapsedTime(&milliseconds, from.event, to.event),
        "hipEventElapsedTime");
  return milliseconds / 1e3;
}

void BeginCapture(const StreamHandle& stream) {
  Use(stream.device);
  // Other threads may allocate meanwhile.
  Check(stream.device, hipStreamBeginCapture(stream.stream, hipStreamCaptureModeThreadLocal),
        "hipStreamBeginCapture");
}

GraphHandle EndCapture(const StreamHandle& stream) {
  Use(stream.device);
  hipGraph_t recorded = nullptr;
  GraphHandle handle = {.device = stream.device, .graph = nullptr};
  hipError_t error = hipStreamEndCapture(stream.stream, &recorded);
  if (error != hipSuccess) return WithoutGraph(stream.device, "hipStreamEndCapture", error);
  error = hipGraphInstantiate(&handle.graph, recorded, nullptr, nullptr, 0);
  Check(stream.device, hipGraphDestroy(recorded), "hipGraphDestroy");
  if (error != hipSuccess) return WithoutGraph(stream.device, "hipGraphInstantiate", error);
  // Now, not by the first launch, for which too little memory would be fatal.
  error = hipGraphUpload(handle.graph, stream.stream);
  if (error == hipSuccess) return handle;
  DestroyGraph(handle);
  return WithoutGraph(stream.device, "hipGraphUpload", error);
}

void LaunchGraph(const StreamHandle& stream, const GraphHandle& graph) {
  Use(stream.device);
  Check(stream.device, hipGraphLaunch(graph.graph, stream.stream), "hipGraphLaunch");
}

void DestroyGraph(const GraphHandle& graph) {
  Use(graph.device);
  CheckRelease(graph.device, hipGraphExecDestroy(graph.graph), "hipGraphExecDestroy");
}

void LaunchKernel(const char* name, const StreamHandle& stream, Grid grid, int threads,
                  size_t shared_bytes, const void* kernel, const void* args) {
  FAIRLEAD_CHECK_MSG(threads <= kMaxBlockThreads, name);
  Use(stream.device);
  void* arguments[] = {const_cast<void*>(args)};  // it reads them
  const hipError_t error =
      hipLaunchKernel(kernel, dim3(grid.x, grid.y, grid.z), dim3(static_cast<unsigned>(threads)),
                      arguments, shared_bytes, stream.stream);
  if (error != hipSuccess) Die(stream.device, absl::StrCat("launch of ", name).c_str(), error);
}

}  // namespace fairlead::FAIRLEAD_GPU
