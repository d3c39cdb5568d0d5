// SPDX-License-Identifier: Apache-2.0
// Log-probabilities on CPU threads, one row a task. The sum of exponentials is in double; a
// log-probability is within 1e-6 of the exact one, plus the rounding of the result to float.
#pragma once

#include "kernels/cpu/sampling.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

// A row that Sample would refuse (NaN, +infinity or nothing above -infinity) gives NaN, rank 0 and
// tokens -1. More top tokens than the vocabulary: the rest are -1 and -infinity.
void CpuLogprobs(ThreadPool& pool, const LogprobsArgs& args, SamplingScratch& scratch);

}  // namespace fairlead
