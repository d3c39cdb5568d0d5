// SPDX-License-Identifier: Apache-2.0
// Weights from a seed for a folder that has a config.json alone: what a model of that shape costs,
// without its gigabytes. The answers mean nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "models/weights.h"

namespace fairlead {

// Matrices are of `dtype`, with a standard deviation of 1 / sqrt(inputs), the same in every layer;
// norms are 1, biases 0. Equal seeds give equal bytes on every machine. kNotFound without a
// config.json; kInvalidArgument when a row is no multiple of the dtype's block (both numbers); as
// LoadModelConfig otherwise.
absl::StatusOr<std::unique_ptr<WeightSource>> MakeDummyWeights(const std::string& path, DType dtype,
                                                               uint64_t seed);

}  // namespace fairlead
