// SPDX-License-Identifier: Apache-2.0
// How a device is doing, in its driver's words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fairlead {

// Of this moment; what the driver does not tell is empty.
struct DeviceTelemetry {
  std::optional<double> power_watts, power_limit_watts;
  std::optional<double> temperature_celsius;
  std::optional<double> core_clock_hertz, memory_clock_hertz;
  std::optional<double> utilization;  // 0 to 1: of the time, that a kernel ran
  std::optional<uint64_t> memory_used_bytes;
  // Memory errors since the driver was loaded.
  std::optional<uint64_t> ecc_corrected, ecc_uncorrected;
  // What holds the clocks down: "power_cap", "thermal", "hardware_slowdown", "power_brake"; none:
  // nothing does.
  std::optional<std::vector<std::string>> throttling;
};

}  // namespace fairlead
