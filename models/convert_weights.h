// SPDX-License-Identifier: Apache-2.0
// Matrices of a checkpoint in another dtype (--weight-dtype): converted when they are read, so that
// a bf16 model of 8 bits a weight needs no file of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/weights.h"

namespace fairlead {

// `source` with its matrices in `dtype`: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0, the latter
// as ggml's reference quantises (quantize_row_*_ref in ggml-quants.c). Matrices are what is named
// ".weight" and has two dimensions, or more where it is of stacked experts (in GGUF files, all),
// routers of experts apart; everything else stays as it is. kInvalidArgument names a tensor whose
// rows are no multiple of the dtype's block, or which is quantised already and would lose by it:
// only a dtype with more bits for a weight, or its own, is allowed then. kUnimplemented: a
// quantised dtype that cannot be read back.
absl::StatusOr<std::unique_ptr<WeightSource>> ConvertWeights(std::unique_ptr<WeightSource> source,
                                                             DType dtype);

// A tensor whose dtype is readable, in another dtype that is, of whose blocks its rows are a
// multiple. What `from` is made of must outlive it.
WeightInfo ConvertTensor(const WeightInfo& from, DType dtype);

// Whether a conversion can start from it: the same dtypes.
bool IsReadable(DType dtype);
// A row of `cols` values of a dtype that is readable; cols is a multiple of its block.
void ReadValues(DType dtype, const std::byte* row, int64_t cols, float* out);

}  // namespace fairlead
