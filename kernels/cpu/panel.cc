// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/panel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/codebooks.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

constexpr int kBlock = 32;        // elements of a plain quantised block, or of a sub-block
constexpr int kSuperBlock = 256;  // elements of the other quantised blocks
constexpr int kGroups = kBlock / 8;
constexpr size_t kWords = 4 * kPanelRows;  // bytes of one u32 a row

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void Store(std::byte* to, uint32_t word) { std::memcpy(to, &word, sizeof(word)); }

// ---- writing

using Rows = const std::byte* const (&)[kPanelRows];

// Columns per pass over the 16 rows: a tile of source and target stays in L1.
constexpr int64_t kTransposeColumns = 64;

template <typename T>
void PackPlainPanel(Rows rows, int64_t cols, std::byte* out) {
  T* to = reinterpret_cast<T*>(out);
  for (int64_t begin = 0; begin < cols; begin += kTransposeColumns) {
    const int64_t end = std::min(cols, begin + kTransposeColumns);
    for (int r = 0; r < kPanelRows; ++r) {
      const std::byte* from = rows[r];
      for (int64_t k = begin; k < end; ++k) {
        std::memcpy(to + k * kPanelRows + r, from + k * sizeof(T), sizeof(T));
      }
    }
  }
}

// What the kernels read of 32 elements: 8 of them in each of the words, a byte each.
using Bytes32 = uint64_t[kGroups];

constexpr uint64_t Repeat(uint8_t byte) { return byte * 0x0101010101010101ull; }

// The bytes 0, 2, 4, 6.
uint32_t EvenBytes(uint64_t bytes) {
  bytes &= 0x00ff00ff00ff00ffull;
  bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffull;
  return static_cast<uint32_t>(bytes | bytes >> 16);
}
uint32_t OddBytes(uint64_t bytes) { return EvenBytes(bytes >> 8); }

// Eight bytes whose low nibbles hold values, to one nibble each: byte i becomes nibble i.
uint32_t JoinNibbles(uint64_t bytes) {
  bytes &= Repeat(0x0f);
  return EvenBytes(bytes | bytes >> 4);
}

// Eight bits, to the lowest bit of a byte each.
uint64_t SpreadBits(uint8_t bits) {
  const uint64_t placed = Repeat(bits) & 0x8040201008040201ull;
  return (placed + Repeat(0x7f)) >> 7 & Repeat(1);
}

void StoreNibbles(const Bytes32& q, std::byte* out) {
  for (int g = 0; g < kGroups; ++g) Store(out + g * kWords, JoinNibbles(q[g]));
}

// The `bits` bits from bit `first` on of the elements of groups [begin, end), as quads side by
// side.
uint32_t QuadBits(const Bytes32& q, int begin, int end, int first, int bits) {
  const uint64_t mask = Repeat(static_cast<uint8_t>((1 << bits) - 1));
  uint32_t word = 0;
  for (int g = begin, shift = 0; g < end; ++g, shift += 2 * bits) {
    const uint64_t high = q[g] >> first & mask;
    word |= EvenBytes(high) << shift | OddBytes(high) << (shift + bits);
  }
  return word;
}

// Each of the Pack...Block functions writes row `lane` of one block.

void PackQ8Block(const std::byte* from, int lane, std::byte* out) {
  std::memcpy(out + 2 * lane, from, 2);
  out += 2 * kPanelRows + 4 * lane;
  for (int g = 0; g < kGroups; ++g, out += 2 * kWords) {
    const auto bytes = Load<uint64_t>(from + 2 + 8 * g);
    Store(out, EvenBytes(bytes));
    Store(out + kWords, OddBytes(bytes));
  }
}

// 16 bytes: byte i holds element i low and element i + 16 high.
void UnpackNibbles(const std::byte* from, Bytes32& q) {
  for (int g = 0; g < kGroups; ++g) {
    q[g] = Load<uint64_t>(from + 8 * (g % 2)) >> 4 * (g / 2) & Repeat(0x0f);
  }
}

// A file block is d (and m), then the nibbles.
template <int kScales>
void PackQ4Block(const std::byte* from, int lane, std::byte* out) {
  for (int s = 0; s < kScales; ++s) std::memcpy(out + 2 * (s * kPanelRows + lane), from + 2 * s, 2);
  Bytes32 q;
  UnpackNibbles(from + 2 * kScales, q);
  StoreNibbles(q, out + 2 * kScales * kPanelRows + 4 * lane);
}

// d (and m), 32 fifth bits, nibbles.
template <int kScales>
void PackQ5Block(const std::byte* from, int lane, std::byte* out) {
  for (int s = 0; s < kScales; ++s) std::memcpy(out + 2 * (s * kPanelRows + lane), from + 2 * s, 2);
  from += 2 * kScales;
  out += 2 * kScales * kPanelRows + 4 * lane;
  Bytes32 q;
  UnpackNibbles(from + 4, q);
  for (int g = 0; g < kGroups; ++g) q[g] |= SpreadBits(Load<uint8_t>(from + g)) << 4;
  Store(out, QuadBits(q, 0, kGroups, 4, 1));
  StoreNibbles(q, out + kWords);
}

// Sub-block s's 6-bit scale and minimum in the 12 bytes of q4_k and q5_k (ggml-quants.c,
// get_scale_min_k4): of the first four in the low bits of byte s and s + 4, of the others four bits
// in byte s + 4 and two on top of the first eight bytes.
struct ScaleMin {
  uint8_t scale, minimum;
};
ScaleMin UnpackScaleMin(const std::byte* from, int s) {
  const auto at = [&](int i) { return Load<uint8_t>(from + i); };
  const auto byte = [](int value) { return static_cast<uint8_t>(value); };
  if (s < 4) return {byte(at(s) & 63), byte(at(s + 4) & 63)};
  return {byte((at(s + 4) & 15) | at(s - 4) >> 6 << 4), byte(at(s + 4) >> 4 | at(s) >> 6 << 4)};
}

// d, dmin, 12 bytes of scales and minimums, q5_k's fifth bits (32 bytes: bit s of byte i belongs to
// element i of sub-block s), nibbles (32 bytes for two sub-blocks: low halves, high halves).
template <bool kFifthBits>
void PackKBlock(const std::byte* from, int lane, std::byte* out) {
  std::memcpy(out + 2 * lane, from, 2);
  std::memcpy(out + 2 * (kPanelRows + lane), from + 2, 2);
  std::byte* scales = out + 4 * kPanelRows + lane;
  std::byte* high = scales - lane + 16 * kPanelRows + 4 * lane;
  std::byte* nibbles = high + (kFifthBits ? 8 * kWords : 0);
  const std::byte* file_high = from + 16;
  const std::byte* file_nibbles = file_high + (kFifthBits ? 32 : 0);
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sm = UnpackScaleMin(from + 4, s);
    scales[s * kPanelRows] = std::byte{sm.scale};
    scales[(8 + s) * kPanelRows] = std::byte{sm.minimum};
    Bytes32 q;
    for (int g = 0; g < kGroups; ++g) {
      q[g] = Load<uint64_t>(file_nibbles + s / 2 * 32 + 8 * g) >> 4 * (s % 2) & Repeat(0x0f);
      if (kFifthBits) q[g] |= (Load<uint64_t>(file_high + 8 * g) >> s & Repeat(1)) << 4;
    }
    if (kFifthBits) Store(high + s * kWords, QuadBits(q, 0, kGroups, 4, 1));
    StoreNibbles(q, nibbles + s * kGroups * kWords);
  }
}

// 128 bytes of nibbles, 64 of upper bits, 16 scales, d. In each half of 128 elements, 32 elements
// from 32 * r on have their nibbles in half r / 2 of bytes 32 * (r % 2) + i, their upper bits from
// bit 2 * r on of byte i.
void PackQ6KBlock(const std::byte* from, int lane, std::byte* out) {
  const std::byte* file_high = from + 128;
  const std::byte* file_scales = from + 192;
  std::memcpy(out + 2 * lane, from + 208, 2);
  std::byte* scales = out + 2 * kPanelRows;
  std::byte* high = scales + 16 * kPanelRows + 4 * lane;
  std::byte* nibbles = high + 16 * kWords;
  for (int s = 0; s < 16; ++s) scales[s * kPanelRows + lane] = file_scales[s];
  for (int s = 0; s < 8; ++s) {
    const int half = s / 4, r = s % 4;
    Bytes32 q;
    for (int g = 0; g < kGroups; ++g) {
      const std::byte* low = from + 64 * half + 32 * (r % 2) + 8 * g;
      q[g] = Load<uint64_t>(low) >> 4 * (r / 2) & Repeat(0x0f);
      q[g] |= (Load<uint64_t>(file_high + 32 * half + 8 * g) >> 2 * r & Repeat(3)) << 4;
    }
    Store(high + 2 * s * kWords, QuadBits(q, 0, 2, 4, 2));
    Store(high + (2 * s + 1) * kWords, QuadBits(q, 2, 4, 4, 2));
    StoreNibbles(q, nibbles + s * kGroups * kWords);
  }
}

// An exponent, nibbles.
void PackMxfp4Block(const std::byte* from, int lane, std::byte* out) {
  out[lane] = from[0];
  Bytes32 q;
  UnpackNibbles(from + 1, q);
  StoreNibbles(q, out + kPanelRows + 4 * lane);
}

// d, the high bits of the scales (16 bits), their low nibbles (4 bytes), nibbles as in q4_0.
void PackIq4XsBlock(const std::byte* from, int lane, std::byte* out) {
  std::memcpy(out + 2 * lane, from, 2);
  std::byte* scales = out + 2 * kPanelRows + lane;
  std::byte* nibbles = out + 10 * kPanelRows + 4 * lane;
  for (int s = 0; s < 8; ++s) {
    const int low = Load<uint8_t>(from + 4 + s / 2) >> 4 * (s % 2) & 15;
    const int high = Load<uint16_t>(from + 2) >> 2 * s & 3;
    scales[s * kPanelRows] = static_cast<std::byte>((low | high << 4) - 32);
    Bytes32 q;
    UnpackNibbles(from + 8 + 16 * s, q);
    StoreNibbles(q, nibbles + s * kGroups * kWords);
  }
}

// Of 32 elements of 2 bits, `s` of 8: of q2_k and q3_k, in either half of 128 elements bits 2 r and
// 2 r + 1 of byte i belong to element 32 r + i.
void UnpackTwoBits(const std::byte* from, int s, Bytes32& q) {
  for (int g = 0; g < kGroups; ++g) {
    q[g] = Load<uint64_t>(from + 32 * (s / 4) + 8 * g) >> 2 * (s % 4) & Repeat(3);
  }
}

void StoreTwoBits(const Bytes32& q, std::byte* out) {
  Store(out, QuadBits(q, 0, 2, 0, 2));
  Store(out + kWords, QuadBits(q, 2, 4, 0, 2));
}

// Third bits (32 bytes: bit s of byte i belongs to element 32 s + i), two bits (64 bytes), 16
// scales of 6 bits (low nibbles in 8 bytes, the others in 4), d.
void PackQ3KBlock(const std::byte* from, int lane, std::byte* out) {
  std::memcpy(out + 2 * lane, from + 108, 2);
  std::byte* scales = out + 2 * kPanelRows + lane;
  std::byte* high = out + 18 * kPanelRows + 4 * lane;
  std::byte* low = high + 8 * kWords;
  for (int s = 0; s < 16; ++s) {
    const int nibble = Load<uint8_t>(from + 96 + s % 8) >> (s < 8 ? 0 : 4) & 15;
    const int upper = Load<uint8_t>(from + 104 + s % 4) >> 2 * (s / 4) & 3;
    scales[s * kPanelRows] = static_cast<std::byte>((nibble | upper << 4) - 32);
  }
  for (int s = 0; s < 8; ++s) {
    Bytes32 q;
    UnpackTwoBits(from + 32, s, q);
    StoreTwoBits(q, low + 2 * s * kWords);
    for (int g = 0; g < kGroups; ++g) q[g] = Load<uint64_t>(from + 8 * g) >> s & Repeat(1);
    Store(high + s * kWords, QuadBits(q, 0, kGroups, 0, 1));
  }
}

// 16 bytes with a scale and a minimum each, two bits (64 bytes), d, dmin.
void PackQ2KBlock(const std::byte* from, int lane, std::byte* out) {
  std::memcpy(out + 2 * lane, from + 80, 2);
  std::memcpy(out + 2 * (kPanelRows + lane), from + 82, 2);
  for (int s = 0; s < 16; ++s) out[(4 + s) * kPanelRows + lane] = from[s];
  for (int s = 0; s < 8; ++s) {
    Bytes32 q;
    UnpackTwoBits(from + 16, s, q);
    StoreTwoBits(q, out + 20 * kPanelRows + 4 * lane + 2 * s * kWords);
  }
}

template <typename PackBlock>
void PackBlocks(DType dtype, Rows rows, int64_t cols, std::byte* out, PackBlock pack) {
  const DTypeInfo& info = Info(dtype);
  for (int64_t b = 0; b < cols / info.block_elements; ++b) {
    for (int r = 0; r < kPanelRows; ++r) pack(rows[r] + b * info.block_bytes, r, out);
    out += PackedBlockBytes(dtype) * kPanelRows;
  }
}

// ---- reading

float LoadF16(const std::byte* from) { return F16ToF32(Load<uint16_t>(from)); }

// The nibble of element j of a group.
uint32_t LowBits(const std::byte* group, int lane, int j) {
  return Load<uint32_t>(group + 4 * lane) >> 4 * j & 15u;
}

// Bit 4 of element k of 32.
uint32_t FifthBit(const std::byte* high, int lane, int k) {
  const int quad = k / 8 * 2 + k % 2, byte = k % 8 / 2;
  return (Load<uint32_t>(high + 4 * lane) >> (8 * byte + quad) & 1u) << 4;
}

// Bits 4 and 5 of element k of 32.
uint32_t UpperBits(const std::byte* high, int lane, int k) {
  const int quad = k / 8 * 2 + k % 2, byte = k % 8 / 2;
  const auto word = Load<uint32_t>(high + quad / 4 * kWords + 4 * lane);
  return (word >> (8 * byte + 2 * (quad % 4)) & 3u) << 4;
}

void ReadQ8Block(const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  const std::byte* words = block + 2 * kPanelRows + 4 * lane;
  for (int k = 0; k < kBlock; ++k) {
    out[k] = d * Load<int8_t>(words + (k / 8 * 2 + k % 2) * kWords + k % 8 / 2);
  }
}

void ReadQ4Block(DType dtype, const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  block += 2 * kPanelRows;
  float m = -8.0f * d;
  if (dtype == DType::kQ4_1) {
    m = LoadF16(block + 2 * lane);
    block += 2 * kPanelRows;
  }
  for (int k = 0; k < kBlock; ++k) {
    out[k] = d * static_cast<float>(LowBits(block + k / 8 * kWords, lane, k % 8)) + m;
  }
}

void ReadQ5Block(DType dtype, const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  const std::byte* high = block + 2 * kPanelRows;
  float m = -16.0f * d;
  if (dtype == DType::kQ5_1) {
    m = LoadF16(high + 2 * lane);
    high += 2 * kPanelRows;
  }
  const std::byte* groups = high + kWords;
  for (int k = 0; k < kBlock; ++k) {
    const uint32_t q = LowBits(groups + k / 8 * kWords, lane, k % 8) | FifthBit(high, lane, k);
    out[k] = d * static_cast<float>(q) + m;
  }
}

void ReadKBlock(bool fifth_bits, const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane), dmin = LoadF16(block + 2 * (kPanelRows + lane));
  const std::byte* scales = block + 4 * kPanelRows + lane;
  const std::byte* high = block + 20 * kPanelRows;
  const std::byte* groups = high + (fifth_bits ? 8 * kWords : 0);
  for (int k = 0; k < kSuperBlock; ++k) {
    const int s = k / kBlock;
    uint32_t q = LowBits(groups + k / 8 * kWords, lane, k % 8);
    if (fifth_bits) q |= FifthBit(high + s * kWords, lane, k % kBlock);
    const float scale = d * Load<uint8_t>(scales + s * kPanelRows);
    const float minimum = dmin * Load<uint8_t>(scales + (8 + s) * kPanelRows);
    out[k] = scale * static_cast<float>(q) - minimum;
  }
}

void ReadQ6KBlock(const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  const std::byte* scales = block + 2 * kPanelRows + lane;
  const std::byte* high = block + 18 * kPanelRows;
  const std::byte* groups = high + 16 * kWords;
  for (int k = 0; k < kSuperBlock; ++k) {
    const uint32_t q = LowBits(groups + k / 8 * kWords, lane, k % 8) |
                       UpperBits(high + k / kBlock * 2 * kWords, lane, k % kBlock);
    const float scale = d * Load<int8_t>(scales + k / 16 * kPanelRows);
    out[k] = scale * (static_cast<float>(q) - 32.0f);
  }
}

// 2^(e - 128), also where that is subnormal.
float LoadE8M0(const std::byte* from) { return std::ldexp(1.0f, Load<uint8_t>(from) - 128); }

void ReadIndexBlock(float d, const int8_t (&table)[16], const std::byte* groups, int lane,
                    float* out) {
  for (int k = 0; k < kBlock; ++k) {
    out[k] = d * table[LowBits(groups + k / 8 * kWords, lane, k % 8)];
  }
}

void ReadIq4XsBlock(const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  const std::byte* groups = block + 10 * kPanelRows;
  for (int s = 0; s < 8; ++s) {
    const float scale = d * Load<int8_t>(block + (2 + s) * kPanelRows + lane);
    ReadIndexBlock(scale, kIq4Values, groups + s * kGroups * kWords, lane, out + s * kBlock);
  }
}

// The two low bits of element k of 32.
uint32_t TwoBits(const std::byte* low, int lane, int k) {
  const int quad = k / 8 * 2 + k % 2, byte = k % 8 / 2;
  return Load<uint32_t>(low + quad / 4 * kWords + 4 * lane) >> (8 * byte + 2 * (quad % 4)) & 3u;
}

void ReadQ3KBlock(const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane);
  const std::byte* high = block + 18 * kPanelRows;
  const std::byte* low = high + 8 * kWords;
  for (int k = 0; k < kSuperBlock; ++k) {
    const int s = k / kBlock;
    const uint32_t q = TwoBits(low + 2 * s * kWords, lane, k % kBlock) |
                       FifthBit(high + s * kWords, lane, k % kBlock) >> 2;
    const float scale = d * Load<int8_t>(block + (2 + k / 16) * kPanelRows + lane);
    out[k] = scale * (static_cast<float>(q) - 4.0f);
  }
}

void ReadQ2KBlock(const std::byte* block, int lane, float* out) {
  const float d = LoadF16(block + 2 * lane), dmin = LoadF16(block + 2 * (kPanelRows + lane));
  const std::byte* low = block + 20 * kPanelRows;
  for (int k = 0; k < kSuperBlock; ++k) {
    const auto both = Load<uint8_t>(block + (4 + k / 16) * kPanelRows + lane);
    const float scale = d * static_cast<float>(both & 15);
    const float minimum = dmin * static_cast<float>(both >> 4);
    const uint32_t q = TwoBits(low + k / kBlock * 2 * kWords, lane, k % kBlock);
    out[k] = scale * static_cast<float>(q) - minimum;
  }
}

}  // namespace

void PackPanel(DType dtype, const std::byte* const (&rows)[kPanelRows], int64_t cols,
               std::byte* out) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return PackPlainPanel<uint32_t>(rows, cols, out);
    case DType::kF16:
    case DType::kBF16:
      return PackPlainPanel<uint16_t>(rows, cols, out);
    case DType::kQ8_0:
      return PackBlocks(dtype, rows, cols, out, PackQ8Block);
    case DType::kQ4_0:
      return PackBlocks(dtype, rows, cols, out, PackQ4Block<1>);
    case DType::kQ4_1:
      return PackBlocks(dtype, rows, cols, out, PackQ4Block<2>);
    case DType::kQ5_0:
      return PackBlocks(dtype, rows, cols, out, PackQ5Block<1>);
    case DType::kQ5_1:
      return PackBlocks(dtype, rows, cols, out, PackQ5Block<2>);
    case DType::kQ4_K:
      return PackBlocks(dtype, rows, cols, out, PackKBlock<false>);
    case DType::kQ5_K:
      return PackBlocks(dtype, rows, cols, out, PackKBlock<true>);
    case DType::kQ6_K:
      return PackBlocks(dtype, rows, cols, out, PackQ6KBlock);
    case DType::kIQ4_NL:
      return PackBlocks(dtype, rows, cols, out, PackQ4Block<1>);
    case DType::kMXFP4:
      return PackBlocks(dtype, rows, cols, out, PackMxfp4Block);
    case DType::kIQ4_XS:
      return PackBlocks(dtype, rows, cols, out, PackIq4XsBlock);
    case DType::kQ3_K:
      return PackBlocks(dtype, rows, cols, out, PackQ3KBlock);
    case DType::kQ2_K:
      return PackBlocks(dtype, rows, cols, out, PackQ2KBlock);
    case DType::kF8_E4M3:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

void DequantizePanelBlock(DType dtype, const std::byte* block, int lane, float* out) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      *out = Load<float>(block + 4 * lane);
      return;
    case DType::kF16:
      *out = LoadF16(block + 2 * lane);
      return;
    case DType::kBF16:
      *out = BF16ToF32(Load<uint16_t>(block + 2 * lane));
      return;
    case DType::kQ8_0:
      return ReadQ8Block(block, lane, out);
    case DType::kQ4_0:
    case DType::kQ4_1:
      return ReadQ4Block(dtype, block, lane, out);
    case DType::kQ5_0:
    case DType::kQ5_1:
      return ReadQ5Block(dtype, block, lane, out);
    case DType::kQ4_K:
    case DType::kQ5_K:
      return ReadKBlock(dtype == DType::kQ5_K, block, lane, out);
    case DType::kQ6_K:
      return ReadQ6KBlock(block, lane, out);
    case DType::kIQ4_NL:
      return ReadIndexBlock(LoadF16(block + 2 * lane), kIq4Values, block + 2 * kPanelRows, lane,
                            out);
    case DType::kMXFP4:
      return ReadIndexBlock(LoadE8M0(block + lane), kFp4Values, block + kPanelRows, lane, out);
    case DType::kIQ4_XS:
      return ReadIq4XsBlock(block, lane, out);
    case DType::kQ3_K:
      return ReadQ3KBlock(block, lane, out);
    case DType::kQ2_K:
      return ReadQ2KBlock(block, lane, out);
    case DType::kF8_E4M3:
      FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
  }
}

}  // namespace fairlead
