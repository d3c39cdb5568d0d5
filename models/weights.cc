// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "kernels/strings.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace fairlead {

WeightBytes::WeightBytes(const WeightInfo& info) : data_(info.data) {
  if (!info.make) return;
  made_ = std::make_unique_for_overwrite<std::byte[]>(info.bytes);
  info.make(made_.get());
  data_ = made_.get();
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, StrCat("cannot open model ", path));
  }
  if (S_ISDIR(info.st_mode)) return OpenSafetensorsFolder(path);
  if (absl::EndsWith(path, ".safetensors")) {
    return absl::InvalidArgumentError(
        StrCat(path, ": give the folder that holds it and config.json, not the file"));
  }
  return OpenGguf(path);
}

}  // namespace fairlead
