// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only. Nothing is read until a page is touched. A file that is cut while it is
// mapped raises SIGBUS at the next touch, as any mapping does: model files must be replaced, not
// rewritten. Reading: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace fairlead {

// What tells a file that was changed from one that was not, without reading it. ctime is set by the
// kernel alone, at every change of the content: copying mtime back does not hide one.
struct FileStamp {
  uint64_t bytes = 0;
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
};

class MmapFile {
 public:
  // Errors name the path and carry errno's code and text: kNotFound, kPermissionDenied ...
  // kInvalidArgument for what is not a regular file, or has more than `max_bytes`.
  static absl::StatusOr<MmapFile> Open(const std::string& path, size_t max_bytes = SIZE_MAX);

  MmapFile() = default;  // empty
  ~MmapFile();
  MmapFile(MmapFile&& other) noexcept;
  MmapFile& operator=(MmapFile&& other) noexcept;
  MmapFile(const MmapFile&) = delete;
  MmapFile& operator=(const MmapFile&) = delete;

  // Starts at a page boundary; valid as long as this object, moved or not.
  absl::Span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), size_};
  }
  // As the file was when it was opened.
  const FileStamp& stamp() const { return stamp_; }

  // Whether a touch reads what lies around, too, as the system likes, or its page alone. A hint.
  void ReadAhead(bool ahead) const;
  // Takes the pages that were touched off the process; the system keeps or reads them again.
  void DropPages() const;

 private:
  MmapFile(void* data, size_t size, const FileStamp& stamp)
      : data_(data), size_(size), stamp_(stamp) {}

  void* data_ = nullptr;
  size_t size_ = 0;
  FileStamp stamp_;
};

// Begins to read mapped bytes that will be touched soon. A hint.
void ReadSoon(const std::byte* data, size_t bytes);

}  // namespace fairlead
