// SPDX-License-Identifier: Apache-2.0
#include "models/packed_file.h"

#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/strings.h"
#include "models/packed_file_format.h"

#ifndef MADV_POPULATE_READ  // Linux 5.14; older ones refuse it, and pages come one by one
#define MADV_POPULATE_READ 22
#endif

namespace fairlead {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is read in place");

// A fault at a time would read storage in small pieces, so this much is asked for ahead.
constexpr size_t kReadAhead = size_t{64} << 20;

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(StrCat("it is damaged: ", what));
}

// Reads numbers and texts off the index; `ok` is false from the first one on that is not there.
class IndexCursor {
 public:
  explicit IndexCursor(absl::Span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Read() {
    T value{};
    if (!Take(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data() + position_ - sizeof(T), sizeof(T));
    return value;
  }
  std::string_view ReadText() {
    const size_t size = Read<uint32_t>();
    if (!Take(size)) return {};
    return {reinterpret_cast<const char*>(bytes_.data()) + position_ - size, size};
  }
  // At most as many as the bytes that are left can hold.
  uint32_t ReadCount(size_t least_bytes) {
    const uint32_t count = Read<uint32_t>();
    if (count > (bytes_.size() - position_) / least_bytes) ok_ = false;
    return ok_ ? count : 0;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && position_ == bytes_.size(); }

 private:
  bool Take(size_t size) {
    if (!ok_ || size > bytes_.size() - position_) return ok_ = false;
    position_ += size;
    return true;
  }

  absl::Span<const std::byte> bytes_;
  size_t position_ = 0;
  bool ok_ = true;
};

absl::StatusOr<PackedHeader> ReadHeader(absl::Span<const std::byte> file) {
  PackedHeader header;
  if (file.size() < sizeof(header)) return Damaged("it is shorter than its header");
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, kPackedMagic, sizeof(header.magic)) != 0) {
    return Damaged("it does not start as one");
  }
  if (header.version != kPackedFileVersion) {
    return absl::FailedPreconditionError(
        StrCat("it has the version ", header.version, ", not ", kPackedFileVersion));
  }
  if (header.zero != 0 || header.file_bytes != file.size() ||
      header.index_bytes > file.size() - sizeof(header)) {
    return Damaged("its size is not the one it says");
  }
  return header;
}

// One chunk; false where it does not read or does not match.
bool CheckChunk(absl::Span<const std::byte> payload, size_t index, uint64_t hash) {
  const size_t begin = index * kPackedChunk;
  const auto range = [&](size_t from, size_t size, int advice) {
    // Whole pages. A mapping has them all, also the one that its end cuts.
    auto* first = const_cast<std::byte*>(payload.data()) + std::min(from, payload.size());
    const size_t into_page = reinterpret_cast<uintptr_t>(first) % kPackedAlignment;
    const size_t bytes = std::min(size, payload.size() - std::min(from, payload.size()));
    return bytes == 0 || madvise(first - into_page, bytes + into_page, advice) == 0;
  };
  range(begin + kReadAhead, kPackedChunk, MADV_WILLNEED);
  // Beside being fast it says so when storage fails, where touching would kill the process.
  if (!range(begin, kPackedChunk, MADV_POPULATE_READ) && errno != EINVAL) return false;
  const size_t size = std::min(kPackedChunk, payload.size() - begin);
  return XXH3_64bits(payload.data() + begin, size) == hash;
}

absl::Status CheckChunks(absl::Span<const std::byte> payload, const std::vector<uint64_t>& hashes,
                         int threads) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> damaged = false;
  const auto work = [&] {
    for (size_t i = next++; i < hashes.size() && !damaged; i = next++) {
      if (!CheckChunk(payload, i, hashes[i])) damaged = true;
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (size_t i = 1; i < std::min<size_t>(threads, hashes.size()); ++i) {
      helpers.emplace_back(work);
    }
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  return damaged ? Damaged("its content does not match its checksums") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<PackedFile> PackedFile::Open(const std::string& path, std::string_view identity,
                                            int threads) {
  absl::StatusOr<MmapFile> mapped = MmapFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  PackedFile packed;
  packed.file_ = *std::move(mapped);
  const absl::Span<const std::byte> file = packed.file_.bytes();
  const absl::StatusOr<PackedHeader> header = ReadHeader(file);
  if (!header.ok()) return header.status();
  const absl::Span<const std::byte> index = file.subspan(sizeof(*header), header->index_bytes);
  if (XXH3_64bits(index.data(), index.size()) != header->index_hash) {
    return Damaged("its index does not match its checksum");
  }
  const size_t payload_begin = PackedPayloadBegin(index.size());
  if (payload_begin > file.size()) return Damaged("it ends before its payload");
  const absl::Span<const std::byte> payload = file.subspan(payload_begin);
  if (std::any_of(index.end(), payload.begin(), [](std::byte b) { return b != std::byte{0}; })) {
    return Damaged("its index does not end with zeros");
  }

  IndexCursor in(index);
  if (in.ReadText() != identity) {
    return absl::FailedPreconditionError("it was made from another file, or for another layout");
  }
  const uint32_t count = in.ReadCount(4 + 8 + 8);
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    const std::string_view key = in.ReadText();
    const uint64_t offset = in.Read<uint64_t>(), bytes = in.Read<uint64_t>();
    if (offset % kPackedAlignment != 0 || offset > payload.size() ||
        bytes > payload.size() - offset) {
      return Damaged("an entry lies outside it");
    }
    packed.run_.try_emplace(std::string(key), payload.subspan(offset, bytes));
  }
  std::vector<uint64_t> hashes(in.ReadCount(8));
  for (uint64_t& hash : hashes) hash = in.Read<uint64_t>();
  if (!in.at_end() || hashes.size() != (payload.size() + kPackedChunk - 1) / kPackedChunk) {
    return Damaged("its index does not read");
  }
  absl::Status status = CheckChunks(payload, hashes, threads);
  if (!status.ok()) return status;
  return packed;
}

const absl::Span<const std::byte>* PackedFile::Find(std::string_view key) const {
  const auto found = run_.find(AbslView(key));
  return found == run_.end() ? nullptr : &found->second;
}

}  // namespace fairlead
