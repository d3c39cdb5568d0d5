// SPDX-License-Identifier: Apache-2.0
// Says at level debug how long each stage of the start-up took. One thread.
#pragma once

#include <spdlog/spdlog.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fairlead {

class StageTimer {
 public:
  // Ends the stage that began with the last call, or with the timer.
  void Done(const char* stage) {
    const absl::Time now = absl::Now();
    spdlog::debug("start-up: {} took {:.1f} ms", stage, absl::ToDoubleMilliseconds(now - start_));
    start_ = now;
  }

 private:
  absl::Time start_ = absl::Now();
};

}  // namespace fairlead
