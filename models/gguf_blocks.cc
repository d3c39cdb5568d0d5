// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_blocks.h"

#include <array>
#include <cstring>

#include "kernels/half.h"
#include "models/gguf_block_values.h"

namespace fairlead {
namespace {

constexpr int kMaxElements = 256;

template <typename T>
void Put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
}

// ---- blocks of integers

// Writes a block of a dtype that holds them exactly.
using WriteIntegers = void(const IntegerBlock& from, int elements, std::byte* out);

// Nibbles of q + 8. The scales are all 1.
void WriteQ4_0(const IntegerBlock& from, int elements, std::byte* out) {
  for (int k = 0; k < elements; k += 32, out += 18) {
    Put(out, from.d);
    for (int i = 0; i < 16; ++i) {
      out[2 + i] = static_cast<std::byte>((from.q[k + i] + 8) | (from.q[k + i + 16] + 8) << 4);
    }
  }
}

// ql[128], qh[64], scales[16], d. In either half of 128 elements, l, l + 32, l + 64, l + 96 have
// the low nibbles of ql[l], ql[l + 32], then the high ones, and two bits each of qh[l].
void WriteQ6K(const IntegerBlock& from, int, std::byte* out) {
  for (int l = 0; l < 64; ++l) {
    const int8_t* q = from.q + l / 32 * 128 + l % 32;
    const int q0 = q[0] + 32, q1 = q[32] + 32, q2 = q[64] + 32, q3 = q[96] + 32;
    std::byte* ql = out + l / 32 * 64 + l % 32;
    ql[0] = static_cast<std::byte>((q0 & 15) | (q2 & 15) << 4);
    ql[32] = static_cast<std::byte>((q1 & 15) | (q3 & 15) << 4);
    out[128 + l] = static_cast<std::byte>(q0 >> 4 | q1 >> 4 << 2 | q2 >> 4 << 4 | q3 >> 4 << 6);
  }
  std::memcpy(out + 192, from.scale, 16);
  Put(out + 208, from.d);
}

template <int kElements, int kBytes, void (*kRead)(const std::byte*, IntegerBlock*)>
void DecodeIntegers(const std::byte* data, int64_t blocks, float* out) {
  IntegerBlock block;
  for (int64_t b = 0; b < blocks; ++b, data += kBytes, out += kElements) {
    kRead(data, &block);
    const float d = F16ToF32(block.d);
    for (int i = 0; i < kElements; ++i) {
      out[i] = d * static_cast<float>(block.scale[i / 16]) * static_cast<float>(block.q[i]);
    }
  }
}

template <int kElements, int kBytes, void (*kRead)(const std::byte*, IntegerBlock*), DType kMade,
          WriteIntegers* kWrite>
void MakeIntegers(const std::byte* data, int64_t blocks, std::byte* out) {
  IntegerBlock block;
  for (int64_t b = 0; b < blocks; ++b, data += kBytes, out += RowBytes(kMade, kElements)) {
    kRead(data, &block);
    kWrite(block, kElements, out);
  }
}

template <int kElements, int kBytes, void (*kRead)(const std::byte*, IntegerBlock*), DType kMade,
          WriteIntegers* kWrite>
constexpr GgufBlockFormat Integers(uint32_t number, std::string_view name) {
  return {.ggml_type = number,
          .name = name,
          .block_elements = kElements,
          .block_bytes = kBytes,
          .made = kMade,
          .decode = &DecodeIntegers<kElements, kBytes, kRead>,
          .make = &MakeIntegers<kElements, kBytes, kRead, kMade, kWrite>};
}

// ---- blocks of other values

template <int kElements, int kBytes, void (*kDecode)(const std::byte*, float*)>
void DecodeValues(const std::byte* data, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, data += kBytes, out += kElements) kDecode(data, out);
}

template <int kElements, int kBytes, void (*kDecode)(const std::byte*, float*)>
void MakeValues(const std::byte* data, int64_t blocks, std::byte* out) {
  float values[kMaxElements];
  for (int64_t b = 0; b < blocks; ++b, data += kBytes, out += 2 * kElements) {
    kDecode(data, values);
    for (int i = 0; i < kElements; ++i) Put(out + 2 * i, F32ToF16(values[i]));
  }
}

template <int kElements, int kBytes, void (*kDecode)(const std::byte*, float*)>
constexpr GgufBlockFormat Values(uint32_t number, std::string_view name) {
  return {.ggml_type = number,
          .name = name,
          .block_elements = kElements,
          .block_bytes = kBytes,
          .made = DType::kF16,
          .decode = &DecodeValues<kElements, kBytes, kDecode>,
          .make = &MakeValues<kElements, kBytes, kDecode>};
}

constexpr std::array kFormats = {
    Values<256, 66, &DecodeIq2Xxs>(16, "IQ2_XXS"),
    Values<256, 74, &DecodeIq2Xs>(17, "IQ2_XS"),
    Values<256, 98, &DecodeIq3Xxs>(18, "IQ3_XXS"),
    Values<256, 50, &DecodeIq1S>(19, "IQ1_S"),
    Integers<256, 110, &ReadIq3S, DType::kQ6_K, &WriteQ6K>(21, "IQ3_S"),
    Values<256, 82, &DecodeIq2S>(22, "IQ2_S"),
    Values<256, 56, &DecodeIq1M>(29, "IQ1_M"),
    Integers<256, 54, &ReadTq1_0, DType::kQ4_0, &WriteQ4_0>(34, "TQ1_0"),
    Integers<256, 66, &ReadTq2_0, DType::kQ4_0, &WriteQ4_0>(35, "TQ2_0"),
    Values<64, 36, &DecodeNvfp4>(40, "NVFP4"),
};

}  // namespace

absl::Span<const GgufBlockFormat> GgufBlockFormats() { return kFormats; }

const GgufBlockFormat* FindGgufBlockFormat(uint32_t ggml_type) {
  for (const GgufBlockFormat& format : kFormats) {
    if (format.ggml_type == ggml_type) return &format;
  }
  return nullptr;
}

}  // namespace fairlead
