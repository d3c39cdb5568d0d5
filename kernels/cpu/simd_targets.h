// SPDX-License-Identifier: Apache-2.0
// Include before any Highway header in a simd_*.cc file: which instruction sets are compiled. Each
// costs compile time and binary size, so only those that change our code's speed are kept: the
// baseline (SSE4 on x86, set in CMake; NEON on Arm), AVX2, AVX-512, and Zen 4 where Highway knows
// it (it compresses vectors in another way). Scalable vectors are out because the kernels keep
// arrays of vectors.
#pragma once

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
