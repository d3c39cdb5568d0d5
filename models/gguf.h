// SPDX-License-Identifier: Apache-2.0
// GGUF files, versions 2 and 3, as a WeightSource. See weights.h for errors and threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/weights.h"

namespace fairlead {

absl::StatusOr<std::unique_ptr<WeightSource>> OpenGguf(const std::string& path);

// The same for a file that is in memory already. `bytes` must outlive the source.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenGgufBytes(absl::Span<const std::byte> bytes,
                                                            std::string path_for_errors);

// ggml's number of a dtype (enum ggml_type), as tensor descriptions hold it.
uint32_t GgmlTypeOf(DType dtype);

}  // namespace fairlead
