// SPDX-License-Identifier: Apache-2.0
// What the GPU kernels are written in. The sources are for CUDA, HIP and the SIMT executor on CPU
// threads; each has a header that gives the words below, and nothing else names a vendor.
// Everything that is compiled per target lives in namespace fairlead::FAIRLEAD_GPU.
//
// Kernels:
//   GPU_KERNEL void Name(Args args)   a kernel: one struct of plain values and pointers, by value
//   GPU_DEVICE T Name(...)            a function that kernels call; GPU_METHOD: of a class
//   GPU_BOTH T Name(...)              a member function that hosts call, too
//   GPU_SHARED(T, name, count);       an array in the block's shared memory, not initialised
//   GPU_DYNAMIC_SHARED(T, name);      a pointer to what the launch asked for, 128-byte aligned
//   kWarp, kAllLanes                  lanes of a warp, 32 or 64; the mask of all of them
//   ThreadX() BlockThreads() BlockX() BlockY() SyncThreads() SyncWarp() Shfl() Ballot()
//
// Hosts, on any thread. `device` is the index of a GPU. A fault of the device, in any of them, ends
// the process with one line that names it.
//   GpuSummary DescribeDevice(device);  size_t AvailableMemory(device): bytes that are free
//   DeviceTelemetry ReadTelemetry(device)
//   void* AllocateMemory(device, bytes): zeroed, 256-byte aligned; null: there is not enough
//   void ReleaseMemory(device, data)
//   void* AllocatePinned(device, bytes): host memory that the device copies by itself; or null
//   void ReleasePinned(device, data)
//   StreamHandle CreateStream(device): work in order, of one thread at a time
//   void DestroyStream(stream)
//   void CopyToDevice(stream, device, host, bytes)
//   void CopyToHost(stream, host, device, bytes)
//     as Stream's; at once where the host memory is not pinned and the device needs that
//   void Wait(stream)
//   EventHandle CreateEvent(device, timed = false): a point in a stream's work
//   void DestroyEvent(event)
//   void Record(stream, event): after all that the stream has so far
//   void WaitFor(stream, event): what the stream gets from now on begins after it
//   void WaitForEvent(event): the host waits for it
//   double SecondsBetween(from, to): two timed events that have passed; below 0: nobody knows
//   void BeginCapture(stream): launches are recorded, not run, until
//   GraphHandle EndCapture(stream): empty() when there is no memory for it
//   void LaunchGraph(stream, graph)
//   void DestroyGraph(graph)
//   GPU_LAUNCH(stream, grid, threads, shared_bytes, Kernel, args)
//
// Compile with contraction off (-ffp-contract=off, nvcc --fmad=false): fmaf says where a product
// and a sum are one operation. nvcc also wants --expt-relaxed-constexpr. The SIMT executor and HIP
// want FAIRLEAD_GPU_WARP, 32 or 64: HIP's compiler tells its host code nothing of the GPU's.
//
// Blocks have one dimension of threads, a multiple of kWarp, at most 512 (HIP). Exchanges within a
// warp are of all its lanes: no lane may have ended or branched away (a mask is a parameter only to
// show what breaks on warps of 64).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/telemetry.h"

namespace fairlead {

struct Grid {  // of a launch, in blocks
  unsigned x = 1, y = 1, z = 1;
};

using LaneMask = uint64_t;  // bit i: lane i

struct GpuSummary {
  std::string description;  // what a person wants to know of it: model, memory, versions
  size_t memory_bytes = 0;  // total
};

}  // namespace fairlead

#if defined(__CUDACC__)
#include "kernels/gpu/cuda/gpu_cuda.h"
#elif defined(__HIPCC__)
#include "kernels/gpu/hip/gpu_hip.h"
#else
#include "kernels/gpu/host/gpu_host.h"
#endif

// GPU_LAUNCH(stream, grid, threads, shared_bytes, Kernel, args)
#define GPU_LAUNCH(stream, grid, threads, shared_bytes, kernel, args) \
  LaunchNamed(#kernel, stream, grid, threads, shared_bytes, &kernel, args)

namespace fairlead::FAIRLEAD_GPU {

#if defined(__CUDACC__) || defined(__HIPCC__)
GpuSummary DescribeDevice(int device);
size_t AvailableMemory(int device);
DeviceTelemetry ReadTelemetry(int device);
void* AllocateMemory(int device, size_t bytes);
void ReleaseMemory(int device, void* data);
void* AllocatePinned(int device, size_t bytes);
void ReleasePinned(int device, void* data);
StreamHandle CreateStream(int device);
void DestroyStream(const StreamHandle& stream);
void CopyToDevice(const StreamHandle& stream, void* device, const void* host, size_t bytes);
void CopyToHost(const StreamHandle& stream, void* host, const void* device, size_t bytes);
void Wait(const StreamHandle& stream);
EventHandle CreateEvent(int device, bool timed = false);
void DestroyEvent(const EventHandle& event);
void Record(const StreamHandle& stream, const EventHandle& event);
void WaitFor(const StreamHandle& stream, const EventHandle& event);
void WaitForEvent(const EventHandle& event);
double SecondsBetween(const EventHandle& from, const EventHandle& to);
void BeginCapture(const StreamHandle& stream);
GraphHandle EndCapture(const StreamHandle& stream);
void LaunchGraph(const StreamHandle& stream, const GraphHandle& graph);
void DestroyGraph(const GraphHandle& graph);
// `args`: the kernel's one argument. `name` is for messages.
void LaunchKernel(const char* name, const StreamHandle& stream, Grid grid, int threads,
                  size_t shared_bytes, const void* kernel, const void* args);

template <typename Args>
void LaunchNamed(const char* name, const StreamHandle& stream, Grid grid, int threads,
                 size_t shared_bytes, void (*kernel)(Args), const Args& args) {
  LaunchKernel(name, stream, grid, threads, shared_bytes, reinterpret_cast<const void*>(kernel),
               &args);
}
#endif

GPU_DEVICE int Min(int a, int b) { return a < b ? a : b; }
GPU_DEVICE int LaneId() { return ThreadX() % kWarp; }
GPU_DEVICE int WarpId() { return ThreadX() / kWarp; }

// FAIRLEAD_GPU_SITE: where a kernel calls, for the messages of the SIMT executor.
template <typename T>
GPU_DEVICE T ShflXor(T value, int mask FAIRLEAD_GPU_SITE) {
  return Shfl(value, LaneId() ^ mask, kAllLanes FAIRLEAD_GPU_HERE);
}

// Of all lanes, by a butterfly: the same bits in each.
template <typename T>
GPU_DEVICE T WarpSum(T value FAIRLEAD_GPU_SITE) {
  for (int i = kWarp / 2; i > 0; i /= 2) value += ShflXor(value, i FAIRLEAD_GPU_HERE);
  return value;
}
template <typename T>
GPU_DEVICE T WarpMax(T value FAIRLEAD_GPU_SITE) {
  for (int i = kWarp / 2; i > 0; i /= 2) {
    const T other = ShflXor(value, i FAIRLEAD_GPU_HERE);
    value = other > value ? other : value;
  }
  return value;
}

// Of all threads of the block, the same bits in each; its size alone decides the order. kThreads:
// the block's. All threads must come here, and it is a barrier.
template <int kThreads, typename T>
GPU_DEVICE T BlockSum(T value FAIRLEAD_GPU_SITE) {
  static_assert(kThreads % kWarp == 0);
  constexpr int kWarps = kThreads / kWarp;
  GPU_SHARED(T, sums, kWarps);
  value = WarpSum(value FAIRLEAD_GPU_HERE);
  SyncThreads(FAIRLEAD_GPU_ONLY_HERE);  // the sums of an earlier call are read
  if (LaneId() == 0) sums[WarpId()] = value;
  SyncThreads(FAIRLEAD_GPU_ONLY_HERE);
  T sum = sums[0];
  for (int i = 1; i < kWarps; ++i) sum += sums[i];
  return sum;
}
template <int kThreads, typename T>
GPU_DEVICE T BlockMax(T value FAIRLEAD_GPU_SITE) {
  static_assert(kThreads % kWarp == 0);
  constexpr int kWarps = kThreads / kWarp;
  GPU_SHARED(T, largest, kWarps);
  value = WarpMax(value FAIRLEAD_GPU_HERE);
  SyncThreads(FAIRLEAD_GPU_ONLY_HERE);
  if (LaneId() == 0) largest[WarpId()] = value;
  SyncThreads(FAIRLEAD_GPU_ONLY_HERE);
  T max = largest[0];
  for (int i = 1; i < kWarps; ++i) max = largest[i] > max ? largest[i] : max;
  return max;
}

}  // namespace fairlead::FAIRLEAD_GPU
