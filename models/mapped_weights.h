// SPDX-License-Identifier: Apache-2.0
// The one WeightSource: what a reader has found in its files, and the mappings that keep the bytes
// alive.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/json.h"
#include "models/mmap_file.h"
#include "models/weights.h"

namespace fairlead {

struct CheckpointContents {
  WeightFormat format = WeightFormat::kGguf;
  std::string path;
  std::vector<MmapFile> files;  // empty where the caller keeps the bytes
  std::vector<WeightInfo> tensors;
  std::vector<SkippedTensor> skipped;
  Json config;
  Json metadata;
};

// kInvalidArgument if two tensors have one name. Immutable afterwards: any thread.
absl::StatusOr<std::unique_ptr<WeightSource>> MakeMappedWeights(CheckpointContents contents);

// A run of bytes that a tensor takes.
struct TensorExtent {
  size_t begin;
  size_t end;
  std::string_view name;
};

// Sorts by place. kInvalidArgument names the first two that share a byte, and its offset.
absl::Status CheckDisjoint(std::vector<TensorExtent>& extents, const std::string& path);

// A name from a file, fit to print: escaped, cut, in quotes.
std::string Quoted(std::string_view name);

// The product, or false if it does not fit.
bool CheckedProduct(absl::Span<const int64_t> dims, int64_t* product);

}  // namespace fairlead
