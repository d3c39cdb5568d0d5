// SPDX-License-Identifier: Apache-2.0
// The random number of a drawn token: a pure function of (seed, position), so that a draw never
// depends on batch mates, preemption or replay. The same on every device: constexpr, which GPU
// compilers take as theirs, too.
#pragma once

#include <cstdint>

namespace fairlead {

// splitmix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014).
constexpr uint64_t MixBits(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Uniform in [0, 1) with 24 bits, so it is exact in float.
constexpr float UniformFor(uint64_t seed, uint32_t position) {
  return static_cast<float>(MixBits(MixBits(seed) ^ position) >> 40) * 0x1p-24f;
}

}  // namespace fairlead
