// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/cuda/driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

// The part of the driver's interface that is used. Its values are for good; the toolkit's header
// (cuda.h) is not needed, so this is compiled and tested without a toolkit.
using Result = int;
constexpr Result kSuccess = 0;
constexpr Result kStubLibrary = 34;
constexpr Result kNoDevice = 100;
constexpr Result kSystemNotReady = 802;
constexpr Result kDriverMismatch = 803;
constexpr int kComputeModeAttribute = 20;
constexpr int kMajorAttribute = 75;
constexpr int kMinorAttribute = 76;
constexpr int kComputeModeProhibited = 2;

struct Driver {
  Result (*init)(unsigned flags);
  Result (*get_version)(int* version);
  Result (*get_count)(int* count);
  Result (*get_device)(int* device, int index);
  Result (*get_name)(char* name, int bytes, int device);
  Result (*get_attribute)(int* value, int attribute, int device);
  Result (*error_name)(Result, const char** text);
  Result (*error_text)(Result, const char** text);
};

std::string Version(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

template <typename Function>
bool Find(void* library, const char* symbol, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, symbol));
  return function != nullptr;
}

absl::StatusOr<Driver> LoadDriver(const char* file) {
  // Stays loaded: the runtime uses it, too.
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string error = dlerror();
    if (error.starts_with(absl::StrCat(file, ": cannot open shared object file"))) {
      return absl::NotFoundError(absl::StrCat("no NVIDIA driver (", file, " not found)"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver cannot be loaded: ", error));
  }
  Driver driver;
  if (Find(library, "cuInit", driver.init) &&
      Find(library, "cuDriverGetVersion", driver.get_version) &&
      Find(library, "cuDeviceGetCount", driver.get_count) &&
      Find(library, "cuDeviceGet", driver.get_device) &&
      Find(library, "cuDeviceGetName", driver.get_name) &&
      Find(library, "cuDeviceGetAttribute", driver.get_attribute) &&
      Find(library, "cuGetErrorName", driver.error_name) &&
      Find(library, "cuGetErrorString", driver.error_text)) {
    return driver;
  }
  return absl::FailedPreconditionError(absl::StrCat(file, " is no NVIDIA driver: ", dlerror()));
}

// "cuInit failed: CUDA_ERROR_UNKNOWN: unknown error"
absl::Status CallFailed(const Driver& driver, const char* call, Result result) {
  const char* name = nullptr;
  const char* text = nullptr;
  const bool known = driver.error_name(result, &name) == kSuccess &&
                     driver.error_text(result, &text) == kSuccess && name != nullptr &&
                     text != nullptr;
  std::string message = absl::StrCat(call, " failed: ");
  if (known) {
    absl::StrAppend(&message, name, ": ", text);
  } else {
    absl::StrAppend(&message, "error ", result);
  }
  if (result == kDriverMismatch) {
    absl::StrAppend(&message,
                    " (the kernel's driver module and libcuda.so.1 are of different versions: "
                    "reboot after a driver update, or install matching ones)");
  }
  if (result == kSystemNotReady) {
    absl::StrAppend(&message, " (on machines with NVSwitch the fabric manager must run)");
  }
  return absl::FailedPreconditionError(message);
}

absl::Status NoDevice() {
  return absl::NotFoundError(
      "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it, a container may lack it, "
      "and with MIG enabled an instance must exist)");
}

absl::Status StartDriver(const Driver& driver, const char* file, const CudaBuild& build) {
  int version = 0;
  if (const Result result = driver.get_version(&version); result == kStubLibrary) {
    return absl::FailedPreconditionError(
        absl::StrCat(file, " is the CUDA toolkit's stub library, not a driver"));
  } else if (result != kSuccess) {
    return CallFailed(driver, "cuDriverGetVersion", result);
  }
  // Any driver of a toolkit's major version runs what that toolkit compiles.
  const int needed = build.version / 1000 * 1000;
  if (version < needed) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver is too old: it is for CUDA ", Version(version),
                     ", this build needs CUDA ", Version(needed), " or newer"));
  }
  const Result result = driver.init(0);
  if (result == kNoDevice) return NoDevice();
  if (result != kSuccess) return CallFailed(driver, "cuInit", result);
  return absl::OkStatus();
}

// A code's compute capability; the suffix is "", "a" or "f".
struct Target {
  bool ptx = false;
  int major = 0, minor = 0;
  std::string_view suffix;
};

Target ParseTarget(std::string_view code) {
  Target target;
  target.ptx = code.starts_with("compute_");
  code.remove_prefix(std::min(code.size(), code.find('_') + 1));
  int capability = 0;
  const auto [end, error] = std::from_chars(code.data(), code.data() + code.size(), capability);
  target.suffix = code.substr(static_cast<size_t>(end - code.data()));
  target.major = capability / 10;
  target.minor = capability % 10;
  return target;
}

bool RunsOn(const Target& target, int major, int minor) {
  if (target.suffix == "a") return target.major == major && target.minor == minor;
  if (target.ptx && target.suffix.empty()) {
    return target.major < major || (target.major == major && target.minor <= minor);
  }
  return target.major == major && target.minor <= minor;
}

absl::Status CheckCode(const CudaGpu& gpu, int driver_version, const CudaBuild& build) {
  const CudaCode code = BestCudaCode(build.code, gpu.major, gpu.minor);
  if (code == CudaCode::kMachine) return absl::OkStatus();
  const std::string what =
      absl::StrCat(gpu.name, " has compute capability ", gpu.major, ".", gpu.minor, ", for which ");
  if (code == CudaCode::kNone) {
    return absl::FailedPreconditionError(
        StrCat(what, "this build has no code; it has ", build.code));
  }
  // The driver compiles it, and knows the versions of PTX up to its own.
  if (driver_version >= build.version) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      what, "this build has PTX, which needs a driver for CUDA ", Version(build.version),
      " or newer; this one is for CUDA ", Version(driver_version)));
}

}  // namespace

CudaCode BestCudaCode(std::string_view code, int major, int minor) {
  const std::vector<std::string> targets = absl::StrSplit(AbslView(code), ' ', absl::SkipEmpty());
  CudaCode best = CudaCode::kNone;
  for (const std::string& text : targets) {
    const Target target = ParseTarget(text);
    if (!RunsOn(target, major, minor)) continue;
    best = std::max(best, target.ptx ? CudaCode::kPtx : CudaCode::kMachine);
  }
  return best;
}

absl::StatusOr<CudaGpu> FindCudaGpu(const char* library, int index, const CudaBuild& build) {
  const absl::StatusOr<Driver> driver = LoadDriver(library);
  if (!driver.ok()) return driver.status();
  if (absl::Status status = StartDriver(*driver, library, build); !status.ok()) return status;
  int count = 0;
  if (const Result result = driver->get_count(&count); result != kSuccess) {
    return CallFailed(*driver, "cuDeviceGetCount", result);
  }
  if (count == 0) return NoDevice();
  if (index >= count) {
    return absl::NotFoundError(
        absl::StrCat("the NVIDIA driver shows ", count, count == 1 ? " GPU" : " GPUs",
                     ", numbered from 0 (CUDA_VISIBLE_DEVICES may hide others)"));
  }
  int device = 0, mode = 0, version = 0;
  char name[256] = {};
  CudaGpu gpu;
  for (const auto& [call, result] :
       {std::pair{"cuDeviceGet", driver->get_device(&device, index)},
        {"cuDeviceGetName", driver->get_name(name, sizeof(name) - 1, device)},
        {"cuDeviceGetAttribute", driver->get_attribute(&gpu.major, kMajorAttribute, device)},
        {"cuDeviceGetAttribute", driver->get_attribute(&gpu.minor, kMinorAttribute, device)},
        {"cuDriverGetVersion", driver->get_version(&version)},
        {"cuDeviceGetAttribute", driver->get_attribute(&mode, kComputeModeAttribute, device)}}) {
    if (result != kSuccess) return CallFailed(*driver, call, result);
  }
  gpu.name = name;
  if (absl::Status status = CheckCode(gpu, version, build); !status.ok()) return status;
  if (mode == kComputeModeProhibited) {
    return absl::FailedPreconditionError(
        absl::StrCat(gpu.name, " is in compute mode prohibited (nvidia-smi -c DEFAULT opens it)"));
  }
  return gpu;
}

}  // namespace fairlead
