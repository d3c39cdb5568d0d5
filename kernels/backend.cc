// SPDX-License-Identifier: Apache-2.0
#include "kernels/backend.h"

#include <dlfcn.h>

#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<Device>> OpenBackendDevice(const char* file, std::string_view name,
                                                          const DeviceOptions& options) {
  void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string error = dlerror();  // begins with the file that it is about
    if (error.starts_with(absl::StrCat(file, ": cannot open shared object file"))) {
      return absl::NotFoundError(absl::StrCat("backend ", file, " is not installed"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("backend ", file, " cannot be loaded: ", error));
  }
  void* symbol = dlsym(library, "fairlead_backend");
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(file, " is no backend of this program"));
  }
  const auto* api = static_cast<const BackendApi*>(symbol);
  if (std::strcmp(api->id, FAIRLEAD_BACKEND_ID) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(file, " is of build ", api->id, "; the program is of ", FAIRLEAD_BACKEND_ID));
  }
  return api->open(name, options);
}

}  // namespace fairlead
