// SPDX-License-Identifier: Apache-2.0
// The parts of a GGUF file before its data, as they are written: header, metadata, tensor
// descriptions. Layout: ggml's docs/gguf.md, little-endian. Every length is compared with what is
// left of the file before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/json.h"

namespace fairlead {

// Reads values front to back. The first failure sticks: later reads give zero or "", status() tells
// the file, the subject and the byte. One thread.
class GgufCursor {
 public:
  // Both outlive the cursor.
  GgufCursor(absl::Span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(path) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // What messages say is being read: `metadata key "llama.block_count"`.
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  template <typename T>
  T Read(std::string_view what) {
    T value{};
    if (!Need(sizeof(T), what)) return value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  // u64 length, then that many bytes, at most max_bytes. Points into the file.
  std::string_view ReadString(std::string_view what, uint64_t max_bytes);

  // u64 count, at most max_count, of things that take at least min_bytes each. What it gives is
  // safe to reserve.
  uint64_t ReadCount(std::string_view what, size_t min_bytes, uint64_t max_count);

  // Records the failure unless there is one already.
  void Fail(absl::StatusCode code, std::string_view message);
  void Malformed(std::string_view message) { Fail(absl::StatusCode::kInvalidArgument, message); }

 private:
  bool Need(uint64_t size, std::string_view what);

  const absl::Span<const std::byte> bytes_;
  const std::string& path_;
  size_t position_ = 0;
  std::string subject_;
  absl::Status status_;
};

struct GgufTensor {
  std::string_view name;      // points into the file
  std::vector<int64_t> dims;  // as in the file: fastest first; each >= 1
  uint32_t type = 0;
  uint64_t offset = 0;      // into the data section
  size_t described_at = 0;  // byte of the file where its description starts
};

struct GgufHeader {
  Json metadata;  // object, in the file's order
  std::vector<GgufTensor> tensors;
  size_t alignment = 32;
  size_t data_start = 0;  // may lie beyond the end of a file that has no tensors
};

// kInvalidArgument: truncated or malformed. kUnimplemented: a version other than 2 and 3, a split
// file.
absl::StatusOr<GgufHeader> ReadGgufHeader(absl::Span<const std::byte> bytes,
                                          const std::string& path);

}  // namespace fairlead
