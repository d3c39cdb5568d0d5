// SPDX-License-Identifier: Apache-2.0
// What the GPU kernels are written in; the one file that names a vendor. The sources are for CUDA,
// HIP and the SIMT executor on CPU threads (host/simt.h; there a build defines FAIRLEAD_GPU_WARP,
// 32 or 64, and every source is compiled for both). So far the executor alone has memory and
// streams here, so the vendors' compilers take the kernels, but there is no device of theirs.
// Everything that is compiled per target lives in namespace fairlead::FAIRLEAD_GPU.
//
//   GPU_KERNEL void Name(Args args)   a kernel: one struct of plain values and pointers, by value
//   GPU_DEVICE T Name(...)            a function that kernels call; GPU_METHOD: of a class
//   GPU_BOTH T Name(...)              a member function that hosts call, too
//   GPU_SHARED(T, name, count);       an array in the block's shared memory, not initialised
//   GPU_DYNAMIC_SHARED(T, name);      a pointer to what the launch asked for, 128-byte aligned
//
// Compile with contraction off (-ffp-contract=off, nvcc --fmad=false): fmaf says where a product
// and a sum are one operation. nvcc also wants --expt-relaxed-constexpr.
//
// Blocks have one dimension of threads, a multiple of kWarp, at most 1024. Exchanges within a warp
// are of all its lanes: no lane may have ended or branched away (a mask is a parameter only to show
// what breaks on warps of 64).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define FAIRLEAD_GPU gpu_cuda
#define GPU_KERNEL static __global__
#define GPU_DEVICE static __device__ inline
#define GPU_METHOD __device__
#define GPU_BOTH __host__ __device__
#define GPU_SHARED(type, name, count) __shared__ type name[count]
#define GPU_DYNAMIC_SHARED(type, name)                                      \
  extern __shared__ __align__(128) unsigned char fairlead_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(fairlead_dynamic_shared)
#elif defined(__HIPCC__)
#include <hip/hip_runtime.h>
#define FAIRLEAD_GPU gpu_hip
#define GPU_KERNEL static __global__
#define GPU_DEVICE static __device__ inline
#define GPU_METHOD __device__
#define GPU_BOTH __host__ __device__
#define GPU_SHARED(type, name, count) __shared__ type name[count]
#define GPU_DYNAMIC_SHARED(type, name)                                      \
  extern __shared__ __align__(128) unsigned char fairlead_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(fairlead_dynamic_shared)
#elif FAIRLEAD_GPU_WARP == 32 || FAIRLEAD_GPU_WARP == 64
#include <cmath>
#include <cstring>
#include <source_location>

#include "kernels/check.h"
#include "kernels/gpu/host/memory.h"
#include "kernels/gpu/host/simt.h"
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
#define FAIRLEAD_GPU_HOST 1
#else
#error "compile this for CUDA or HIP, or define FAIRLEAD_GPU_WARP as 32 or 64"
#endif

namespace fairlead::FAIRLEAD_GPU {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

#if defined(FAIRLEAD_GPU_HOST)

// Where a kernel calls: what a fault's message names.
using Site = std::source_location;
#define FAIRLEAD_GPU_SITE , const Site& where = Site::current()
#define FAIRLEAD_GPU_ONLY_SITE const Site& where = Site::current()
#define FAIRLEAD_GPU_HERE , where
#define FAIRLEAD_GPU_ONLY_HERE where
constexpr int kWarp = FAIRLEAD_GPU_WARP;

GPU_DEVICE int ThreadX() { return simt::ThreadIndex(); }
GPU_DEVICE int BlockThreads() { return simt::BlockThreads(); }
GPU_DEVICE unsigned BlockX() { return simt::BlockIndex().x; }
GPU_DEVICE unsigned BlockY() { return simt::BlockIndex().y; }

#elif defined(__CUDACC__) || defined(__HIPCC__)

#define FAIRLEAD_GPU_SITE
#define FAIRLEAD_GPU_ONLY_SITE
#define FAIRLEAD_GPU_HERE
#define FAIRLEAD_GPU_ONLY_HERE
#if defined(__GFX8__) || defined(__GFX9__)
constexpr int kWarp = 64;
#else
constexpr int kWarp = 32;
#endif

GPU_DEVICE int ThreadX() { return static_cast<int>(threadIdx.x); }
GPU_DEVICE int BlockThreads() { return static_cast<int>(blockDim.x); }
GPU_DEVICE unsigned BlockX() { return blockIdx.x; }
GPU_DEVICE unsigned BlockY() { return blockIdx.y; }

#endif

using LaneMask = uint64_t;
constexpr LaneMask kAllLanes = kWarp == 64 ? ~LaneMask{0} : LaneMask{0xffffffff};

GPU_DEVICE int Min(int a, int b) { return a < b ? a : b; }
GPU_DEVICE int LaneId() { return ThreadX() % kWarp; }
GPU_DEVICE int WarpId() { return ThreadX() / kWarp; }

#if defined(FAIRLEAD_GPU_HOST)

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

#elif defined(__CUDACC__) || defined(__HIPCC__)

GPU_DEVICE void SyncThreads() { __syncthreads(); }

#if defined(__CUDACC__)
GPU_DEVICE void SyncWarp() { __syncwarp(); }
template <typename T>
GPU_DEVICE T Shfl(T value, int from, LaneMask mask = kAllLanes) {
  return __shfl_sync(static_cast<unsigned>(mask), value, from, kWarp);
}
GPU_DEVICE LaneMask Ballot(bool predicate) {
  return __ballot_sync(static_cast<unsigned>(kAllLanes), predicate);
}
#else
// A wave runs in lockstep: only the compiler must keep the order.
GPU_DEVICE void SyncWarp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
template <typename T>
GPU_DEVICE T Shfl(T value, int from, LaneMask = kAllLanes) {
  return __shfl(value, from, kWarp);
}
GPU_DEVICE LaneMask Ballot(bool predicate) { return __ballot(predicate); }
#endif

#endif

template <typename T>
GPU_DEVICE T ShflXor(T value, int mask FAIRLEAD_GPU_SITE) {
#if defined(FAIRLEAD_GPU_HOST)
  return Shfl(value, LaneId() ^ mask, kAllLanes, where);
#else
  return Shfl(value, LaneId() ^ mask);
#endif
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

// ---- memory and streams, for the host

#if defined(FAIRLEAD_GPU_HOST)

struct StreamHandle {};

inline void* AllocateMemory(size_t bytes) {
  return simt::AllocateGlobal(bytes);
}  // null: none left
inline void FreeMemory(void* data) { simt::FreeGlobal(data); }
inline StreamHandle CreateStream() { return {}; }
inline void DestroyStream(const StreamHandle&) {}
inline void CopyToDevice(const StreamHandle&, void* device, const void* host, size_t bytes) {
  std::memcpy(device, host, bytes);
}
inline void CopyToHost(const StreamHandle&, void* host, const void* device, size_t bytes) {
  std::memcpy(host, device, bytes);
}
inline void Wait(const StreamHandle&) {}

#endif

// ---- launches

#if defined(FAIRLEAD_GPU_HOST)

// The launch, once it is there for all threads of the grid to read.
template <typename Args>
struct KernelCall {
  void (*kernel)(Args);
  Args args;
  void operator()() const { kernel(args); }
};

// Runs at once. A fault ends the process: it is a bug of ours, like an illegal access on a GPU.
template <typename Args>
void LaunchNamed(const char* name, const StreamHandle&, Grid grid, int threads, size_t shared_bytes,
                 void (*kernel)(Args), const Args& args) {
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

#elif defined(__CUDACC__)

using StreamHandle = cudaStream_t;
template <typename Args>
void LaunchNamed(const char*, StreamHandle stream, Grid grid, int threads, size_t shared_bytes,
                 void (*kernel)(Args), const Args& args) {
  // clang-format off
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, shared_bytes, stream>>>(args);
  // clang-format on
}

#else

using StreamHandle = hipStream_t;
template <typename Args>
void LaunchNamed(const char*, StreamHandle stream, Grid grid, int threads, size_t shared_bytes,
                 void (*kernel)(Args), const Args& args) {
  // clang-format off
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, shared_bytes, stream>>>(args);
  // clang-format on
}

#endif

// GPU_LAUNCH(stream, grid, threads, shared_bytes, Kernel, args)
#define GPU_LAUNCH(stream, grid, threads, shared_bytes, kernel, args) \
  LaunchNamed(#kernel, stream, grid, threads, shared_bytes, &kernel, args)

}  // namespace fairlead::FAIRLEAD_GPU
