// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/arrivals.h"

namespace fairlead::serve_bench {
namespace {

// Prompts take the streams 0, 1, 2 ... of the same seed.
constexpr uint64_t kArrivalStream = uint64_t{1} << 62;

}  // namespace

Arrivals::Arrivals(double rate, double burstiness, uint64_t seed)
    : rng_(StreamRng(seed, kArrivalStream)), gap_(burstiness, 1 / (rate * burstiness)) {}

double Arrivals::Next() { return time_s_ += gap_(rng_); }

}  // namespace fairlead::serve_bench
