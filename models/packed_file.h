// SPDX-License-Identifier: Apache-2.0
// A file of packed weights: named runs of bytes, mapped and read in place. It holds weights and
// nothing else. All numbers are little-endian:
//   header:  "FLWEIGHT", u32 version, u32 0,
//            u64 bytes of the file, u64 bytes of the index, u64 hash of the index
//   index:   text identity, u32 n, n x { text key, u64 offset, u64 bytes }, u32 m, m x u64 hash
//   payload: from the next multiple of 4096 on the runs, each at one, zeros between
//
// A text is its u32 length and its bytes; an offset counts from the payload's begin. The m hashes
// are of the payload's chunks of 4 MiB. A hash is XXH3 of 64 bits.
//
// Every number is checked against the file before it is used, and every byte against a hash before
// the file is used at all: a file that is cut, damaged or another one's is an error, never a crash
// and never a wrong weight. The hashes find accidents, not forgeries: who can write the file can
// change the weights, as who can write the model's file can.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/mmap_file.h"

namespace fairlead {

inline constexpr uint32_t kPackedFileVersion = 1;

class PackedFile {
 public:
  // Reads all of the file, with `threads` threads (at least 1), and leaves it mapped. Errors say
  // what was met, without the path: kNotFound; kFailedPrecondition when the version or the identity
  // is another one; kDataLoss when it is damaged; or errno's of opening it.
  static absl::StatusOr<PackedFile> Open(const std::string& path, std::string_view identity,
                                         int threads);

  // Null if there is no such key. 4096-byte aligned, valid as long as this object, moved or not.
  const absl::Span<const std::byte>* Find(std::string_view key) const;
  size_t bytes() const { return file_.bytes().size(); }

 private:
  MmapFile file_;
  absl::flat_hash_map<std::string, absl::Span<const std::byte>> run_;
};

struct PackedRun {
  std::string key;
  absl::Span<const std::byte> bytes;  // may be empty
};

// Puts a file at `path`, readable by the user alone, or leaves what is there: written beside it
// under a name of its own, synchronised, then renamed, so that readers and other writers never see
// half of it. kCancelled as soon as `stop` is set.
absl::Status WritePackedFile(const std::string& path, std::string_view identity,
                             absl::Span<const PackedRun> runs, const std::atomic<bool>& stop);

// Removes what writers that were killed have left beside `path`.
void RemoveAbandonedFiles(const std::string& path);

}  // namespace fairlead
