// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/void_rule.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_format.h"

namespace fairlead::bench {

Json JudgeLimits(absl::Span<const Limit> before, absl::Span<const Limit> after) {
  int threads = 0;
  for (const Limit& limit : before) threads = std::max(threads, limit.threads);
  double largest = 0;
  std::string what;
  for (const Limit& a : before) {
    if (a.threads != threads) continue;
    for (const Limit& b : after) {
      if (b.name != a.name || b.isa != a.isa || b.threads != threads || a.median() <= 0) continue;
      const double moved = (b.median() - a.median()) * 100 / a.median();
      if (std::abs(moved) <= std::abs(largest)) continue;
      largest = moved;
      what = absl::StrFormat("%s%s%s %.1f -> %.1f %s (%+.0f %%)", a.name, a.isa.empty() ? "" : " ",
                             a.isa, a.median(), b.median(), a.unit, moved);
    }
  }
  const bool is_void = std::abs(largest) > kLargestMovePercent;
  return {{"void", is_void},
          {"moved_percent", std::abs(largest)},
          {"reason", is_void ? Json(what) : Json(nullptr)}};
}

}  // namespace fairlead::bench
