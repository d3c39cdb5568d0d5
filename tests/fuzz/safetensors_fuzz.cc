// SPDX-License-Identifier: Apache-2.0
// A .safetensors file. It is refused, or its tensors tile its data: each byte belongs to one.
#include "models/safetensors.h"

#include <cstring>

#include "kernels/check.h"
#include "models/mapped_weights.h"
#include "tests/fuzz/entry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fairlead;  // NOLINT: a fuzz entry
  const auto bytes = OwnBytes({reinterpret_cast<const char*>(data), size});
  const auto table = ParseSafetensors(bytes, "input");
  if (!table.ok()) return 0;
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  size_t total = sizeof(header) + header;
  std::vector<TensorExtent> extents;
  const auto add = [&](const std::byte* begin, size_t count, std::string_view name) {
    const auto at = static_cast<size_t>(begin - bytes.data());
    FAIRLEAD_CHECK(at >= sizeof(header) + header && at <= size && count <= size - at);
    extents.push_back({at, at + count, name});
    total += count;
  };
  for (const WeightInfo& tensor : table->tensors) {
    int64_t elements = 1;
    for (const int64_t dim : tensor.dim) elements *= dim;
    FAIRLEAD_CHECK(static_cast<size_t>(elements) *
                       static_cast<size_t>(Info(tensor.dtype).block_bytes) ==
                   tensor.bytes);
    add(tensor.data, tensor.bytes, tensor.name);
  }
  for (const SkippedTensor& tensor : table->skipped) add(tensor.data, tensor.bytes, tensor.name);
  FAIRLEAD_CHECK(total == size && CheckDisjoint(extents, "input").ok());
  return 0;
}
