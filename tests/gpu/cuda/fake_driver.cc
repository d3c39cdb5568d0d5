// SPDX-License-Identifier: Apache-2.0
// A made-up libcuda.so.1, as far as kernels/gpu/cuda/driver.cc asks one. Settings: driver (its
// version), init (what cuInit gives), count, capability, mode (the compute mode).
#include <cstdint>
#include <cstdio>

#include "tests/gpu/cuda/fake_settings.h"

#define FAKE extern "C" [[gnu::visibility("default")]] int

namespace fake = fairlead::fake_cuda;

extern "C" [[gnu::visibility("default")]] void fairlead_fake_play(const char* settings) {
  fake::Played() = settings;
}

FAKE cuDriverGetVersion(int* version) {
  *version = fake::DriverVersion();
  return *version == 0 ? 34 : 0;
}
FAKE cuInit(unsigned) {
  return static_cast<int>(fake::Setting("init", fake::DeviceCount() == 0 ? 100 : 0));
}
FAKE cuDeviceGetCount(int* count) {
  *count = fake::DeviceCount();
  return 0;
}
FAKE cuDeviceGet(int* device, int index) {
  *device = index;
  return index < fake::DeviceCount() ? 0 : 101;
}
FAKE cuDeviceGetName(char* name, int bytes, int) {
  std::snprintf(name, static_cast<size_t>(bytes), "%s", fake::kName);
  return 0;
}
FAKE cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 20:
      *value = static_cast<int>(fake::Setting("mode", 0));
      return 0;
    case 75:
      *value = fake::Capability() / 10;
      return 0;
    case 76:
      *value = fake::Capability() % 10;
      return 0;
    default:
      return 1;
  }
}
FAKE cuGetErrorName(int error, const char** text) {
  *text = error == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR_UNKNOWN";
  return error == 803 || error == 999 ? 0 : 1;
}
FAKE cuGetErrorString(int error, const char** text) {
  *text = error == 803 ? "system has unsupported display driver / cuda driver combination"
                       : "unknown error";
  return error == 803 || error == 999 ? 0 : 1;
}
