// SPDX-License-Identifier: Apache-2.0
// Tensors' bytes, a few rows at a time: whoever compares them with a golden has tested that any
// rows can be had.
#pragma once

#include <algorithm>
#include <vector>

#include "models/weights.h"

namespace fairlead {

inline std::vector<std::byte> BytesByRows(const WeightInfo& info) {
  constexpr int64_t kRows = 5;
  const size_t row_bytes = RowBytes(info.dtype, info.dim.back());
  std::vector<std::byte> out;
  for (int64_t row = 0; row < info.rows(); row += kRows) {
    const int64_t rows = std::min(kRows, info.rows() - row);
    const WeightBytes bytes(info, row, rows);
    out.insert(out.end(), bytes.data(), bytes.data() + static_cast<size_t>(rows) * row_bytes);
  }
  return out;
}

}  // namespace fairlead
