// SPDX-License-Identifier: Apache-2.0
// What every backend checks of the weights that it is given to pack.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace fairlead {

// The rows of all parts together. kInvalidArgument: a dtype that weights do not have, columns that
// are no multiple of its block, no rows, or rows that do not divide into the groups; the value and
// what is allowed.
absl::StatusOr<int64_t> RowsToPack(const PackWeightArgs& args);

}  // namespace fairlead
