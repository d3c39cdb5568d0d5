// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "kernels/strings.h"
#include "models/packed_file.h"
#include "models/packed_file_format.h"

namespace fairlead {
namespace {

constexpr char kTemporary[] = ".tmp";

absl::Status Errno(std::string_view what) { return absl::ErrnoToStatus(errno, AbslView(what)); }

absl::Status WriteAt(int fd, size_t offset, const std::byte* data, size_t size) {
  while (size > 0) {
    const ssize_t written = pwrite(fd, data, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Errno("cannot write");
    data += written;
    size -= static_cast<size_t>(written);
    offset += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

template <typename T>
void Append(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(std::string& to, std::string_view text) {
  Append(to, static_cast<uint32_t>(text.size()));
  to.append(text);
}

// Writes the payload front to back and hashes its chunks.
class PayloadWriter {
 public:
  PayloadWriter(int fd, size_t begin, const std::atomic<bool>& stop)
      : fd_(fd), position_(begin), stop_(stop) {}

  absl::Status Write(absl::Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      if (stop_) return absl::CancelledError("the program ends");
      const absl::Span<const std::byte> part = bytes.subspan(0, kPackedChunk - chunk_bytes_);
      if (absl::Status status = WriteAt(fd_, position_, part.data(), part.size()); !status.ok())
        return status;
      XXH3_64bits_update(&chunk_, part.data(), part.size());
      position_ += part.size();
      chunk_bytes_ += part.size();
      bytes.remove_prefix(part.size());
      if (chunk_bytes_ == kPackedChunk) EndChunk();
    }
    return absl::OkStatus();
  }
  absl::Status Pad() {
    const std::byte zeros[kPackedAlignment] = {};
    return Write(absl::MakeConstSpan(zeros, PackedRoundUp(position_) - position_));
  }
  std::vector<uint64_t> Finish() {
    if (chunk_bytes_ > 0) EndChunk();
    return std::move(hashes_);
  }

 private:
  void EndChunk() {
    hashes_.push_back(XXH3_64bits_digest(&chunk_));
    XXH3_64bits_reset(&chunk_);
    chunk_bytes_ = 0;
  }

  const int fd_;
  size_t position_;
  const std::atomic<bool>& stop_;
  XXH3_state_t chunk_ = [] {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    return state;
  }();
  size_t chunk_bytes_ = 0;
  std::vector<uint64_t> hashes_;
};

// The payload first: the index holds its hashes.
absl::Status WriteAll(int fd, std::string_view identity, absl::Span<const PackedRun> runs,
                      const std::atomic<bool>& stop) {
  std::string index;
  AppendText(index, identity);
  Append(index, static_cast<uint32_t>(runs.size()));
  size_t payload_bytes = 0;
  for (const PackedRun& run : runs) {
    AppendText(index, run.key);
    Append(index, uint64_t{payload_bytes});
    Append(index, uint64_t{run.bytes.size()});
    payload_bytes += PackedRoundUp(run.bytes.size());
  }
  const size_t chunks = (payload_bytes + kPackedChunk - 1) / kPackedChunk;
  const size_t payload_begin =
      PackedPayloadBegin(index.size() + sizeof(uint32_t) + chunks * sizeof(uint64_t));
  PayloadWriter payload(fd, payload_begin, stop);
  absl::Status status;
  for (const PackedRun& run : runs) {
    if (status.ok()) status = payload.Write(run.bytes);
    if (status.ok()) status = payload.Pad();
  }
  if (!status.ok()) return status;
  Append(index, static_cast<uint32_t>(chunks));
  for (const uint64_t hash : payload.Finish()) Append(index, hash);

  PackedHeader header = {.magic = {},
                         .version = kPackedFileVersion,
                         .zero = 0,
                         .file_bytes = payload_begin + payload_bytes,
                         .index_bytes = index.size(),
                         .index_hash = XXH3_64bits(index.data(), index.size())};
  std::memcpy(header.magic, kPackedMagic, sizeof(header.magic));
  status =
      WriteAt(fd, sizeof(header), reinterpret_cast<const std::byte*>(index.data()), index.size());
  if (!status.ok()) return status;
  // Without any payload the index ends before the place where it would begin.
  if (ftruncate(fd, static_cast<off_t>(header.file_bytes)) != 0) {
    return absl::ErrnoToStatus(errno, "the file cannot be given its size");
  }
  return WriteAt(fd, 0, reinterpret_cast<const std::byte*>(&header), sizeof(header));
}

void SyncFolder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);  // not durable at once where this fails; then the file is missing after a crash
  close(fd);
}

}  // namespace

absl::Status WritePackedFile(const std::string& path, std::string_view identity,
                             absl::Span<const PackedRun> runs, const std::atomic<bool>& stop) {
  const std::string temporary =
      StrCat(path, ".", static_cast<uint32_t>(std::random_device()()), kTemporary);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Errno("cannot create a file there");
  absl::Cleanup undo = [&] { unlink(temporary.c_str()); };
  const absl::Cleanup close_file = [fd] { close(fd); };
  flock(fd, LOCK_EX | LOCK_NB);  // says that a writer lives; see RemoveAbandonedFiles
  if (absl::Status status = WriteAll(fd, identity, runs, stop); !status.ok()) return status;
  if (fsync(fd) != 0) return Errno("cannot synchronise");
  if (rename(temporary.c_str(), path.c_str()) != 0) return Errno("cannot rename");
  std::move(undo).Cancel();
  SyncFolder(path);
  return absl::OkStatus();
}

void RemoveAbandonedFiles(const std::string& path) {
  const std::filesystem::path target(path);
  std::error_code error;
  std::filesystem::directory_iterator at(target.parent_path(), error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!absl::StartsWith(name, target.filename().string()) || !absl::EndsWith(name, kTemporary))
      continue;
    const int fd = open(at->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(at->path().c_str());
    close(fd);
  }
}

}  // namespace fairlead
