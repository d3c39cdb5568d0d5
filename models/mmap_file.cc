// SPDX-License-Identifier: Apache-2.0
#include "models/mmap_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr int64_t kNanosecondsPerSecond = 1000000000;

}  // namespace

absl::StatusOr<MmapFile> MmapFile::Open(const std::string& path, size_t max_bytes) {
  // O_NONBLOCK: opening a named pipe must fail below, not wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, StrCat("cannot open ", path));
  const absl::Cleanup close_file = [fd] { close(fd); };
  struct stat info = {};
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, StrCat("cannot stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(StrCat(path, " is not a regular file"));
  }
  if (info.st_size == 0) return MmapFile();  // mmap refuses length 0
  if (static_cast<uint64_t>(info.st_size) > std::numeric_limits<size_t>::max()) {
    return absl::InvalidArgumentError(StrCat(path, " is larger than the address space"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        StrCat(path, " has ", size, " bytes; at most ", max_bytes, " are allowed"));
  }
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, StrCat("cannot map ", path));
  const auto nanoseconds = [](const timespec& t) {
    return t.tv_sec * kNanosecondsPerSecond + t.tv_nsec;
  };
  return MmapFile(data, size,
                  {.bytes = size,
                   .inode = info.st_ino,
                   .mtime_ns = nanoseconds(info.st_mtim),
                   .ctime_ns = nanoseconds(info.st_ctim)});
}

void MmapFile::ReadAhead(bool ahead) const {
  if (data_ != nullptr) madvise(data_, size_, ahead ? MADV_NORMAL : MADV_RANDOM);
}

void MmapFile::DropPages() const {
  if (data_ != nullptr) madvise(data_, size_, MADV_DONTNEED);
}

MmapFile::~MmapFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

void ReadSoon(const std::byte* data, size_t bytes) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t into_page = reinterpret_cast<uintptr_t>(data) % page;
  madvise(const_cast<std::byte*>(data) - into_page, bytes + into_page, MADV_WILLNEED);
}

MmapFile::MmapFile(MmapFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      stamp_(other.stamp_) {}

MmapFile& MmapFile::operator=(MmapFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(stamp_, other.stamp_);
  return *this;
}

}  // namespace fairlead
