// SPDX-License-Identifier: Apache-2.0
// The words of gpu.h, which alone includes this, for HIP. A compilation is for GPUs of one warp
// size, FAIRLEAD_GPU_WARP: the host's code must know it, and the compiler tells it to the GPU's
// alone. The library holds both, and backend_hip.cc chooses.
#pragma once

#include <hip/hip_runtime.h>

#include <cmath>
#include <cstring>

#define FAIRLEAD_GPU_JOIN(a, b) a##b
#define FAIRLEAD_GPU_NAME(warp) FAIRLEAD_GPU_JOIN(gpu_hip, warp)
#define FAIRLEAD_GPU FAIRLEAD_GPU_NAME(FAIRLEAD_GPU_WARP)
#define GPU_KERNEL static __global__
#define GPU_DEVICE static __device__ inline
#define GPU_METHOD __device__
#define GPU_BOTH __host__ __device__
#define GPU_SHARED(type, name, count) __shared__ type name[count]
#define GPU_DYNAMIC_SHARED(type, name)                                      \
  extern __shared__ __align__(128) unsigned char fairlead_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(fairlead_dynamic_shared)
#define FAIRLEAD_GPU_SITE
#define FAIRLEAD_GPU_ONLY_SITE
#define FAIRLEAD_GPU_HERE
#define FAIRLEAD_GPU_ONLY_HERE

#if FAIRLEAD_GPU_WARP != 32 && FAIRLEAD_GPU_WARP != 64
#error "define FAIRLEAD_GPU_WARP as the lanes of a warp of the architectures: 32 or 64"
#endif

namespace fairlead::FAIRLEAD_GPU {

constexpr int kWarp = FAIRLEAD_GPU_WARP;
constexpr LaneMask kAllLanes = ~LaneMask{0} >> (64 - kWarp);
#if defined(__HIP_DEVICE_COMPILE__)
#if defined(__GFX8__) || defined(__GFX9__)
static_assert(kWarp == 64, "this architecture has warps of 64 lanes");
#else
static_assert(kWarp == 32, "this architecture is compiled for warps of 32 lanes");
#endif
#endif

GPU_DEVICE int ThreadX() { return static_cast<int>(threadIdx.x); }
GPU_DEVICE int BlockThreads() { return static_cast<int>(blockDim.x); }
GPU_DEVICE unsigned BlockX() { return blockIdx.x; }
GPU_DEVICE unsigned BlockY() { return blockIdx.y; }

GPU_DEVICE void SyncThreads() { __syncthreads(); }
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

constexpr int kMaxBlockThreads = 512;  // that CMakeLists.txt has the compiler expect

struct StreamHandle {
  int device;
  hipStream_t stream;
};
struct EventHandle {
  int device;
  hipEvent_t event;
};
struct GraphHandle {
  int device;
  hipGraphExec_t graph;
  bool empty() const { return graph == nullptr; }
};

}  // namespace fairlead::FAIRLEAD_GPU
