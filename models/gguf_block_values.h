// SPDX-License-Identifier: Apache-2.0
// Decoders of single blocks, for gguf_blocks.cc. A block is of the size that gguf_blocks.cc lists
// for it and need not be aligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fairlead {

// A block whose elements are d * scale * q, all exact: the scales belong to 16 elements each.
struct IntegerBlock {
  uint16_t d;  // f16
  int8_t scale[16];
  int8_t q[256];
};
void ReadTq1_0(const std::byte* block, IntegerBlock* out);
void ReadTq2_0(const std::byte* block, IntegerBlock* out);
void ReadIq3S(const std::byte* block, IntegerBlock* out);

// Blocks of other kinds as float32 values.
void DecodeIq1S(const std::byte* block, float* out);
void DecodeIq1M(const std::byte* block, float* out);
void DecodeIq2Xxs(const std::byte* block, float* out);
void DecodeIq2Xs(const std::byte* block, float* out);
void DecodeIq2S(const std::byte* block, float* out);
void DecodeIq3Xxs(const std::byte* block, float* out);
void DecodeNvfp4(const std::byte* block, float* out);  // 64 elements

}  // namespace fairlead
