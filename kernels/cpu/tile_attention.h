// SPDX-License-Identifier: Apache-2.0
// One split of attention on AMX tiles of bf16 (Numerics::kFast). Any thread; no state.
//   score  = sum over 32 dimensions a time of bf16(q) * k: the even ones' and the odd ones' f32
//   sums,
//            added to each other and then to what is there (TDPBF16PS; numbers below 2^-126 are 0)
//   weight = exp(score - max) in f32; its sum is of these, the values' weights are rounded to bf16
//   out    = sum over 16 keys a time of weight * value, alike
// A tile's row has the same bits whatever the other rows are and however many: decodes and chunks
// take the same instructions.
#pragma once

#include "kernels/cpu/simd_attention.h"

namespace fairlead {

using AttendSplitFunction = void (*)(const SplitArgs& args);

// Like SimdAttendSplit, on blocks of KvFormat::paired; args.score is not used. Null where the
// machine cannot.
AttendSplitFunction TileAttention();

}  // namespace fairlead
