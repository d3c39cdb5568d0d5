// SPDX-License-Identifier: Apache-2.0
// Highway lacks vpdpbusd here (1.0 has no u8 x i8 dot product), hence intrinsics.
#include "kernels/codebooks.h"
#include "kernels/cpu/int8_matmul.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")
namespace fairlead {
namespace {

#include "kernels/cpu/int8_avx512-inl.h"
#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"
#include "kernels/cpu/int8_quantize-inl.h"
#include "kernels/cpu/int8_vnni-inl.h"

bool Supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace

const Int8Kernels kInt8Avx512Vnni = {.name = "avx512_vnni",
                                     .supported = &Supported,
                                     .fast_terms = 1,
                                     .precise_terms = 2,
                                     .spans = false,
                                     .quantize = &Quantize,
                                     .multiply = &MultiplyVnni};

}  // namespace fairlead
#pragma GCC pop_options
#endif
