// SPDX-License-Identifier: Apache-2.0
// A file of packed weights, as it is and with the hash of its index put right, without which little
// would be read. It is refused, or every run lies in it.
#include "models/packed_file.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "kernels/check.h"
#include "models/packed_file_format.h"
#include "tests/fuzz/entry.h"

namespace fairlead {
namespace {

void Open(std::string_view content) {
  const MemoryFile file(content);
  const auto packed = PackedFile::Open(file.path(), "identity", /*threads=*/1);
  if (!packed.ok()) return;
  FAIRLEAD_CHECK(packed->bytes() == content.size());
  for (const std::string_view key : {"a", "weight", ""}) {
    const absl::Span<const std::byte>* run = packed->Find(key);
    if (run == nullptr) continue;
    volatile unsigned char sum = 0;
    for (const std::byte byte : *run) {
      sum = static_cast<unsigned char>(sum ^ std::to_integer<unsigned char>(byte));
    }
  }
}

}  // namespace
}  // namespace fairlead

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  std::string content(reinterpret_cast<const char*>(data), size);
  Open(content);
  PackedHeader header;
  if (content.size() < sizeof(header)) return 0;
  std::memcpy(&header, content.data(), sizeof(header));
  header.file_bytes = content.size();
  header.index_bytes = std::min<uint64_t>(header.index_bytes, content.size() - sizeof(header));
  header.index_hash = XXH3_64bits(content.data() + sizeof(header), header.index_bytes);
  std::memcpy(content.data(), &header, sizeof(header));
  Open(content);
  return 0;
}
