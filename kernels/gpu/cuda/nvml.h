// SPDX-License-Identifier: Apache-2.0
// NVIDIA's management library, which comes with the driver: power, clocks, temperature, ECC.
// Loaded when it is first asked; thread-safe.
#pragma once

#include <memory>
#include <string>

#include "kernels/telemetry.h"

namespace fairlead {

class Nvml {
 public:
  // library: "libnvidia-ml.so.1"; pci_bus_id: "0000:3b:00.0". Where there is no such library or
  // GPU, it tells nothing.
  Nvml(const char* library, const std::string& pci_bus_id);
  DeviceTelemetry Read() const;

 private:
  struct Functions;
  std::shared_ptr<const Functions> functions_;  // null: none
  void* device_ = nullptr;
};

}  // namespace fairlead
