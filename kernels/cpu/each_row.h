// SPDX-License-Identifier: Apache-2.0
// Rows of a memory-bound op, shared out among the workers where that is worth a fork and join.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "kernels/cpu/thread_pool.h"

namespace fairlead {

// A fork and join costs about as much as this many elements take on one core.
inline constexpr int64_t kMinParallelElements = 16 * 1024;
inline constexpr int64_t kTaskElements = 8 * 1024;

inline void ForEachRow(ThreadPool& pool, int64_t rows, int64_t row_elements,
                       absl::FunctionRef<void(int64_t row)> body) {
  if (rows * row_elements <= kMinParallelElements) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  const int64_t task_rows = std::max<int64_t>(1, kTaskElements / row_elements);
  pool.ParallelFor((rows + task_rows - 1) / task_rows, [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * task_rows);
    for (int64_t row = task * task_rows; row < end; ++row) body(row);
  });
}

}  // namespace fairlead
