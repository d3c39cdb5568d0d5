// SPDX-License-Identifier: Apache-2.0
// The memory-bound ops on CPU threads. Tensors as in ops.h, in host memory. Small calls run on the
// calling thread; the bits are the same either way.
#pragma once

#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"
#include "kernels/ops.h"

namespace fairlead {

void CpuRmsNorm(ThreadPool& pool, const RmsNormArgs& args);
void CpuSiluAndMul(ThreadPool& pool, const SiluAndMulArgs& args);
void CpuGatherRows(ThreadPool& pool, const GatherRowsArgs& args);

// k in args.qkv is left as it was: only the cache gets its rotated form.
void CpuRopeAndWriteKv(ThreadPool& pool, const RopeAndWriteKvArgs& args, DType kv_dtype);

}  // namespace fairlead
