// SPDX-License-Identifier: Apache-2.0
// Runs a test once for each instruction set that the kernels are compiled for and this machine has.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "hwy/highway.h"

namespace fairlead {

inline void ForEachSimdTarget(absl::FunctionRef<void()> body) {
  const std::vector<int64_t> targets = {HWY_SSE4, HWY_AVX2, HWY_AVX3,
#ifdef HWY_AVX3_ZEN4  // since Highway 1.1
                                        HWY_AVX3_ZEN4,
#endif
                                        HWY_NEON};
  const int64_t supported = hwy::SupportedTargets();
  int ran = 0;
  for (const int64_t target : targets) {
    if ((supported & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
    ++ran;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GT(ran, 0) << "no known instruction set";
}

}  // namespace fairlead
