// SPDX-License-Identifier: Apache-2.0
// Unpacks a stretch of a panel for the integer kernels: words of four weights a row, f32 factors a
// block. Included once by each int8_*.cc, in an unnamed namespace, after a struct Isa with
//   static void HalfToFloat(const std::byte* half, float* out)   16 values
//   static void LookUp(const uint8_t (&table)[16], uint32_t (*quads)[16])   each of kQuads * 64
//   bytes
// The loops over the 16 rows are for the compiler to vectorise.
#pragma once

constexpr int kQuads = kInt8Block / 4;
constexpr int kSuperBlocks = 8;  // blocks that share the f16 factors of a block of 256
constexpr int kMaxStretch = 8;   // blocks unpacked at once, at most

// What the kernels need to know of a type. offset: what makes the stored, unsigned weights signed.
struct Int8Type {
  int bits;
  int offset;    // integers are the stored ones minus this
  int halves;    // weight scales of 32 k: 1 or 2
  bool minimum;  // a term m besides
};
constexpr Int8Type TypeOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {4, 8, 1, false};
    case DType::kQ4_1:
      return {4, 0, 1, true};
    case DType::kQ5_0:
      return {5, 16, 1, false};
    case DType::kQ5_1:
      return {5, 0, 1, true};
    case DType::kQ4_K:
      return {4, 0, 1, true};
    case DType::kQ5_K:
      return {5, 0, 1, true};
    case DType::kQ6_K:
      return {6, 32, 2, false};
    case DType::kMXFP4:
      return {5, 16, 1, false};
    case DType::kQ3_K:
      return {3, 4, 2, false};
    case DType::kQ2_K:
      return {2, 0, 2, true};
    default:  // q8_0, iq4_nl, iq4_xs
      return {8, 128, 1, false};
  }
}

constexpr bool IsSuperBlock(DType type) {
  return type == DType::kQ4_K || type == DType::kQ5_K || type == DType::kQ6_K ||
         type == DType::kIQ4_XS || type == DType::kQ3_K || type == DType::kQ2_K;
}

// Whether the panel has indices of 4 bits for the integers.
constexpr bool HasTable(DType type) {
  return type == DType::kIQ4_NL || type == DType::kMXFP4 || type == DType::kIQ4_XS;
}

// Of an integer in the panel.
constexpr int StoredBits(DType type) { return HasTable(type) ? 4 : TypeOf(type).bits; }

// Of a row: the factors of a block, and the scales of the parts of a superblock.
constexpr int FactorBytes(DType type) {
  return type == DType::kMXFP4 ? 1 : TypeOf(type).minimum ? 4 : 2;
}
constexpr int PartScaleBytes(DType type) {
  return !IsSuperBlock(type) ? 0 : type == DType::kIQ4_XS ? 8 : 16;
}

// The integers that indices stand for, as the kernels store them.
struct alignas(16) IntegerTable {
  uint8_t of[16];
};
template <DType kType>
constexpr IntegerTable TableOf() {
  IntegerTable table = {};
  for (int i = 0; i < 16; ++i) {
    const int value = kType == DType::kMXFP4 ? kFp4Values[i] : kIq4Values[i];
    table.of[i] = static_cast<uint8_t>(value + TypeOf(kType).offset);
  }
  return table;
}
template <DType kType>
constexpr IntegerTable kIntegerTable = TableOf<kType>();

// Bytes of 32 k of a panel: f16 factors, where superblocks have them 16 bytes of scales, integers.
constexpr int64_t PanelBytes32(DType type) {
  const int factors = FactorBytes(type), integers = kInt8Block * StoredBits(type) / 8;
  if (!IsSuperBlock(type)) return kPanelRows * (factors + integers);
  return kPanelRows * (factors + PartScaleBytes(type) + kSuperBlocks * integers) / kSuperBlocks;
}

// One panel's stretch.
struct alignas(64) PanelTile {
  uint32_t quads[kMaxStretch][kQuads][kPanelRows];
  float scale[kMaxStretch][2][kPanelRows];
  float minimum[kMaxStretch][2][kPanelRows];
};

// A panel's words are aligned.
inline const uint32_t* Words(const std::byte* from) {
  return reinterpret_cast<const uint32_t*>(from);
}

// The eight words of a block from its nibbles: even words the low, odd words the high ones.
inline void UnpackNibbles(const std::byte* from, uint32_t (*__restrict out)[kPanelRows]) {
  for (int group = 0; group < kQuads / 2; ++group, from += 4 * kPanelRows) {
    const uint32_t* __restrict words = Words(from);
    for (int r = 0; r < kPanelRows; ++r) out[2 * group][r] = words[r] & 0x0f0f0f0fu;
    for (int r = 0; r < kPanelRows; ++r) out[2 * group + 1][r] = words[r] >> 4 & 0x0f0f0f0fu;
  }
}

// Adds the fifth bits, or others.
template <int kBit = 4>
inline void AddFifthBits(const std::byte* from, uint32_t (*__restrict out)[kPanelRows]) {
  const uint32_t* __restrict words = Words(from);
  for (int q = 0; q < kQuads; ++q) {
    for (int r = 0; r < kPanelRows; ++r) out[q][r] |= (words[r] >> q & 0x01010101u) << kBit;
  }
}

// The eight words of a block whose low two bits stand together.
inline void UnpackTwoBits(const std::byte* from, uint32_t (*__restrict out)[kPanelRows]) {
  for (int half = 0; half < 2; ++half, from += 4 * kPanelRows, out += kQuads / 2) {
    const uint32_t* __restrict words = Words(from);
    for (int q = 0; q < kQuads / 2; ++q) {
      for (int r = 0; r < kPanelRows; ++r) out[q][r] = words[r] >> 2 * q & 0x03030303u;
    }
  }
}

// Adds the fifth and sixth bits.
inline void AddSixthBits(const std::byte* from, uint32_t (*__restrict out)[kPanelRows]) {
  for (int half = 0; half < 2; ++half, from += 4 * kPanelRows, out += kQuads / 2) {
    const uint32_t* __restrict words = Words(from);
    for (int q = 0; q < kQuads / 2; ++q) {
      for (int r = 0; r < kPanelRows; ++r) out[q][r] |= (words[r] >> 2 * q & 0x03030303u) << 4;
    }
  }
}

inline void ByteScales(const float* d, const std::byte* bytes, bool is_signed, float sign,
                       float* __restrict out) {
  for (int r = 0; r < kPanelRows; ++r) {
    const int value = is_signed ? static_cast<int>(reinterpret_cast<const int8_t*>(bytes)[r])
                                : static_cast<int>(reinterpret_cast<const uint8_t*>(bytes)[r]);
    out[r] = sign * (d[r] * static_cast<float>(value));
  }
}

// 2^(e - 128): half of 2^(e - 127), which is subnormal where e is 0.
inline void ExponentScales(const std::byte* bytes, float* __restrict out) {
  uint32_t bits[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r) {
    bits[r] = std::max(std::to_integer<uint32_t>(bytes[r]) << 23, 0x00400000u);
  }
  std::memcpy(out, bits, sizeof(bits));
  for (int r = 0; r < kPanelRows; ++r) out[r] *= 0.5f;
}

// q2_k: a scale in the low half of each byte, a minimum in the upper one.
inline void NibbleScales(const float* d, const float* d_min, const std::byte* bytes,
                         float* __restrict scale, float* __restrict minimum) {
  const auto* both = reinterpret_cast<const uint8_t*>(bytes);
  for (int r = 0; r < kPanelRows; ++r) {
    scale[r] = d[r] * static_cast<float>(both[r] & 15);
    minimum[r] = -(d_min[r] * static_cast<float>(both[r] >> 4));
  }
}

// Block `index` of 32 of types whose blocks have 32 elements.
template <DType kType>
inline void UnpackSimple(const std::byte* block, PanelTile& tile, int index) {
  auto* out = tile.quads[index];
  if constexpr (kType == DType::kMXFP4) {
    ExponentScales(block, tile.scale[index][0]);
    UnpackNibbles(block + kPanelRows, out);
    return Isa::LookUp(kIntegerTable<kType>.of, out);
  }
  Isa::HalfToFloat(block, tile.scale[index][0]);
  block += 2 * kPanelRows;
  if constexpr (kType == DType::kIQ4_NL) {
    UnpackNibbles(block, out);
    return Isa::LookUp(kIntegerTable<kType>.of, out);
  }
  if constexpr (kType == DType::kQ8_0) {
    const uint32_t* __restrict words = Words(block);
    uint32_t* __restrict to = out[0];
    for (int i = 0; i < kQuads * kPanelRows; ++i) to[i] = words[i] ^ 0x80808080u;
    return;
  }
  if constexpr (kType == DType::kQ4_1 || kType == DType::kQ5_1) {
    Isa::HalfToFloat(block, tile.minimum[index][0]);
    block += 2 * kPanelRows;
  }
  if constexpr (kType == DType::kQ5_0 || kType == DType::kQ5_1) {
    UnpackNibbles(block + 4 * kPanelRows, out);
    AddFifthBits(block, out);
  } else {
    UnpackNibbles(block, out);
  }
}

// Sub-block `sub` of 32 of a block of 256.
template <DType kType>
inline void UnpackK(const std::byte* block, int sub, PanelTile& tile, int index) {
  auto* out = tile.quads[index];
  // Aligned as the compiler's vectors want it, which AddressSanitizer's frames else are not.
  alignas(64) float d[kPanelRows];
  Isa::HalfToFloat(block, d);
  block += 2 * kPanelRows;
  if constexpr (kType == DType::kIQ4_XS) {
    ByteScales(d, block + sub * kPanelRows, true, 1.0f, tile.scale[index][0]);
    UnpackNibbles(block + (8 + 4 * sub * 4) * kPanelRows, out);
    return Isa::LookUp(kIntegerTable<kType>.of, out);
  }
  if constexpr (kType == DType::kQ6_K || kType == DType::kQ3_K) {
    for (int half = 0; half < 2; ++half) {
      ByteScales(d, block + (2 * sub + half) * kPanelRows, true, 1.0f, tile.scale[index][half]);
    }
    block += 16 * kPanelRows;
    if constexpr (kType == DType::kQ3_K) {
      UnpackTwoBits(block + (8 + 2 * sub) * 4 * kPanelRows, out);
      return AddFifthBits<2>(block + sub * 4 * kPanelRows, out);
    }
    UnpackNibbles(block + (16 + 4 * sub) * 4 * kPanelRows, out);
    AddSixthBits(block + 2 * sub * 4 * kPanelRows, out);
    return;
  }
  alignas(64) float d_min[kPanelRows];
  Isa::HalfToFloat(block, d_min);
  block += 2 * kPanelRows;
  if constexpr (kType == DType::kQ2_K) {
    for (int half = 0; half < 2; ++half) {
      NibbleScales(d, d_min, block + (2 * sub + half) * kPanelRows, tile.scale[index][half],
                   tile.minimum[index][half]);
    }
    return UnpackTwoBits(block + (16 + 2 * sub * 4) * kPanelRows, out);
  }
  ByteScales(d, block + sub * kPanelRows, false, 1.0f, tile.scale[index][0]);
  ByteScales(d_min, block + (8 + sub) * kPanelRows, false, -1.0f, tile.minimum[index][0]);
  block += 16 * kPanelRows;
  if constexpr (kType == DType::kQ5_K) {
    UnpackNibbles(block + (8 + 4 * sub) * 4 * kPanelRows, out);
    AddFifthBits(block + sub * 4 * kPanelRows, out);
  } else {
    UnpackNibbles(block + 4 * sub * 4 * kPanelRows, out);
  }
}

// Makes the bytes of the words signed: a borrow-free subtraction of the offset from each.
inline void MakeSigned(int offset, uint32_t (*__restrict words)[kPanelRows]) {
  auto* bytes = reinterpret_cast<uint8_t*>(words);
  for (int i = 0; i < kQuads * kPanelRows * 4; ++i) {
    bytes[i] = static_cast<uint8_t>(bytes[i] - offset);
  }
}

// dx * (sum of q) of what shares a minimum: a block, or half of one. at: as Int8Activations::At.
template <DType kType>
inline float ActivationSum(const Int8Activations& x, int64_t at, int half) {
  if constexpr (TypeOf(kType).halves == 1) return x.sum[at];
  return x.scale[at] * static_cast<float>(x.half[2 * at + half]);
}

// The blocks [first, first + count) of 32 of a panel.
template <DType kType, bool kSigned>
void UnpackPanel(const std::byte* panel, size_t block_bytes, int64_t first, int count,
                 PanelTile& tile) {
  constexpr bool kSuper = IsSuperBlock(kType);
  for (int i = 0; i < count; ++i) {
    if constexpr (kSuper) {
      UnpackK<kType>(panel + (first + i) / kSuperBlocks * block_bytes,
                     static_cast<int>((first + i) % kSuperBlocks), tile, i);
    } else {
      UnpackSimple<kType>(panel + (first + i) * block_bytes, tile, i);
    }
    if constexpr (kSigned && TypeOf(kType).offset != 0) {
      MakeSigned(TypeOf(kType).offset, tile.quads[i]);
    }
  }
}
