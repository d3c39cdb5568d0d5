// SPDX-License-Identifier: Apache-2.0
// Dense products by oneDNN, where it beats our own kernels: large bf16 weights on CPUs that
// multiply bf16 natively (twice our f32 rate from 32 tokens on, at most a fifth slower for one).
// Activations are rounded to bf16 once a row, sums are f32.
//
// oneDNN promises nothing about the order of its sums, so we fix what it could depend on and test
// the rest. N is cut into slices by N alone, each its own product on one thread; tokens go in
// chunks of at most 64, padded with zero rows to a bucket of 2, 4, ... 64 (one row takes another
// path in it, and long K is blocked anew from 128 rows on). When a shape is first packed, random
// rows must come out bit for bit the same in every bucket and place, or the shape is refused.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace fairlead {

// Null where oneDNN does not serve: other dtypes or numerics, a weight that Embed reads, a small
// weight, a CPU without native bf16, a shape that failed the test above, any error of the library.
// `rows` is the sum of the parts' rows. A product of the plan allocates only inside oneDNN.
std::unique_ptr<DensePlan> PackOnednnWeight(const PackWeightArgs& args, int64_t rows,
                                            Numerics numerics, ThreadPool& pool);

}  // namespace fairlead
