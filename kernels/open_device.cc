// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/cpu/device_cpu.h"
#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

struct GpuBackend {
  std::string_view kind;
  const char* library;
};
// In the order that "auto" tries them.
constexpr GpuBackend kGpuBackends[] = {{"cuda", "libfairlead_cuda.so"},
                                       {"hip", "libfairlead_hip.so"}};
constexpr const char* kSimtLibrary = "libfairlead_host.so";

// Whether `name` is "cuda", or "cuda:" and up to four digits.
bool NamesDeviceOf(const GpuBackend& backend, std::string_view name) {
  if (!name.starts_with(backend.kind)) return false;
  name.remove_prefix(backend.kind.size());
  if (name.empty()) return true;
  return name.size() >= 2 && name.size() <= 5 && name[0] == ':' &&
         std::all_of(name.begin() + 1, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// The library that makes the device; null for the program itself.
const char* LibraryOf(std::string_view name) {
  for (const GpuBackend& backend : kGpuBackends) {
    if (NamesDeviceOf(backend, name)) return backend.library;
  }
  return name == "host-simt:32" || name == "host-simt:64" ? kSimtLibrary : nullptr;
}

absl::StatusOr<std::unique_ptr<Device>> OpenAny(const DeviceOptions& options,
                                                std::string* selection) {
  std::string reasons;
  const auto took = [&](std::string_view name) {
    if (selection == nullptr) return;
    *selection = StrCat("device auto: ", name, reasons.empty() ? "" : ", since ", reasons);
  };
  for (const GpuBackend& backend : kGpuBackends) {
    const std::string name = StrCat(backend.kind, ":0");
    auto device = OpenBackendDevice(backend.library, name, options);
    if (device.ok()) {
      took(name);
      return device;
    }
    StrAppend(&reasons, reasons.empty() ? "" : "; ", backend.kind, ": ", device.status().message());
  }
  took("cpu");
  return OpenCpuDevice(options);
}

}  // namespace

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

absl::Status CheckDeviceName(std::string_view name) {
  if (name == "auto" || name == "cpu" || LibraryOf(name) != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat("'", name, "' is not one of auto, cpu, cuda:N, hip:N, host-simt:32, host-simt:64"));
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(std::string_view name,
                                                   const DeviceOptions& options,
                                                   std::string* selection) {
  if (absl::Status status = CheckDeviceName(name); !status.ok()) {
    return absl::InvalidArgumentError(StrCat("device: ", status.message()));
  }
  if (name == "auto") return OpenAny(options, selection);
  if (name == "cpu") return OpenCpuDevice(options);
  const bool first = name == "cuda" || name == "hip";
  const std::string full_name = StrCat(name, first ? ":0" : "");
  auto device = OpenBackendDevice(LibraryOf(name), full_name, options);
  if (device.ok()) return device;
  return absl::Status(device.status().code(),
                      StrCat("device ", full_name, ": ", device.status().message()));
}

}  // namespace fairlead
