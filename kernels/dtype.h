// SPDX-License-Identifier: Apache-2.0
// Element types of tensors and weights, and the size of their blocks. Any thread; no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace fairlead {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kMXFP4,
  kIQ4_XS,
  kQ3_K,
  kQ2_K,
  kF8_E4M3  // 8 bits, 4 of exponent (bias 7), 3 of mantissa, no infinity; the largest is 448
};
inline constexpr int kNumDTypes = 18;

// A block is the smallest run of elements that is stored together in a file: 1 element for plain
// types, 32 or 256 for the quantised ones (layouts: GGUF specification, ggml-common.h block_q8_0,
// block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q4_K, block_q5_K, block_q6_K, block_iq4_nl,
// block_mxfp4, block_iq4_xs, block_q3_K, block_q2_K).
struct DTypeInfo {
  std::string_view name;  // "f32", "q4_1": what flags, errors and tables print
  int block_elements;
  int block_bytes;
};
const DTypeInfo& Info(DType dtype);
std::optional<DType> ParseDType(std::string_view name);

// Whether weights may be of it: not integers, and not f8_e4m3, which the KV cache alone has.
inline bool IsWeightType(DType dtype) { return dtype != DType::kI32 && dtype != DType::kF8_E4M3; }
inline bool IsQuantized(DType dtype) { return Info(dtype).block_elements > 1; }

// Bytes of `elements` values in a row; `elements` must be a multiple of the block.
inline size_t RowBytes(DType dtype, int64_t elements) {
  const DTypeInfo& info = Info(dtype);
  return static_cast<size_t>(elements / info.block_elements) * info.block_bytes;
}

}  // namespace fairlead
