// SPDX-License-Identifier: Apache-2.0
// What every backend checks of the weights that it is given to pack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"

namespace fairlead {

// The rows of all parts together. kInvalidArgument: a dtype that weights do not have, columns that
// are no multiple of its block, no rows, or rows that do not divide into the groups; the value and
// what is allowed.
absl::StatusOr<int64_t> RowsToPack(const PackWeightArgs& args);

// The rows [begin, end) of all parts, stacked: parts, or pieces of parts, that refer to those of
// `args`. The rows must be there.
std::vector<WeightPart> CutParts(const PackWeightArgs& args, int64_t begin, int64_t end);

// The same with their bytes: the parts that are made are made here, and live as long as this.
class PartsInMemory {
 public:
  PartsInMemory(const PackWeightArgs& args, int64_t begin, int64_t end);
  PartsInMemory(const PartsInMemory&) = delete;
  PartsInMemory& operator=(const PartsInMemory&) = delete;

  absl::Span<const WeightPart> parts() const { return parts_; }

 private:
  std::vector<WeightPart> parts_;
  std::vector<std::unique_ptr<std::byte[]>> made_;
};

}  // namespace fairlead
