// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts on CPU threads. GroupedMatmul puts the rows that chose the same expert
// together and multiplies them as Matmul does, expert after expert, each by all workers. Arguments
// are taken as checked (MakeCheckedOps). One caller at a time per pool and scratch.
#pragma once

#include <cstdint>

#include "kernels/cpu/aligned_array.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace fairlead {

// Working memory, one per device. It only grows.
struct ExpertScratch {
  GrowOnlyArray<float> x, out;   // the rows of one expert
  GrowOnlyArray<int32_t> order;  // pairs (token * slots + slot), those of an expert together
  GrowOnlyArray<int64_t> begin;  // [groups + 1], of an expert's in the order
};

void CpuRoute(ThreadPool& pool, const RouteArgs& args);
void CpuGroupedMatmul(ThreadPool& pool, const Int8Mode& mode, const GroupedMatmulArgs& args,
                      MatmulScratch& matmul, ExpertScratch& scratch);
void CpuCombineExperts(ThreadPool& pool, const CombineExpertsArgs& args);

}  // namespace fairlead
