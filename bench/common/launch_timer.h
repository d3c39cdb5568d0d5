// SPDX-License-Identifier: Apache-2.0
// How long a launch takes where launches are enqueued and the host runs ahead. One thread.
#pragma once

#include <functional>
#include <vector>

#include "absl/time/time.h"
#include "kernels/device.h"

namespace fairlead::bench {

struct LaunchTiming {
  int repetitions = 5;
  absl::Duration time = absl::Milliseconds(20);  // of a repetition, at least
  int most_launches = 1000;                      // of a repetition
};

// How many launches take at least `time` with one Wait behind them, so that the Wait itself does
// not count; 1 to `most`. It launches some: what happens once (a kernel that is loaded, scratch
// that grows) has happened afterwards.
int LaunchesPerWait(Stream& stream, const std::function<void()>& launch, absl::Duration time,
                    int most);

// Seconds of `launches` launches and one Wait.
double TimeBatch(Stream& stream, const std::function<void()>& launch, int launches);

// Seconds of one launch, a value a repetition: the time of LaunchesPerWait of them, divided.
std::vector<double> TimeLaunches(Stream& stream, const std::function<void()>& launch,
                                 const LaunchTiming& timing);

}  // namespace fairlead::bench
