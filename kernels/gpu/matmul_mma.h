// SPDX-License-Identifier: Apache-2.0
// Products with packed weights by tensor cores (matmul_mma.cu says who rounds what).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gpu/gpu.h"
#include "kernels/ops.h"

namespace fairlead::FAIRLEAD_GPU {

// All give the same bits; what differs is which numbers of tokens they are fast with.
enum class MmaKernel {
  kStaged,  // up to kStagedTokens; each block rounds the activations that it needs
  kFew,     // the others read activations that a kernel before them has rounded
  kSome,
  kMany,
};
inline constexpr int kStagedTokens = 4;
// What memory is made for; with less of it, weights of many columns could not be multiplied.
inline constexpr int kMmaTogether = 64;

bool HasMmaKernel(MmaKernel kernel, DType dtype, int64_t cols, int64_t tokens);
MmaKernel ChooseMmaKernel(DType dtype, int64_t rows, int64_t cols, int64_t tokens);

// Device memory for the rounded activations of so many tokens; kStaged takes none.
size_t MmaMemoryBytes(DType dtype, int64_t cols, int64_t tokens);
// memory: as many bytes, 256-byte aligned.
void LaunchMatmulMma(const StreamHandle& stream, const MatmulArgs& args, MmaKernel kernel,
                     void* memory);

// The same for GroupedMatmul. kStaged multiplies any number of tokens, pair by pair; kSome there is
// not.
bool HasGroupedMmaKernel(MmaKernel kernel, DType dtype, int64_t cols);
MmaKernel ChooseGroupedMmaKernel(const GroupedMatmulArgs& args);
// For so many of the tokens, and any kernel.
size_t GroupedMmaMemoryBytes(const GroupedMatmulArgs& args, int64_t tokens);
void LaunchGroupedMma(const StreamHandle& stream, const GroupedMatmulArgs& args, MmaKernel kernel,
                      void* memory);

}  // namespace fairlead::FAIRLEAD_GPU
