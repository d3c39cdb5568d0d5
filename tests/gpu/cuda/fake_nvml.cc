// SPDX-License-Identifier: Apache-2.0
// A made-up libnvidia-ml.so.1 that knows one GPU, 0000:01:00.0, and nothing of its memory clock.
// Setting nvml: what nvmlInit_v2 gives.
#include <cstring>

#include "tests/gpu/cuda/fake_settings.h"

#define FAKE extern "C" [[gnu::visibility("default")]]

namespace {
constexpr int kNotSupported = 3, kNotFound = 6;
int g_device;
}  // namespace

FAKE void FakeNvmlPlay(const char* settings) { fairlead::fake_cuda::Played() = settings; }

FAKE int nvmlInit_v2() { return static_cast<int>(fairlead::fake_cuda::Setting("nvml", 0)); }
FAKE int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** device) {
  if (std::strcmp(bus, "0000:01:00.0") != 0) return kNotFound;
  *device = &g_device;
  return 0;
}
FAKE int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  if (device != &g_device) return kNotFound;
  *milliwatts = 312500;
  return 0;
}
FAKE int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700000;
  return 0;
}
FAKE int nvmlDeviceGetTemperature(void*, int sensor, unsigned* celsius) {
  *celsius = sensor == 0 ? 61 : 0;
  return 0;
}
FAKE int nvmlDeviceGetClockInfo(void*, int clock, unsigned* mhz) {
  if (clock != 1) return kNotSupported;
  *mhz = 1755;
  return 0;
}
FAKE int nvmlDeviceGetUtilizationRates(void*, unsigned* gpu_and_memory) {
  gpu_and_memory[0] = 87;
  gpu_and_memory[1] = 40;
  return 0;
}
FAKE int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = 80ull << 30;
  total_free_used[1] = 30ull << 30;
  total_free_used[2] = 50ull << 30;
  return 0;
}
FAKE int nvmlDeviceGetTotalEccErrors(void*, int kind, int counter, unsigned long long* count) {
  *count = counter == 0 ? (kind == 0 ? 5 : 2) : 99;
  return 0;
}
FAKE int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* bits) {
  *bits = 0x1 | 0x4 | 0x20 | 0x40;
  return 0;
}
