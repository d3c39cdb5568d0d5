// SPDX-License-Identifier: Apache-2.0
// What the reader and the writer of packed_file.h share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fairlead {

inline constexpr char kPackedMagic[8] = {'F', 'L', 'W', 'E', 'I', 'G', 'H', 'T'};
inline constexpr size_t kPackedAlignment = 4096;
inline constexpr size_t kPackedChunk = size_t{4} << 20;

struct PackedHeader {
  char magic[8];
  uint32_t version;
  uint32_t zero;
  uint64_t file_bytes;
  uint64_t index_bytes;
  uint64_t index_hash;
};
static_assert(sizeof(PackedHeader) == 40);

// `bytes` is within a file's size, so nothing overflows.
inline size_t PackedRoundUp(size_t bytes) {
  return (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}
inline size_t PackedPayloadBegin(size_t index_bytes) {
  return PackedRoundUp(sizeof(PackedHeader) + index_bytes);
}

}  // namespace fairlead
