// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/cpu/device_cpu.h"
#include "kernels/device.h"

namespace fairlead {

std::string_view NumericsName(Numerics numerics) {
  switch (numerics) {
    case Numerics::kFloat32:
      return "float32";
    case Numerics::kPrecise:
      return "precise";
    case Numerics::kFast:
      return "fast";
  }
  FAIRLEAD_CHECK(false && "a Numerics value without a name");
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(std::string_view name,
                                                   const DeviceOptions& options) {
  if (name == "cpu" || name == "auto") return OpenCpuDevice(options);
  if (name == "host-simt:32" || name == "host-simt:64") {
    return OpenBackendDevice("libfairlead_host.so", name, options);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "device: \"", std::string(name), "\"; known are auto, cpu, host-simt:32, host-simt:64"));
}

}  // namespace fairlead
