// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <sys/stat.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "kernels/strings.h"
#include "models/fused_experts.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace fairlead {

int64_t WeightInfo::rows() const {
  int64_t rows = 1;  // fits: the reader has checked the product
  for (size_t i = 0; i + 1 < dim.size(); ++i) rows *= dim[i];
  return rows;
}

WeightBytes::WeightBytes(const WeightInfo& info, int64_t first, int64_t rows) {
  const size_t row_bytes = info.dim.empty() ? info.bytes : RowBytes(info.dtype, info.dim.back());
  if (!info.make) {
    data_ = info.data + static_cast<size_t>(first) * row_bytes;
    return;
  }
  made_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(rows) * row_bytes);
  info.make(first, rows, made_.get());
  data_ = made_.get();
}

std::string ShapeText(absl::Span<const int64_t> dim) {
  return StrCat("[", absl::StrJoin(dim, ", "), "]");
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, StrCat("cannot open model ", path));
  }
  if (S_ISDIR(info.st_mode)) {
    auto folder = OpenSafetensorsFolder(path);
    return folder.ok() ? SplitFusedExperts(*std::move(folder)) : std::move(folder);
  }
  if (absl::EndsWith(path, ".safetensors")) {
    return absl::InvalidArgumentError(
        StrCat(path, ": give the folder that holds it and config.json, not the file"));
  }
  return OpenGguf(path);
}

}  // namespace fairlead
