// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured in this process: memory reads, and multiply-adds of
// registers on every instruction set that the CPU has. One thread calls; it starts its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "models/json.h"

namespace fairlead::bench {

struct Limit {
  std::string name;  // "memory_read", "f32_fma", "int8_dot", "bf16_dot", "int8_tile", "bf16_tile"
  std::string isa;   // "sse2", "avx2", "avx_vnni", "avx512", "amx", "neon"
  std::string unit;  // "GB/s", "GFLOP/s", "GOP/s": a multiply and an add are two
  int threads = 1;
  std::vector<double> samples = {};

  double best() const;
  double median() const;
};

struct LimitOptions {
  std::vector<int> threads;  // measured once for each
  int repetitions = 5;
  absl::Duration time = absl::Milliseconds(40);  // of one repetition of a compute loop
  size_t read_bytes = 0;                         // 0: DefaultReadBytes()
};

// 256 MiB, or twice the last-level cache if that is more, at most a quarter of free memory.
size_t DefaultReadBytes();

std::vector<Limit> MeasureLimits(const LimitOptions& options);

// The best of these kinds at this number of threads; 0 without one.
double BestOf(absl::Span<const Limit> limits, absl::Span<const std::string_view> names,
              int threads);

Json LimitsJson(absl::Span<const Limit> limits);

// A loop of `steps` rounds over registers and what it costs to start.
struct ComputeLoop {
  const char* name;
  const char* isa;
  const char* unit;
  bool (*is_supported)();
  void (*prepare)();         // once a thread; may be null
  double (*run)(int steps);  // operations done
};
absl::Span<const ComputeLoop> ComputeLoops();

// Reads `bytes` once; the result depends on all of them.
using ReadLoop = uint64_t (*)(const std::byte* data, size_t bytes);
ReadLoop BestReadLoop();

}  // namespace fairlead::bench
