// SPDX-License-Identifier: Apache-2.0
#include "kernels/pack_args.h"

#include <algorithm>
#include <string>
#include <utility>

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

std::vector<WeightPart> CutParts(const PackWeightArgs& args, int64_t begin, int64_t end) {
  const size_t row_bytes = RowBytes(args.dtype, args.cols);
  std::vector<WeightPart> parts;
  int64_t first = 0;  // row that is the part's first
  for (const WeightPart& part : args.parts) {
    const int64_t from = std::max(begin, first), to = std::min(end, first + part.rows);
    const int64_t skipped = from - first;
    first += part.rows;
    if (from >= to) continue;
    WeightPart& piece = parts.emplace_back();
    piece.rows = to - from;
    if (!part.make) {
      piece.data = part.data + static_cast<size_t>(skipped) * row_bytes;
      continue;
    }
    piece.data = nullptr;
    piece.make = [make = &part.make, skipped](int64_t row, int64_t rows, std::byte* out) {
      (*make)(skipped + row, rows, out);
    };
  }
  return parts;
}

PartsInMemory::PartsInMemory(const PackWeightArgs& args, int64_t begin, int64_t end)
    : parts_(CutParts(args, begin, end)) {
  for (WeightPart& part : parts_) {
    if (!part.make) continue;
    const size_t bytes = static_cast<size_t>(part.rows) * RowBytes(args.dtype, args.cols);
    made_.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
    part.make(0, part.rows, made_.back().get());
    part.data = made_.back().get();
    part.make = nullptr;
  }
}

}  // namespace fairlead
