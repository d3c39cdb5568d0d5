// SPDX-License-Identifier: Apache-2.0
// Seeded draws. Boost.Random, because the standard library's distributions are not specified: the
// same seed would give other loads with another compiler. One thread each.
#pragma once

#include <boost/random/mersenne_twister.hpp>
#include <boost/random/uniform_int_distribution.hpp>
#include <cstdint>

namespace fairlead::serve_bench {

using Rng = boost::random::mt19937_64;

// An independent stream for each (seed, index): the finaliser of SplitMix64 (Steele, Lea and Flood,
// OOPSLA 2014), so that neighbouring indices share nothing.
inline Rng StreamRng(uint64_t seed, uint64_t index) {
  uint64_t z = seed + 0x9e3779b97f4a7c15ULL * (index + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return Rng(z ^ (z >> 31));
}

// Uniform in [low, high].
inline int UniformInt(Rng& rng, int low, int high) {
  return boost::random::uniform_int_distribution<int>(low, high)(rng);
}

}  // namespace fairlead::serve_bench
