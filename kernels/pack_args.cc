// SPDX-License-Identifier: Apache-2.0
#include "kernels/pack_args.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fairlead {

absl::StatusOr<int64_t> RowsToPack(const PackWeightArgs& args) {
  if (!IsWeightType(args.dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight dtype ", std::string(Info(args.dtype).name),
                     ": allowed are f32, f16, bf16 and the quantised ones"));
  }
  const int block = Info(args.dtype).block_elements;
  if (args.cols <= 0 || args.cols % block != 0) {
    return absl::InvalidArgumentError(absl::StrCat("weight of ", args.cols,
                                                   " columns: ", std::string(Info(args.dtype).name),
                                                   " needs a positive multiple of ", block));
  }
  int64_t rows = 0;
  for (const WeightPart& part : args.parts) rows += part.rows;
  if (rows <= 0) return absl::InvalidArgumentError("weight without rows: at least 1 is needed");
  if (args.groups < 1 || rows % args.groups != 0) {
    return absl::InvalidArgumentError(absl::StrCat("weight of ", rows, " rows in ", args.groups,
                                                   " groups: they must have equally many"));
  }
  if (args.groups > 1 && args.embedding) {
    return absl::InvalidArgumentError("a table of embeddings is one matrix");
  }
  return rows;
}

}  // namespace fairlead
