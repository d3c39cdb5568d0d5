// SPDX-License-Identifier: Apache-2.0
// A made-up libcudart: device memory is the host's, copies happen at once, and kernels do nothing.
// Settings: memory (bytes of a device), set_device (what cudaSetDevice gives), fail_launch: the
// number of the launch that finds the device lost, fail_wait: so many launches, and the next wait
// finds it lost; fail_graphs: 1, 2, 3: no graph can be captured,
// instantiated, uploaded. gate: a FIFO that such a call opens
// first, so it fails when somebody writes there.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "tests/gpu/cuda/fake_settings.h"

#define FAKE extern "C" [[gnu::visibility("default")]]

namespace fake = fairlead::fake_cuda;

namespace {

std::mutex g_mutex;
std::map<void*, size_t>* g_allocations = new std::map<void*, size_t>;
size_t g_used = 0;
std::atomic<int64_t> g_launches{0};
thread_local cudaError_t t_last = cudaSuccess;
thread_local int64_t t_captured = -1;  // launches of the graph that is being recorded; -1: none is

size_t TotalMemory() { return static_cast<size_t>(fake::Setting("memory", int64_t{4} << 30)); }

cudaError_t LostAfter(const char* setting, int64_t launches) {
  if (launches < fake::Setting(setting, INT64_MAX)) return cudaSuccess;
  close(open(fake::TextSetting("gate").c_str(), O_RDONLY));
  return cudaErrorIllegalAddress;
}

cudaError_t Launched() {
  if (t_captured < 0) return LostAfter("fail_launch", ++g_launches);
  ++t_captured;
  return cudaSuccess;
}

bool GraphFails(int at) { return fake::Setting("fail_graphs", 0) == at; }

}  // namespace

FAKE cudaError_t cudaSetDevice(int) {
  return static_cast<cudaError_t>(fake::Setting("set_device", cudaSuccess));
}
FAKE cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof(*properties));
  std::snprintf(properties->name, sizeof(properties->name), "%s", fake::kName);
  properties->totalGlobalMem = TotalMemory();
  properties->major = fake::Capability() / 10;
  properties->minor = fake::Capability() % 10;
  properties->multiProcessorCount = 1;
  return cudaSuccess;
}
FAKE cudaError_t cudaDeviceGetPCIBusId(char* bus, int bytes, int device) {
  std::snprintf(bus, static_cast<size_t>(bytes), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}
FAKE cudaError_t cudaDriverGetVersion(int* version) {
  *version = fake::DriverVersion();
  return cudaSuccess;
}
FAKE cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
FAKE const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorDevicesUnavailable:
      return "cudaErrorDevicesUnavailable";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    default:
      return "unrecognized error code";
  }
}
FAKE const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                          : "made-up words";
}
FAKE cudaError_t cudaGetLastError() { return std::exchange(t_last, cudaSuccess); }

FAKE cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  *total = TotalMemory();
  *free = *total - g_used;
  return cudaSuccess;
}
FAKE cudaError_t cudaMalloc(void** data, size_t bytes) {
  constexpr size_t kPage = size_t{2} << 20;  // of which a device's memory is handed out
  bytes = (bytes + kPage - 1) / kPage * kPage;
  const std::lock_guard<std::mutex> lock(g_mutex);
  if (bytes > TotalMemory() - g_used) return t_last = cudaErrorMemoryAllocation;
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  g_used += bytes;
  (*g_allocations)[*data] = bytes;
  return cudaSuccess;
}
FAKE cudaError_t cudaFree(void* data) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  const auto found = g_allocations->find(data);
  if (found == g_allocations->end()) return data == nullptr ? cudaSuccess : cudaErrorInvalidValue;
  g_used -= found->second;
  g_allocations->erase(found);
  std::free(data);
  return cudaSuccess;
}
FAKE cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  *data = std::malloc(bytes);
  return cudaSuccess;
}
FAKE cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}
FAKE cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
FAKE cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                 cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

FAKE cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static std::atomic<uintptr_t> next{1000};
  *stream = reinterpret_cast<cudaStream_t>(++next);
  return cudaSuccess;
}
FAKE cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
FAKE cudaError_t cudaStreamSynchronize(cudaStream_t) { return LostAfter("fail_wait", g_launches); }
FAKE cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  static std::atomic<uintptr_t> next{1};
  *event = reinterpret_cast<cudaEvent_t>(++next);
  return cudaSuccess;
}
FAKE cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
FAKE cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
FAKE cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
FAKE cudaError_t cudaEventSynchronize(cudaEvent_t) { return LostAfter("fail_wait", g_launches); }
FAKE cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0.125f;
  return cudaSuccess;
}

// A graph is the number of its launches.
FAKE cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  t_captured = 0;
  return cudaSuccess;
}
FAKE cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(t_captured, -1) + 1);
  if (GraphFails(1)) return t_last = cudaErrorStreamCaptureInvalidated;
  return cudaSuccess;
}
FAKE cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                      unsigned long long) {  // NOLINT(runtime/int): CUDA's type
  if (GraphFails(2)) return t_last = cudaErrorMemoryAllocation;
  *exec = reinterpret_cast<cudaGraphExec_t>(graph);
  return cudaSuccess;
}
FAKE cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
FAKE cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return t_last = GraphFails(3) ? cudaErrorMemoryAllocation : cudaSuccess;
}
FAKE cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  return LostAfter("fail_launch", g_launches += reinterpret_cast<int64_t>(exec) - 1);
}
FAKE cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
FAKE cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
FAKE cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  return Launched();
}

// What nvcc's own code calls: kernels are registered and never found again.
FAKE void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
FAKE void __cudaRegisterFatBinaryEnd(void**) {}
FAKE void __cudaUnregisterFatBinary(void**) {}
FAKE void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*,
                                 dim3*, dim3*, int*) {}
FAKE unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, CUstream_st*) { return 0; }
FAKE cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
FAKE cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void*) {
  *kernel = nullptr;
  return cudaSuccess;
}
FAKE cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  return Launched();
}
