// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_block_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/codebooks.h"
#include "kernels/half.h"
#include "models/iq_grids.h"

namespace fairlead {
namespace {

constexpr int kElements = 256;  // of a block, but for NVFP4

unsigned Byte(const std::byte* at, int i) { return std::to_integer<unsigned>(at[i]); }
unsigned Nibble(const std::byte* at, int i) { return Byte(at, i / 2) >> 4 * (i % 2) & 15; }
unsigned Word16(const std::byte* at, int i) { return Byte(at, 2 * i) | Byte(at, 2 * i + 1) << 8; }
uint32_t Word32(const std::byte* at, int i) {
  return Word16(at, 2 * i) | uint32_t{Word16(at, 2 * i + 1)} << 16;
}
float Half(const std::byte* at) { return F16ToF32(static_cast<uint16_t>(Word16(at, 0))); }

// The two bits of element i where 128 elements share 32 bytes: the lowest bits of all come first.
int TwoBits(const std::byte* qs, int i) {
  return static_cast<int>(Byte(qs, i / 128 * 32 + i % 32) >> 2 * (i % 128 / 32) & 3);
}

// Seven signs are stored; the eighth makes their number even.
unsigned EightSigns(unsigned seven) {
  return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7;
}

constexpr float kIq2Values[4] = {8, 25, 43};
constexpr float kIq3XxsValues[8] = {4, 12, 20, 28, 36, 44, 52, 62};

// 8 elements of an IQ2 block, scale * level * sign.
void DecodeIq2Group(float scale, uint16_t levels, unsigned signs, float* out) {
  for (int i = 0; i < 8; ++i) {
    const float value = scale * kIq2Values[levels >> 2 * i & 3];
    out[i] = signs >> i & 1 ? -value : value;
  }
}

// 8 elements of an IQ1 block, scale * (-1, 0 or 1, and 1/8 more or less).
void DecodeIq1Group(float scale, unsigned index, bool less, float* out) {
  const uint16_t levels = kIq1Grid[index];
  for (int i = 0; i < 8; ++i) {
    const float level = static_cast<float>(levels >> 2 * i & 3) - 1.0f;
    out[i] = scale * (level + (less ? -0.125f : 0.125f));
  }
}

// A scale of e4m3 without a sign, halved, as kFp4Values are doubled; 0x7f counts as 0 (ggml).
float UnsignedE4M3(unsigned bits) {
  if (bits == 0x7f) return 0.0f;
  const int exponent = static_cast<int>(bits >> 3 & 15);
  const auto mantissa = static_cast<float>(bits & 7);
  const float value =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(1.0f + mantissa / 8.0f, exponent - 7);
  return value * 0.5f;
}

}  // namespace

// qs[48], qh[4], d: a byte is five (qh: four) digits of base 3 as a fraction of 256.
void ReadTq1_0(const std::byte* block, IntegerBlock* out) {
  constexpr int kPowers[5] = {1, 3, 9, 27, 81};
  int i = 0;
  const auto read = [&](int at, int bytes, int digits) {
    for (int digit = 0; digit < digits; ++digit) {
      for (int b = 0; b < bytes; ++b) {
        const unsigned fraction = Byte(block, at + b) * kPowers[digit] & 0xff;
        out->q[i++] = static_cast<int8_t>(static_cast<int>(fraction * 3 >> 8) - 1);
      }
    }
  };
  read(0, 32, 5);
  read(32, 16, 5);
  read(48, 4, 4);
  out->d = static_cast<uint16_t>(Word16(block + 52, 0));
  std::fill_n(out->scale, 16, int8_t{1});
}

// qs[64], d.
void ReadTq2_0(const std::byte* block, IntegerBlock* out) {
  for (int i = 0; i < kElements; ++i) out->q[i] = static_cast<int8_t>(TwoBits(block, i) - 1);
  out->d = static_cast<uint16_t>(Word16(block + 64, 0));
  std::fill_n(out->scale, 16, int8_t{1});
}

// d, qs[64], qh[8], signs[32], scales[4]: a scale for 32 elements, an index for 4.
void ReadIq3S(const std::byte* block, IntegerBlock* out) {
  const std::byte *qs = block + 2, *qh = block + 66, *signs = block + 74, *scales = block + 106;
  for (int i = 0; i < kElements; ++i) {
    const int index = i / 4;
    const uint16_t levels =
        kIq3SGrid[Byte(qs, index) | (Byte(qh, index / 8) >> index % 8 & 1) << 8];
    const int value = 2 * (levels >> 3 * (i % 4) & 7) + 1;
    out->q[i] = static_cast<int8_t>(Byte(signs, i / 8) >> i % 8 & 1 ? -value : value);
  }
  for (int s = 0; s < 16; ++s) out->scale[s] = static_cast<int8_t>(2 * Nibble(scales, s / 2) + 1);
  out->d = static_cast<uint16_t>(Word16(block, 0));
}

// d, qs[32], qh[8] of 16 bits: for 32 elements a scale, a shift's sign and the high bits of four
// indices.
void DecodeIq1S(const std::byte* block, float* out) {
  const float d = Half(block);
  for (int g = 0; g < kElements / 8; ++g) {
    const unsigned word = Word16(block + 34, g / 4);
    const unsigned index = Byte(block + 2, g) | (word >> 3 * (g % 4) & 7) << 8;
    const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
    DecodeIq1Group(scale, index, word >> 15 & 1, out + 8 * g);
  }
}

// qs[32], qh[16], scales[4] of 16 bits: in each of these four scales of 16 elements and, on top, a
// quarter of d.
void DecodeIq1M(const std::byte* block, float* out) {
  const std::byte* scales = block + 48;
  unsigned bits = 0;
  for (int i = 0; i < 4; ++i) bits |= (Word16(scales, i) >> 12) << 4 * i;
  const float d = F16ToF32(static_cast<uint16_t>(bits));
  for (int g = 0; g < kElements / 8; ++g) {
    const int s = g / 2;
    const unsigned scale = 2 * (Word16(scales, s / 4) >> 3 * (s % 4) & 7) + 1;
    const unsigned high = Nibble(block + 32, g);
    DecodeIq1Group(d * static_cast<float>(scale), Byte(block, g) | (high & 7) << 8, high >> 3 & 1,
                   out + 8 * g);
  }
}

// d, qs[8] of 64 bits: of 32 elements four indices, then four times seven signs and a scale.
void DecodeIq2Xxs(const std::byte* block, float* out) {
  const float d = Half(block);
  for (int g = 0; g < kElements / 8; ++g) {
    const uint32_t word = Word32(block + 2, g / 4 * 2 + 1);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    const uint16_t levels = kIq2XxsGrid[Byte(block + 2, g / 4 * 8 + g % 4)];
    DecodeIq2Group(scale, levels, EightSigns(word >> 7 * (g % 4) & 127), out + 8 * g);
  }
}

// d, qs[32] of 16 bits: an index and seven signs; scales[8], a nibble for 16 elements.
void DecodeIq2Xs(const std::byte* block, float* out) {
  const float d = Half(block);
  for (int g = 0; g < kElements / 8; ++g) {
    const unsigned word = Word16(block + 2, g);
    const float scale = d * (0.5f + static_cast<float>(Nibble(block + 66, g / 2))) * 0.25f;
    DecodeIq2Group(scale, kIq2XsGrid[word & 511], EightSigns(word >> 9), out + 8 * g);
  }
}

// d, qs[32], signs[32], qh[8], scales[8].
void DecodeIq2S(const std::byte* block, float* out) {
  const float d = Half(block);
  for (int g = 0; g < kElements / 8; ++g) {
    const unsigned index = Byte(block + 2, g) | (Byte(block + 66, g / 4) >> 2 * (g % 4) & 3) << 8;
    const float scale = d * (0.5f + static_cast<float>(Nibble(block + 74, g / 2))) * 0.25f;
    DecodeIq2Group(scale, kIq2SGrid[index], Byte(block + 34, g), out + 8 * g);
  }
}

// d, qs[64], then 8 times 32 bits: of 32 elements four times seven signs and a scale.
void DecodeIq3Xxs(const std::byte* block, float* out) {
  const float d = Half(block);
  for (int i = 0; i < kElements; ++i) {
    const uint32_t word = Word32(block + 66, i / 32);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    const uint16_t levels = kIq3XxsGrid[Byte(block + 2, i / 4)];
    const float value = scale * kIq3XxsValues[levels >> 3 * (i % 4) & 7];
    const unsigned signs = EightSigns(word >> 7 * (i / 8 % 4) & 127);
    out[i] = signs >> i % 8 & 1 ? -value : value;
  }
}

// d[4], qs[32]: a scale for 16 elements, which 8 bytes hold.
void DecodeNvfp4(const std::byte* block, float* out) {
  for (int s = 0; s < 4; ++s) {
    const float scale = UnsignedE4M3(Byte(block, s));
    for (int i = 0; i < 16; ++i) {
      const unsigned nibble = Byte(block + 4, 8 * s + i % 8) >> (i < 8 ? 0 : 4) & 15;
      out[16 * s + i] = scale * kFp4Values[nibble];
    }
  }
}

}  // namespace fairlead
