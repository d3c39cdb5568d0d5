// SPDX-License-Identifier: Apache-2.0
// When requests of an open loop are sent. One thread.
#pragma once

#include <boost/random/gamma_distribution.hpp>
#include <cstdint>

#include "bench/serve/random.h"

namespace fairlead::serve_bench {

// Gaps are gamma distributed with shape `burstiness` and mean 1/rate: 1 is a Poisson process, below
// 1 comes in bursts, above 1 tends to a steady beat. Their coefficient of variation is
// 1/sqrt(burstiness). The same meaning as in vLLM's benchmark.
class Arrivals {
 public:
  // Both above 0 and finite. `rate` in requests/s.
  Arrivals(double rate, double burstiness, uint64_t seed);

  // Seconds from the load's start to the next arrival, ascending; the first is one gap after 0.
  double Next();

 private:
  Rng rng_;
  boost::random::gamma_distribution<double> gap_;
  double time_s_ = 0;
};

}  // namespace fairlead::serve_bench
