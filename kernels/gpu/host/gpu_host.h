// SPDX-License-Identifier: Apache-2.0
// The words of gpu.h, which alone includes this, on the SIMT executor (simt.h). A build defines
// FAIRLEAD_GPU_WARP, and every source is compiled for both sizes. There is one device, 0.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/gpu/host/host_stream.h"
#include "kernels/gpu/host/memory.h"
#include "kernels/gpu/host/simt.h"

#if FAIRLEAD_GPU_WARP != 32 && FAIRLEAD_GPU_WARP != 64
#error "compile this for CUDA or HIP, or define FAIRLEAD_GPU_WARP as 32 or 64"
#endif

#define FAIRLEAD_GPU_JOIN(a, b) a##b
#define FAIRLEAD_GPU_NAME(warp) FAIRLEAD_GPU_JOIN(gpu_host, warp)
#define FAIRLEAD_GPU FAIRLEAD_GPU_NAME(FAIRLEAD_GPU_WARP)
#define GPU_KERNEL static
#define GPU_DEVICE inline
#define GPU_METHOD
#define GPU_BOTH
#define GPU_SHARED(type, name, count)        \
  static const char fairlead_key_##name = 0; \
  type* const name = static_cast<type*>(     \
      simt::SharedVariable(&fairlead_key_##name, sizeof(type) * (count), alignof(type)))
#define GPU_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(simt::DynamicShared())
// Where a kernel calls: what a fault's message names.
#define FAIRLEAD_GPU_SITE , const std::source_location& where = std::source_location::current()
#define FAIRLEAD_GPU_ONLY_SITE const std::source_location& where = std::source_location::current()
#define FAIRLEAD_GPU_HERE , where
#define FAIRLEAD_GPU_ONLY_HERE where

namespace fairlead::FAIRLEAD_GPU {

constexpr int kWarp = FAIRLEAD_GPU_WARP;
constexpr LaneMask kAllLanes = ~LaneMask{0} >> (64 - kWarp);

GPU_DEVICE int ThreadX() { return simt::ThreadIndex(); }
GPU_DEVICE int BlockThreads() { return simt::BlockThreads(); }
GPU_DEVICE unsigned BlockX() { return simt::BlockIndex().x; }
GPU_DEVICE unsigned BlockY() { return simt::BlockIndex().y; }

GPU_DEVICE void SyncThreads(FAIRLEAD_GPU_ONLY_SITE) { simt::SyncThreads(where); }
GPU_DEVICE void SyncWarp(FAIRLEAD_GPU_ONLY_SITE) { simt::SyncWarp(kAllLanes, where); }

// The value of lane `from`.
template <typename T>
GPU_DEVICE T Shfl(T value, int from, LaneMask mask = kAllLanes FAIRLEAD_GPU_SITE) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = simt::Exchange(bits, from, mask, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
GPU_DEVICE LaneMask Ballot(bool predicate FAIRLEAD_GPU_SITE) {
  return simt::Ballot(predicate, kAllLanes, where);
}

struct StreamHandle {
  std::shared_ptr<simt::HostStream> stream =
      std::make_shared<simt::HostStream>(simt::Pace::kAtOnce);
};
struct EventHandle {
  std::shared_ptr<simt::HostEvent> event;
};
using Launches = std::vector<std::function<void()>>;
struct GraphHandle {
  std::shared_ptr<const Launches> launches;
  bool empty() const { return launches == nullptr; }
};
// What the calling thread's stream records; null: it runs.
inline thread_local std::shared_ptr<Launches> recording;

GpuSummary DescribeDevice(int device);  // gpu_host.cc, as the next
size_t AvailableMemory(int device);
inline DeviceTelemetry ReadTelemetry(int) { return {}; }
inline void* AllocateMemory(int, size_t bytes) { return simt::AllocateGlobal(bytes); }
inline void ReleaseMemory(int, void* data) { simt::FreeGlobal(data); }
inline void* AllocatePinned(int, size_t bytes) { return simt::Pinned().Allocate(bytes); }
inline void ReleasePinned(int, void* data) { simt::Pinned().Release(data); }
inline StreamHandle CreateStream(int) { return {std::make_shared<simt::HostStream>(simt::g_pace)}; }
inline void DestroyStream(const StreamHandle&) {}
inline void Wait(const StreamHandle& stream) {
  FAIRLEAD_CHECK(recording == nullptr);
  stream.stream->RunUntil(stream.stream->pushed());
}
inline void CopyToDevice(const StreamHandle& stream, void* device, const void* host, size_t bytes) {
  FAIRLEAD_CHECK(recording == nullptr);
  if (simt::Pinned().Holds(host)) {
    return stream.stream->Push([=] { std::memcpy(device, host, bytes); });
  }
  const auto* const begin = static_cast<const std::byte*>(host);
  stream.stream->Push([device, read = std::vector<std::byte>(begin, begin + bytes)] {
    std::memcpy(device, read.data(), read.size());
  });
}
inline void CopyToHost(const StreamHandle& stream, void* host, const void* device, size_t bytes) {
  FAIRLEAD_CHECK(recording == nullptr);
  stream.stream->Push([=] { std::memcpy(host, device, bytes); });
  if (!simt::Pinned().Holds(host)) Wait(stream);
}
inline EventHandle CreateEvent(int, bool = false) { return {std::make_shared<simt::HostEvent>()}; }
inline void DestroyEvent(const EventHandle&) {}
inline void Record(const StreamHandle& stream, const EventHandle& event) {
  FAIRLEAD_CHECK(recording == nullptr);
  *event.event = {stream.stream, stream.stream->pushed()};
}
inline void WaitFor(const StreamHandle& stream, const EventHandle& event) {
  FAIRLEAD_CHECK(recording == nullptr);
  if (event.event->stream != nullptr) {
    stream.stream->PushWait(event.event->stream, event.event->tasks);
  }
}
inline void WaitForEvent(const EventHandle& event) {
  if (event.event->stream != nullptr) event.event->stream->RunUntil(event.event->tasks);
}
inline double SecondsBetween(const EventHandle&, const EventHandle&) { return -1; }
inline void BeginCapture(const StreamHandle&) {
  FAIRLEAD_CHECK(recording == nullptr);
  recording = std::make_shared<Launches>();
}
inline GraphHandle EndCapture(const StreamHandle&) { return {std::exchange(recording, nullptr)}; }
inline void LaunchGraph(const StreamHandle& stream, const GraphHandle& graph) {
  stream.stream->Push([launches = graph.launches] {
    for (const auto& launch : *launches) launch();
  });
}
inline void DestroyGraph(const GraphHandle&) {}

// The launch, once it is there for all threads of the grid to read.
template <typename Args>
struct KernelCall {
  void (*kernel)(Args);
  Args args;
  void operator()() const { kernel(args); }
};

// A fault ends the process: it is a bug of ours, like an illegal access on a GPU.
template <typename Args>
void RunGrid(const char* name, Grid grid, int threads, size_t shared_bytes, void (*kernel)(Args),
             const Args& args) {
  const KernelCall<Args> call{kernel, args};
  const simt::GlobalRange parameters(&call, sizeof(call));
  const auto fault = simt::TryLaunch({.kernel = name,
                                      .grid = {grid.x, grid.y, grid.z},
                                      .threads = threads,
                                      .shared_bytes = shared_bytes,
                                      .warp = kWarp},
                                     call);
  if (fault) simt::Die(*fault);
}

template <typename Args>
void LaunchNamed(const char* name, const StreamHandle& stream, Grid grid, int threads,
                 size_t shared_bytes, void (*kernel)(Args), const Args& args) {
  const auto run = [=] { RunGrid(name, grid, threads, shared_bytes, kernel, args); };
  if (recording != nullptr) {
    recording->push_back(run);
  } else {
    stream.stream->Push(run);
  }
}

}  // namespace fairlead::FAIRLEAD_GPU
