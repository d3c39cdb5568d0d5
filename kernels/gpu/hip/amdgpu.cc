// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/hip/amdgpu.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

namespace fairlead {
namespace {

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

std::optional<double> Scaled(std::optional<uint64_t> value, double unit) {
  if (!value) return std::nullopt;
  return static_cast<double>(*value) * unit;
}

// The GPU's only folder of sensors, "hwmon/hwmon3".
std::string SensorsOf(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/hwmon", ignored)) {
    return entry.path().string() + "/";
  }
  return folder + "/hwmon/none/";
}

// "ue: 0" and "ce: 3": uncorrected and corrected errors of the memory controllers.
void ReadErrors(const std::string& path, DeviceTelemetry& out) {
  std::ifstream file(path);
  std::string kind;
  uint64_t count = 0;
  while (file >> kind >> count) {
    if (kind == "ue:") out.ecc_uncorrected = count;
    if (kind == "ce:") out.ecc_corrected = count;
  }
}

}  // namespace

DeviceTelemetry ReadAmdgpu(const std::string& folder) {
  DeviceTelemetry out;
  const std::string sensors = SensorsOf(folder);
  out.power_watts = Scaled(ReadNumber(sensors + "power1_average"), 1e-6);
  if (!out.power_watts) out.power_watts = Scaled(ReadNumber(sensors + "power1_input"), 1e-6);
  out.power_limit_watts = Scaled(ReadNumber(sensors + "power1_cap"), 1e-6);
  out.temperature_celsius = Scaled(ReadNumber(sensors + "temp2_input"), 1e-3);  // junction
  if (!out.temperature_celsius)
    out.temperature_celsius = Scaled(ReadNumber(sensors + "temp1_input"), 1e-3);  // edge
  out.core_clock_hertz = Scaled(ReadNumber(sensors + "freq1_input"), 1);
  out.memory_clock_hertz = Scaled(ReadNumber(sensors + "freq2_input"), 1);
  out.utilization = Scaled(ReadNumber(folder + "/gpu_busy_percent"), 1e-2);
  out.memory_used_bytes = ReadNumber(folder + "/mem_info_vram_used");
  ReadErrors(folder + "/ras/umc_err_count", out);
  return out;
}

}  // namespace fairlead
