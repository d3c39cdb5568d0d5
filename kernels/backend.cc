// SPDX-License-Identifier: Apache-2.0
#include "kernels/backend.h"

#include <dlfcn.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<Device>> OpenBackendDevice(const char* file, std::string_view name,
                                                          const DeviceOptions& options) {
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(absl::StrCat("device ", std::string(name), ": ", dlerror()));
  }
  void* symbol = dlsym(library, "fairlead_backend");
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", std::string(name), ": ", file, " is no backend of this program"));
  }
  const auto* api = static_cast<const BackendApi*>(symbol);
  if (std::strcmp(api->id, FAIRLEAD_BACKEND_ID) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("device ", std::string(name), ": ", file,
                                                      " is of build ", api->id,
                                                      "; the program is of ", FAIRLEAD_BACKEND_ID));
  }
  return api->open(name, options);
}

}  // namespace fairlead
