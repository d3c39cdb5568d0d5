// SPDX-License-Identifier: Apache-2.0
// What NVIDIA's driver says of a GPU before the CUDA runtime is asked for anything: the runtime's
// own words for these cases are short and alike. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fairlead {

// What a build of the backend has.
struct CudaBuild {
  int version;  // of the toolkit: 13000 is 13.0
  // "sm_80 sm_90a compute_80": machine code (sm) and PTX (compute) for these compute capabilities.
  std::string_view code;
};

struct CudaGpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
};

enum class CudaCode { kNone, kPtx, kMachine };

// The best of `code` that runs on a GPU of compute capability major.minor. Machine code runs on the
// same major and a minor that is not lower, PTX on everything from its capability on; with the
// suffix "a" both run on that capability alone, with "f" on its major from its minor on. (CUDA C++
// Programming Guide, "Binary Compatibility" and "Feature Set Compiler Targets".)
CudaCode BestCudaCode(std::string_view code, int major, int minor);

// The GPU `index`, if its driver is there, is new enough, shows it, and the build has code for it.
// `library`: the driver's, "libcuda.so.1". Errors, one sentence each: kFailedPrecondition, or
// kNotFound for no driver, no GPU and an index beyond them.
absl::StatusOr<CudaGpu> FindCudaGpu(const char* library, int index, const CudaBuild& build);

}  // namespace fairlead
