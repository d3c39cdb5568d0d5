// SPDX-License-Identifier: Apache-2.0
// The words of gpu.h, which alone includes this, for CUDA.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstring>

#define FAIRLEAD_GPU gpu_cuda
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

namespace fairlead::FAIRLEAD_GPU {

constexpr int kWarp = 32;
constexpr LaneMask kAllLanes = 0xffffffff;

GPU_DEVICE int ThreadX() { return static_cast<int>(threadIdx.x); }
GPU_DEVICE int BlockThreads() { return static_cast<int>(blockDim.x); }
GPU_DEVICE unsigned BlockX() { return blockIdx.x; }
GPU_DEVICE unsigned BlockY() { return blockIdx.y; }

GPU_DEVICE void SyncThreads() { __syncthreads(); }
GPU_DEVICE void SyncWarp() { __syncwarp(); }
template <typename T>
GPU_DEVICE T Shfl(T value, int from, LaneMask mask = kAllLanes) {
  return __shfl_sync(static_cast<unsigned>(mask), value, from, kWarp);
}
GPU_DEVICE LaneMask Ballot(bool predicate) {
  return __ballot_sync(static_cast<unsigned>(kAllLanes), predicate);
}

struct StreamHandle {
  int device;
  cudaStream_t stream;
};
struct EventHandle {
  int device;
  cudaEvent_t event;
};
struct GraphHandle {
  int device;
  cudaGraphExec_t graph;
  bool empty() const { return graph == nullptr; }
};

}  // namespace fairlead::FAIRLEAD_GPU
