// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/cuda/nvml.h"

#include <dlfcn.h>

#include <cstdint>
#include <utility>

namespace fairlead {
namespace {

// The part of the library's interface that is used (NVML API Reference Guide). Its values are for
// good; the header is not needed, so this is compiled and tested without a toolkit.
using Result = int;
constexpr Result kSuccess = 0;
constexpr int kTemperatureOfGpu = 0;
constexpr int kClockOfSms = 1, kClockOfMemory = 2;
constexpr int kCorrected = 0, kUncorrected = 1;
constexpr int kSinceDriverLoad = 0;  // "volatile"
struct Utilization {
  unsigned gpu, memory;  // percent
};
struct Memory {
  unsigned long long total, free, used;
};

struct Throttle {
  unsigned long long bit;
  const char* name;
};
// nvmlClocksThrottleReasons; idle and clocks that somebody has set are none.
constexpr Throttle kThrottles[] = {{0x4, "power_cap"},
                                   {0x8, "hardware_slowdown"},
                                   {0x20, "thermal"},
                                   {0x40, "thermal"},
                                   {0x80, "power_brake"}};

}  // namespace

struct Nvml::Functions {
  Result (*init)();
  Result (*find)(const char* pci_bus_id, void** device);
  // Any of these may be missing.
  Result (*power)(void* device, unsigned* milliwatts);
  Result (*power_limit)(void* device, unsigned* milliwatts);
  Result (*temperature)(void* device, int sensor, unsigned* celsius);
  Result (*clock)(void* device, int clock, unsigned* mhz);
  Result (*utilization)(void* device, Utilization*);
  Result (*memory)(void* device, Memory*);
  Result (*ecc)(void* device, int kind, int counter, unsigned long long* count);
  Result (*throttle)(void* device, unsigned long long* bits);
};

Nvml::Nvml(const char* library, const std::string& pci_bus_id) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);  // stays loaded
  if (handle == nullptr) return;
  auto functions = std::make_shared<Functions>();
  const auto find = [handle](auto*& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
  };
  find(functions->init, "nvmlInit_v2");
  find(functions->find, "nvmlDeviceGetHandleByPciBusId_v2");
  find(functions->power, "nvmlDeviceGetPowerUsage");
  find(functions->power_limit, "nvmlDeviceGetEnforcedPowerLimit");
  find(functions->temperature, "nvmlDeviceGetTemperature");
  find(functions->clock, "nvmlDeviceGetClockInfo");
  find(functions->utilization, "nvmlDeviceGetUtilizationRates");
  find(functions->memory, "nvmlDeviceGetMemoryInfo");
  find(functions->ecc, "nvmlDeviceGetTotalEccErrors");
  find(functions->throttle, "nvmlDeviceGetCurrentClocksThrottleReasons");
  if (functions->init == nullptr || functions->find == nullptr) return;
  if (functions->init() != kSuccess) return;
  if (functions->find(pci_bus_id.c_str(), &device_) != kSuccess) return;
  functions_ = std::move(functions);
}

DeviceTelemetry Nvml::Read() const {
  DeviceTelemetry out;
  if (functions_ == nullptr) return out;
  const Functions& f = *functions_;
  const auto told = [](auto* function, auto... args) {
    return function != nullptr && function(args...) == kSuccess;
  };
  unsigned value = 0;
  if (told(f.power, device_, &value)) out.power_watts = value / 1e3;
  if (told(f.power_limit, device_, &value)) out.power_limit_watts = value / 1e3;
  if (told(f.temperature, device_, kTemperatureOfGpu, &value)) out.temperature_celsius = value;
  if (told(f.clock, device_, kClockOfSms, &value)) out.core_clock_hertz = value * 1e6;
  if (told(f.clock, device_, kClockOfMemory, &value)) out.memory_clock_hertz = value * 1e6;
  if (Utilization used = {}; told(f.utilization, device_, &used)) out.utilization = used.gpu / 1e2;
  if (Memory memory = {}; told(f.memory, device_, &memory)) out.memory_used_bytes = memory.used;
  unsigned long long count = 0;
  if (told(f.ecc, device_, kCorrected, kSinceDriverLoad, &count)) out.ecc_corrected = count;
  if (told(f.ecc, device_, kUncorrected, kSinceDriverLoad, &count)) out.ecc_uncorrected = count;
  if (unsigned long long bits = 0; told(f.throttle, device_, &bits)) {
    out.throttling.emplace();
    for (const Throttle& throttle : kThrottles) {
      if ((bits & throttle.bit) == 0) continue;
      if (out.throttling->empty() || out.throttling->back() != throttle.name)
        out.throttling->push_back(throttle.name);
    }
  }
  return out;
}

}  // namespace fairlead
