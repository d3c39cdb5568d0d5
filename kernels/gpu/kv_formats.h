// SPDX-License-Identifier: Apache-2.0
// What the elements of the KV cache are: a struct a dtype.
//   Element         as it is stored
//   kElements       of a vector of 16 bytes
//   kScaled         whether a value wants its scale as a factor (q8_0)
//   Decode(v, out)  all elements of a vector, exact in f32
//   Encode(value)   the nearest element, ties to even (not for q8_0, whose scale comes first)
#pragma once

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/gpu/bits.h"

namespace fairlead::FAIRLEAD_GPU {

struct alignas(16) KvVector {
  uint32_t word[4];
};

struct KvF32 {
  using Element = float;
  static constexpr int kElements = 4;
  static constexpr bool kScaled = false;
  GPU_METHOD static void Decode(const KvVector& v, float (&out)[4]) {
    for (int i = 0; i < 4; ++i) out[i] = BitsFloat(v.word[i]);
  }
  GPU_METHOD static float Encode(float value) { return value; }
};

struct KvF16 {
  using Element = uint16_t;
  static constexpr int kElements = 8;
  static constexpr bool kScaled = false;
  // The sign stays, the 15 other bits go to where a float has them; the exponent's bias differs by
  // 112. The product makes subnormals right, too.
  GPU_METHOD static void Decode(const KvVector& v, float (&out)[8]) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t w = v.word[i];
      out[2 * i] = Scaled(static_cast<int32_t>(w << 16));
      out[2 * i + 1] = Scaled(static_cast<int32_t>(w));
      // An exponent of all ones in either: infinity or NaN, hardly ever.
      if ((((w & 0x7fff7fffu) + 0x04000400u) & 0x80008000u) != 0) {
        out[2 * i] = F16Value(static_cast<uint16_t>(w));
        out[2 * i + 1] = F16Value(static_cast<uint16_t>(w >> 16));
      }
    }
  }
  GPU_METHOD static uint16_t Encode(float value) { return F16Bits(value); }

 private:
  GPU_METHOD static float Scaled(int32_t high) {
    return BitsFloat(static_cast<uint32_t>(high >> 3) & 0x8fffe000u) * 0x1p112f;
  }
};

struct KvBF16 {
  using Element = uint16_t;
  static constexpr int kElements = 8;
  static constexpr bool kScaled = false;
  GPU_METHOD static void Decode(const KvVector& v, float (&out)[8]) {
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = BitsFloat(v.word[i] << 16);
      out[2 * i + 1] = BitsFloat(v.word[i] & 0xffff0000u);
    }
  }
  GPU_METHOD static uint16_t Encode(float value) {
    const uint32_t bits = FloatBits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};

// Open Compute Project, 8-bit floating point specification: no infinity, NaN is 0x7f or 0xff.
struct KvF8 {
  using Element = uint8_t;
  static constexpr int kElements = 16;
  static constexpr bool kScaled = false;
  // As f16, with a bias that differs by 120.
  GPU_METHOD static void Decode(const KvVector& v, float (&out)[16]) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t w = v.word[i];
      const bool nan = (((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u) != 0;
      for (int j = 0; j < 4; ++j) {
        const auto high = static_cast<int32_t>(w << (24 - 8 * j));
        const uint32_t bits = static_cast<uint32_t>(high >> 4) & 0x87f00000u;
        out[4 * i + j] = BitsFloat(bits) * 0x1p120f;
        if (nan && (bits & 0x7f00000u) == 0x7f00000u) out[4 * i + j] = BitsFloat(0x7fc00000u);
      }
    }
  }
  // What is larger than 448 becomes 448.
  GPU_METHOD static uint8_t Encode(float value) {
    const uint32_t bits = FloatBits(value);
    const uint32_t sign = (bits >> 24) & 0x80u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
    if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);
    if (magnitude < 0x3c800000u) {  // subnormal: add a float whose ulp is 2^-9, so it is rounded
      return static_cast<uint8_t>(sign | (FloatBits(BitsFloat(magnitude) + 0x1p14f) - 0x46800000u));
    }
    const uint32_t rounded = magnitude + 0x7ffffu + ((magnitude >> 20) & 1u);
    return static_cast<uint8_t>(sign | ((rounded - 0x3c000000u) >> 20));
  }
};

struct KvQ8 {
  using Element = int8_t;
  static constexpr int kElements = 16;
  static constexpr bool kScaled = true;
  // The integer plus 128 as the low bits of 2^23: cheaper than a conversion.
  GPU_METHOD static void Decode(const KvVector& v, float (&out)[16]) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t w = v.word[i] ^ 0x80808080u;
      for (int j = 0; j < 4; ++j) {
        out[4 * i + j] = BitsFloat(0x4b000000u | ((w >> 8 * j) & 0xffu)) - 8388736.0f;
      }
    }
  }
};

// with_format(KvF16()) and so on.
template <typename WithFormat>
void ForKvDtype(DType dtype, const WithFormat& with_format) {
  switch (dtype) {
    case DType::kF32:
      return with_format(KvF32());
    case DType::kF16:
      return with_format(KvF16());
    case DType::kBF16:
      return with_format(KvBF16());
    case DType::kQ8_0:
      return with_format(KvQ8());
    case DType::kF8_E4M3:
      return with_format(KvF8());
    default:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

}  // namespace fairlead::FAIRLEAD_GPU
