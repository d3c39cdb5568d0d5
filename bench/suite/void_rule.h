// SPDX-License-Identifier: Apache-2.0
// When a result is no result: the machine itself became faster or slower while it was measured.
#pragma once

#include "absl/types/span.h"
#include "bench/limits/limits.h"
#include "models/json.h"

namespace fairlead::bench {

inline constexpr double kLargestMovePercent = 10;

// Compares the medians of each limit at the largest number of threads:
// {"void", "moved_percent": the largest change either way, relative to before,
//  "reason": null, or what moved: "memory_read 40.0 -> 20.0 GB/s (-50 %)"}
Json JudgeLimits(absl::Span<const Limit> before, absl::Span<const Limit> after);

}  // namespace fairlead::bench
