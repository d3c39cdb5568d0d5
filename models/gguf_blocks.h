// SPDX-License-Identifier: Apache-2.0
// Blocks of GGUF files in formats that no device computes, and what is made of them when they are
// read: a dtype that holds exactly the same values where there is one, otherwise f16, whose 11
// bits lose at most 2^-11 of a value (bf16's 8 bits 2^-8); below 2^-14 at most 2^-25, which is
// what the f16 scales of these blocks lose themselves; above 65504 it becomes infinity.
//   TQ1_0, TQ2_0      q4_0, exact: d times -1, 0, 1 (2)
//   IQ3_S             q6_k, exact: d times a 5-bit scale of 32 elements times -15 to 15
//   NVFP4             f16, exact: 2 significant bits times an e4m3 scale, 2^-10 to 2688
//   others            f16, rounded once
// Layouts and arithmetic: ggml-common.h and ggml-quants.c (dequantize_row_*). Any thread; no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace fairlead {

struct GgufBlockFormat {
  uint32_t ggml_type;     // enum ggml_type
  std::string_view name;  // ggml's
  int block_elements;
  int block_bytes;
  DType made;  // its blocks divide block_elements
  // `blocks` blocks as float32 values, the same bits as the gguf package's.
  void (*decode)(const std::byte* data, int64_t blocks, float* out);
  // `blocks` blocks as blocks of `made`.
  void (*make)(const std::byte* data, int64_t blocks, std::byte* out);
};

absl::Span<const GgufBlockFormat> GgufBlockFormats();
// Null for a number that is none of these.
const GgufBlockFormat* FindGgufBlockFormat(uint32_t ggml_type);

}  // namespace fairlead
