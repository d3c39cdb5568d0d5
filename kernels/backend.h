// SPDX-License-Identifier: Apache-2.0
// Backends that are shared objects, opened when a device of theirs is asked for: so one binary runs
// with and without them, and with and without their drivers. Any thread.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace fairlead {

// What such a library exports, as the C symbol `fairlead_backend`.
struct BackendApi {
  const char* id;  // FAIRLEAD_BACKEND_ID: version and hash of the headers between both
  absl::StatusOr<std::unique_ptr<Device>> (*open)(std::string_view name,
                                                  const DeviceOptions& options);
};

// Opens `name` by the library `file` ("libfairlead_host.so"), which is looked for beside the
// program and where the system looks. Libraries stay loaded. kNotFound: no such library;
// kFailedPrecondition: it cannot be loaded, with the loader's words, or is of another build; else
// what the backend says. No message repeats the name.
absl::StatusOr<std::unique_ptr<Device>> OpenBackendDevice(const char* file, std::string_view name,
                                                          const DeviceOptions& options);

}  // namespace fairlead
