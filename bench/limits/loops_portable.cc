// SPDX-License-Identifier: Apache-2.0
// The limits' loops where the CPU is no x86: vectors as the compiler makes them, fused
// multiply-adds of 16 bytes.
#include "bench/limits/limits.h"

#if !defined(__x86_64__)
#include <cmath>
#include <cstdint>
#include <cstring>

namespace fairlead::bench {
namespace {

constexpr int kSums = 16, kLanes = 4;

double Fma(int steps) {
  float sum[kSums][kLanes] = {};
  float x = 1e-3f;
  for (int step = 0; step < steps; ++step) {
    asm volatile("" : "+m"(x));
    for (auto& lanes : sum) {
      for (float& lane : lanes) lane = std::fma(x, 1.001f, lane);
    }
  }
  asm volatile("" : : "m"(sum));
  return static_cast<double>(steps) * kSums * kLanes * 2;
}

uint64_t Read(const std::byte* data, size_t bytes) {
  uint64_t sum[8] = {};
  for (size_t at = 0; at + sizeof(sum) <= bytes; at += sizeof(sum)) {
    uint64_t words[8];
    std::memcpy(words, data + at, sizeof(words));
    for (int i = 0; i < 8; ++i) sum[i] += words[i];
  }
  asm volatile("" : : "m"(sum));
  return bytes;
}

bool Always() { return true; }
constexpr ComputeLoop kLoops[] = {{"f32_fma", "neon", "GFLOP/s", Always, nullptr, Fma}};

}  // namespace

absl::Span<const ComputeLoop> ComputeLoops() { return kLoops; }
ReadLoop BestReadLoop() { return Read; }

}  // namespace fairlead::bench
#endif
