// SPDX-License-Identifier: Apache-2.0
#include "bench/common/launch_timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace fairlead::bench {

double TimeBatch(Stream& stream, const std::function<void()>& launch, int launches) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < launches; ++i) launch();
  stream.Wait();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int LaunchesPerWait(Stream& stream, const std::function<void()>& launch, absl::Duration time,
                    int most) {
  const double wanted = absl::ToDoubleSeconds(time);
  TimeBatch(stream, launch, 1);
  int launches = 1;
  double seconds = TimeBatch(stream, launch, launches);
  // A guess from a quarter of the time or more is off by what the Wait is of it.
  while (seconds < wanted / 4 && launches < most) {
    launches = std::min(4 * launches, most);
    seconds = TimeBatch(stream, launch, launches);
  }
  const double guess = std::ceil(launches * wanted / std::max(seconds, 1e-9));
  return static_cast<int>(std::clamp(guess, 1.0, static_cast<double>(most)));
}

std::vector<double> TimeLaunches(Stream& stream, const std::function<void()>& launch,
                                 const LaunchTiming& timing) {
  const int launches = LaunchesPerWait(stream, launch, timing.time, timing.most_launches);
  std::vector<double> seconds;
  for (int i = 0; i < timing.repetitions; ++i)
    seconds.push_back(TimeBatch(stream, launch, launches) / launches);
  return seconds;
}

}  // namespace fairlead::bench
