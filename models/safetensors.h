// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders: config.json with model.safetensors, or with shards and
// model.safetensors.index.json. Format: u64 header length, header (JSON: name -> dtype, shape,
// data_offsets), data; see huggingface/safetensors README. What a "quantization_config" describes
// appears as plain weights, see quantized_tensors.h. See weights.h for errors and threads.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights.h"

namespace fairlead {

struct SafetensorsTable {
  std::vector<WeightInfo> tensors;     // in the order of their data
  std::vector<SkippedTensor> skipped;  // dtypes that no op takes
};

// Checks one whole .safetensors file that is in memory; the table points into `file`. The tensors
// must tile the data exactly: no hole, no overlap, nothing behind the last one.
absl::StatusOr<SafetensorsTable> ParseSafetensors(absl::Span<const std::byte> file,
                                                  const std::string& path_for_errors);

absl::StatusOr<std::unique_ptr<WeightSource>> OpenSafetensorsFolder(const std::string& path);

}  // namespace fairlead
