// SPDX-License-Identifier: Apache-2.0
// Writes GGUF files, version 3 (layout: ggml's docs/gguf.md, little-endian). One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace fairlead::bench {

using GgufValue = std::variant<std::string, uint32_t, float>;

class GgufWriter {
 public:
  void AddValue(std::string key, GgufValue value) {
    values_.emplace_back(std::move(key), std::move(value));
  }
  // `dim` is row-major, slowest first. `pieces` in order are the tensor's bytes; they outlive
  // Write.
  void AddTensor(std::string name, DType dtype, std::vector<int64_t> dim,
                 std::vector<absl::Span<const std::byte>> pieces);

  // kUnavailable when the file cannot be written.
  absl::Status Write(const std::string& path) const;
  void Write(std::ostream& out) const;

 private:
  struct TensorEntry {
    std::string name;
    DType dtype;
    std::vector<int64_t> dim;
    std::vector<absl::Span<const std::byte>> pieces;
    uint64_t bytes = 0;
  };
  std::vector<std::pair<std::string, GgufValue>> values_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace fairlead::bench
