// SPDX-License-Identifier: Apache-2.0
// The weights of a panel (packed_weight.h) as vectors of floats: a lane is an output row. In
// registers for the vector kernel, a tile at a time for the tile kernel; the values are the same.
// Included once per instruction set, hence no #pragma once.
#if defined(FAIRLEAD_SIMD_DEQUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FAIRLEAD_SIMD_DEQUANTIZE_INL_H_
#undef FAIRLEAD_SIMD_DEQUANTIZE_INL_H_
#else
#define FAIRLEAD_SIMD_DEQUANTIZE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/codebooks.h"
#include "kernels/cpu/packed_weight.h"

HWY_BEFORE_NAMESPACE();
namespace fairlead {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kPanelRows>;
using V = hn::Vec<D>;
using DU32 = hn::RebindToUnsigned<D>;
using DI32 = hn::RebindToSigned<D>;
using Words = hn::Vec<DU32>;
constexpr D d;
constexpr DU32 du32;
constexpr DI32 di32;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(d));
constexpr int kVecs = kPanelRows / kLanes;  // vectors of one panel's row of lanes
constexpr int kBlock = 32;                  // k of a quantised block, or of a sub-block
constexpr int kSuperBlock = 256;            // k of a block of the others
constexpr int kWordBytes = 4 * kPanelRows;  // one u32 a row
constexpr int kGroupRows = 8 * kPanelRows;  // floats of a tile's group of 8 k

HWY_INLINE V LoadHalf(const std::byte* from) {
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(from)));
}

HWY_INLINE Words LoadWords(const std::byte* from) {
  return hn::LoadU(du32, reinterpret_cast<const uint32_t*>(from));
}

// kLanes bytes of type T, int8_t or uint8_t.
template <typename T>
HWY_INLINE V LoadBytes(const std::byte* from) {
  const hn::Rebind<T, D> d8;
  return hn::ConvertTo(d, hn::PromoteTo(di32, hn::LoadU(d8, reinterpret_cast<const T*>(from))));
}

// ---- one row of lanes of each format: the weights of one k for kLanes output rows

// Scale and minimum of a run of nibbles for one vector of rows: value = d * q + m. Of kPowers
// nibbles, all but the first are masked where they stand and so come out times 16^j, which d / 16^j
// makes up for. All of that is exact; it trades shifts for registers.
template <int kPowers>
struct NibbleScales {
  V d[kPowers], m;

  // Spelled out, as an implicit one would not be compiled for the target (Arm's vectors have a
  // constructor).
  HWY_INLINE NibbleScales() {}
  HWY_INLINE void Set(V scale, V minimum) {
    d[0] = scale;
    m = minimum;
    HWY_UNROLL(32)
    for (int j = 1; j < kPowers; ++j) {
      d[j] = hn::Mul(d[j - 1], hn::Set(HWY_NAMESPACE::d, 0x1p-4f));
    }
  }
  // Of a q4_0 or q4_1 block. q4_0's d * (q - 8) is fma(d, q, -8 d), exact too.
  template <DType kType>
  HWY_INLINE void Load(const std::byte* block, int lane) {
    const V scale = LoadHalf(block + 2 * lane);
    Set(scale, kType == DType::kQ4_1 ? LoadHalf(block + 2 * (kPanelRows + lane))
                                     : hn::Mul(scale, hn::Set(HWY_NAMESPACE::d, -8.0f)));
  }

  // Nibble j of 8, for j ascending.
  HWY_INLINE V Next(int j, Words& nibbles) const {
    if (j > 0 && j % kPowers == 0) nibbles = hn::ShiftRight<4 * kPowers>(nibbles);
    const auto q = hn::And(nibbles, hn::Set(du32, 15u << 4 * (j % kPowers)));
    return hn::MulAdd(hn::ConvertTo(HWY_NAMESPACE::d, hn::BitCast(di32, q)), d[j % kPowers], m);
  }
};

// Of the blocks of 32 elements: f16 d (and m).
constexpr int ScaleBytes(DType type) {
  return (type == DType::kQ4_1 || type == DType::kQ5_1 ? 4 : 2) * kPanelRows;
}

// q8_0's scale for bytes that are left at the top of their words: d / 2^24, exact.
HWY_INLINE V LoadByteScale(const std::byte* block) {
  return hn::Mul(LoadHalf(block), hn::Set(d, 0x1p-24f));
}

// Signed byte kByte of each word, times such a scale.
template <int kByte>
HWY_INLINE V DequantizeByte(Words words, V scale) {
  if constexpr (kByte < 3) words = hn::ShiftLeft<24 - 8 * kByte>(words);
  if constexpr (kByte > 0) words = hn::And(words, hn::Set(du32, 0xff000000u));
  return hn::Mul(hn::ConvertTo(d, hn::BitCast(di32, words)), scale);
}

template <DType kType>
HWY_INLINE V LoadPlain(const std::byte* from) {
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(d, reinterpret_cast<const float*>(from));
  } else if constexpr (kType == DType::kF16) {
    return LoadHalf(from);
  } else {
    const hn::Rebind<uint16_t, D> d16;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits)));
  }
}

constexpr int PlainBytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// ---- tiles: count k of one panel from `block` on, as out [count][kPanelRows]

template <DType kType>
HWY_INLINE void DequantizeTileQ4(const std::byte* block, int64_t count, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < count; k += kBlock, out += kBlock * kPanelRows) {
    const std::byte* groups = block + ScaleBytes(kType);
    HWY_UNROLL(32)
    for (int v = 0; v < kVecs; ++v) {
      NibbleScales<4> scales;
      scales.Load<kType>(block, v * kLanes);
      HWY_UNROLL(32)
      for (int group = 0; group < 4; ++group) {
        auto nibbles = LoadWords(groups + group * kWordBytes + v * kLanes * 4);
        HWY_UNROLL(32)
        for (int j = 0; j < 8; ++j) {
          hn::Store(scales.Next(j, nibbles), d,
                    out + group * kGroupRows + j * kPanelRows + v * kLanes);
        }
      }
    }
    block = groups + 4 * kWordBytes;
  }
}

// The 4 elements of a word, every other one of the tile's.
HWY_INLINE void StoreSignedBytes(Words words, V scale, float* HWY_RESTRICT out) {
  hn::Store(DequantizeByte<0>(words, scale), d, out);
  hn::Store(DequantizeByte<1>(words, scale), d, out + 2 * kPanelRows);
  hn::Store(DequantizeByte<2>(words, scale), d, out + 4 * kPanelRows);
  hn::Store(DequantizeByte<3>(words, scale), d, out + 6 * kPanelRows);
}

HWY_INLINE void DequantizeTileQ8(const std::byte* block, int64_t count, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < count; k += kBlock) {
    V scales[kVecs];
    HWY_UNROLL(32)
    for (int v = 0; v < kVecs; ++v) scales[v] = LoadByteScale(block + 2 * v * kLanes);
    block += ScaleBytes(DType::kQ8_0);
    for (int group = 0; group < 4; ++group, block += 2 * kWordBytes, out += kGroupRows) {
      HWY_UNROLL(32)
      for (int v = 0; v < kVecs; ++v) {
        const std::byte* words = block + v * kLanes * 4;
        StoreSignedBytes(LoadWords(words), scales[v], out + v * kLanes);
        StoreSignedBytes(LoadWords(words + kWordBytes), scales[v], out + kPanelRows + v * kLanes);
      }
    }
  }
}

// Scale and minimum for the bytes of a quad, which are masked where they stand: value = d * q + m.
struct QuadScales {
  V d[4], m;

  HWY_INLINE QuadScales(V scale, V minimum) {
    m = minimum;
    d[0] = scale;
    HWY_UNROLL(3)
    for (int b = 1; b < 4; ++b) d[b] = hn::Mul(d[b - 1], hn::Set(HWY_NAMESPACE::d, 0x1p-8f));
  }
  // The 4 elements of a quad (below 128 each), every other one of the tile's.
  HWY_INLINE void Store(Words quad, float* HWY_RESTRICT out) const {
    HWY_UNROLL(4)
    for (int b = 0; b < 4; ++b) {
      const auto q = hn::And(quad, hn::Set(du32, 0xffu << 8 * b));
      hn::Store(hn::MulAdd(hn::ConvertTo(HWY_NAMESPACE::d, hn::BitCast(di32, q)), d[b], m),
                HWY_NAMESPACE::d, out + 2 * b * kPanelRows);
    }
  }
};

// The kBits bits of `high` that stand for the next quad, on top of its nibbles.
template <int kBits>
HWY_INLINE Words WithHighBits(Words nibbles, Words& high) {
  if constexpr (kBits == 0) return nibbles;
  const auto bits = hn::And(high, hn::Set(du32, kBits == 1 ? 0x01010101u : 0x03030303u));
  high = hn::ShiftRight < kBits == 0 ? 1 : kBits > (high);
  return hn::Or(nibbles, hn::ShiftLeft<4>(bits));
}

// kGroups groups of 8 k with one scale, and one word of higher bits where kBits > 0.
template <int kBits, int kGroups>
HWY_INLINE void DequantizeGroups(const std::byte* groups, Words high, const QuadScales& scales,
                                 float* HWY_RESTRICT out) {
  const auto mask = hn::Set(du32, 0x0f0f0f0fu);
  HWY_UNROLL(4)
  for (int g = 0; g < kGroups; ++g, groups += kWordBytes, out += kGroupRows) {
    const auto nibbles = LoadWords(groups);
    scales.Store(WithHighBits<kBits>(hn::And(nibbles, mask), high), out);
    scales.Store(WithHighBits<kBits>(hn::And(hn::ShiftRight<4>(nibbles), mask), high),
                 out + kPanelRows);
  }
}

template <DType kType>
HWY_INLINE void DequantizeTileQ5(const std::byte* block, int64_t count, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < count; k += kBlock, out += kBlock * kPanelRows) {
    const std::byte* high = block + ScaleBytes(kType);
    for (int v = 0; v < kVecs; ++v) {
      const V scale = LoadHalf(block + 2 * v * kLanes);
      const QuadScales scales(scale, kType == DType::kQ5_1
                                         ? LoadHalf(block + 2 * (kPanelRows + v * kLanes))
                                         : hn::Mul(scale, hn::Set(d, -16.0f)));
      const std::byte* words = high + 4 * v * kLanes;
      DequantizeGroups<1, 4>(words + kWordBytes, LoadWords(words), scales, out + v * kLanes);
    }
    block = high + 5 * kWordBytes;
  }
}

// q4_k and q5_k.
template <bool kFifthBits>
HWY_INLINE void DequantizeTileK(const std::byte* block, int64_t count, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < count; k += kSuperBlock) {
    const std::byte* bytes = block + 4 * kPanelRows;
    const std::byte* high = bytes + 16 * kPanelRows;
    const std::byte* groups = high + (kFifthBits ? 8 * kWordBytes : 0);
    V scale[kVecs], minimum[kVecs];
    HWY_UNROLL(32)
    for (int v = 0; v < kVecs; ++v) {
      scale[v] = LoadHalf(block + 2 * v * kLanes);
      minimum[v] = hn::Neg(LoadHalf(block + 2 * (kPanelRows + v * kLanes)));
    }
    for (int s = 0; s < 8; ++s, bytes += kPanelRows, out += kBlock * kPanelRows) {
      HWY_UNROLL(32)
      for (int v = 0; v < kVecs; ++v) {
        const V s_scale = LoadBytes<uint8_t>(bytes + v * kLanes);
        const V s_minimum = LoadBytes<uint8_t>(bytes + 8 * kPanelRows + v * kLanes);
        const QuadScales scales(hn::Mul(scale[v], s_scale), hn::Mul(minimum[v], s_minimum));
        const int at = 4 * v * kLanes;
        DequantizeGroups<kFifthBits ? 1 : 0, 4>(
            groups + s * 4 * kWordBytes + at,
            kFifthBits ? LoadWords(high + s * kWordBytes + at) : hn::Zero(du32), scales,
            out + v * kLanes);
      }
    }
    block = groups + kSuperBlock / 8 * kWordBytes;
  }
}

HWY_INLINE void DequantizeTileQ6K(const std::byte* block, int64_t count, float* HWY_RESTRICT out) {
  for (int64_t k = 0; k < count; k += kSuperBlock) {
    const std::byte* bytes = block + 2 * kPanelRows;
    const std::byte* high = bytes + 16 * kPanelRows;
    const std::byte* groups = high + 16 * kWordBytes;
    V scale[kVecs];
    HWY_UNROLL(32)
    for (int v = 0; v < kVecs; ++v) scale[v] = LoadHalf(block + 2 * v * kLanes);
    for (int s = 0; s < 16; ++s, bytes += kPanelRows, out += 2 * kGroupRows) {
      HWY_UNROLL(32)
      for (int v = 0; v < kVecs; ++v) {
        const V s_scale = hn::Mul(scale[v], LoadBytes<int8_t>(bytes + v * kLanes));
        const QuadScales scales(s_scale, hn::Mul(s_scale, hn::Set(d, -32.0f)));
        const int at = 4 * v * kLanes;
        DequantizeGroups<2, 2>(groups + s * 2 * kWordBytes + at,
                               LoadWords(high + s * kWordBytes + at), scales, out + v * kLanes);
      }
    }
    block = groups + kSuperBlock / 8 * kWordBytes;
  }
}

// Signed byte kByte of each word.
template <int kByte>
HWY_INLINE V SignedByte(Words words) {
  if constexpr (kByte < 3) words = hn::ShiftLeft<24 - 8 * kByte>(words);
  return hn::ConvertTo(d, hn::ShiftRight<24>(hn::BitCast(di32, words)));
}

using DU8 = hn::Repartition<uint8_t, DU32>;
using Table = hn::Vec<DU8>;

HWY_INLINE Table LoadTable(const int8_t (&values)[16]) {
  return hn::LoadDup128(DU8(), reinterpret_cast<const uint8_t*>(values));
}

// The 4 elements of a quad of indices, every other one of the tile's.
HWY_INLINE void StoreIndexQuad(Words quad, Table table, V scale, float* HWY_RESTRICT out) {
  const auto values = hn::BitCast(du32, hn::TableLookupBytes(table, hn::BitCast(DU8(), quad)));
  hn::Store(hn::Mul(SignedByte<0>(values), scale), d, out);
  hn::Store(hn::Mul(SignedByte<1>(values), scale), d, out + 2 * kPanelRows);
  hn::Store(hn::Mul(SignedByte<2>(values), scale), d, out + 4 * kPanelRows);
  hn::Store(hn::Mul(SignedByte<3>(values), scale), d, out + 6 * kPanelRows);
}

// 32 k of indices.
HWY_INLINE void DequantizeIndices(const std::byte* groups, Table table, V scale,
                                  float* HWY_RESTRICT out) {
  const auto mask = hn::Set(du32, 0x0f0f0f0fu);
  for (int g = 0; g < 4; ++g, groups += kWordBytes, out += kGroupRows) {
    const auto nibbles = LoadWords(groups);
    StoreIndexQuad(hn::And(nibbles, mask), table, scale, out);
    StoreIndexQuad(hn::And(hn::ShiftRight<4>(nibbles), mask), table, scale, out + kPanelRows);
  }
}

// 2^(e - 128): half of 2^(e - 127), which is subnormal where e is 0.
HWY_INLINE V LoadE8M0(const std::byte* from) {
  const hn::Rebind<uint8_t, D> d8;
  const auto e = hn::PromoteTo(du32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from)));
  const auto bits = hn::Max(hn::ShiftLeft<23>(e), hn::Set(du32, 0x00400000u));
  return hn::Mul(hn::BitCast(d, bits), hn::Set(d, 0.5f));
}

// iq4_nl and mxfp4.
template <DType kType>
HWY_INLINE void DequantizeTileIndices(const std::byte* block, int64_t count,
                                      float* HWY_RESTRICT out) {
  constexpr bool kFp4 = kType == DType::kMXFP4;
  const Table table = LoadTable(kFp4 ? kFp4Values : kIq4Values);
  for (int64_t k = 0; k < count; k += kBlock, out += kBlock * kPanelRows) {
    const std::byte* groups = block + (kFp4 ? 1 : 2) * kPanelRows;
    for (int v = 0; v < kVecs; ++v) {
      const V scale = kFp4 ? LoadE8M0(block + v * kLanes) : LoadHalf(block + 2 * v * kLanes);
      DequantizeIndices(groups + 4 * v * kLanes, table, scale, out + v * kLanes);
    }
    block = groups + 4 * kWordBytes;
  }
}

HWY_INLINE void DequantizeTileIq4Xs(const std::byte* block, int64_t count,
                                    float* HWY_RESTRICT out) {
  const Table table = LoadTable(kIq4Values);
  for (int64_t k = 0; k < count; k += kSuperBlock) {
    const std::byte* bytes = block + 2 * kPanelRows;
    const std::byte* groups = bytes + 8 * kPanelRows;
    for (int s = 0; s < 8; ++s, out += kBlock * kPanelRows) {
      for (int v = 0; v < kVecs; ++v) {
        const V scale = hn::Mul(LoadHalf(block + 2 * v * kLanes),
                                LoadBytes<int8_t>(bytes + s * kPanelRows + v * kLanes));
        DequantizeIndices(groups + s * 4 * kWordBytes + 4 * v * kLanes, table, scale,
                          out + v * kLanes);
      }
    }
    block = groups + kSuperBlock / 8 * kWordBytes;
  }
}

// q2_k and q3_k: 16 k after another have a scale.
template <DType kType>
HWY_INLINE void DequantizeTileTwoBits(const std::byte* block, int64_t count,
                                      float* HWY_RESTRICT out) {
  constexpr bool kThird = kType == DType::kQ3_K;
  const auto two = hn::Set(du32, 0x03030303u), one = hn::Set(du32, 0x01010101u);
  for (int64_t k = 0; k < count; k += kSuperBlock) {
    const std::byte* bytes = block + (kThird ? 2 : 4) * kPanelRows;
    const std::byte* high = bytes + 16 * kPanelRows;
    const std::byte* low = high + (kThird ? 8 * kWordBytes : 0);
    for (int s = 0; s < 16; ++s, out += 2 * kGroupRows) {
      for (int v = 0; v < kVecs; ++v) {
        const V d16 = LoadHalf(block + 2 * v * kLanes);
        const std::byte* byte = bytes + s * kPanelRows + v * kLanes;
        V scale, minimum;
        if constexpr (kThird) {
          scale = hn::Mul(d16, LoadBytes<int8_t>(byte));
          minimum = hn::Mul(scale, hn::Set(d, -4.0f));
        } else {
          const hn::Rebind<uint8_t, D> d8;
          const auto both =
              hn::PromoteTo(du32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(byte)));
          const auto upper = hn::BitCast(di32, hn::ShiftRight<4>(both));
          const auto lower = hn::BitCast(di32, hn::And(both, hn::Set(du32, 15u)));
          scale = hn::Mul(d16, hn::ConvertTo(d, lower));
          minimum = hn::Mul(hn::Neg(LoadHalf(block + 2 * (kPanelRows + v * kLanes))),
                            hn::ConvertTo(d, upper));
        }
        const QuadScales scales(scale, minimum);
        const int at = 4 * v * kLanes;
        auto words = LoadWords(low + s * kWordBytes + at);
        auto third = hn::Zero(du32);
        if constexpr (kThird) {
          third = LoadWords(high + s / 2 * kWordBytes + at);
          if (s % 2 == 1) third = hn::ShiftRight<4>(third);
        }
        HWY_UNROLL(4)
        for (int q = 0; q < 4; ++q) {
          auto quad = hn::And(words, two);
          words = hn::ShiftRight<2>(words);
          if constexpr (kThird) {
            quad = hn::Or(quad, hn::ShiftLeft<2>(hn::And(third, one)));
            third = hn::ShiftRight<1>(third);
          }
          scales.Store(quad, out + v * kLanes + q / 2 * kGroupRows + q % 2 * kPanelRows);
        }
      }
    }
    block = low + 16 * kWordBytes;
  }
}

template <DType kType>
HWY_INLINE void DequantizeTilePlain(const std::byte* block, int64_t count,
                                    float* HWY_RESTRICT out) {
  for (int64_t i = 0; i < count * kVecs; ++i) {
    hn::Store(LoadPlain<kType>(block + i * kLanes * PlainBytes(kType)), d, out + i * kLanes);
  }
}

// The weights [count][kPanelRows] from `block` on: dequantised into `tile`, or in place for f32.
// count: a multiple of the dtype's block.
HWY_INLINE const float* DequantizeTile(DType dtype, const std::byte* block, int64_t count,
                                       float* tile) {
  switch (dtype) {
    case DType::kF16:
      DequantizeTilePlain<DType::kF16>(block, count, tile);
      return tile;
    case DType::kBF16:
      DequantizeTilePlain<DType::kBF16>(block, count, tile);
      return tile;
    case DType::kQ8_0:
      DequantizeTileQ8(block, count, tile);
      return tile;
    case DType::kQ4_0:
      DequantizeTileQ4<DType::kQ4_0>(block, count, tile);
      return tile;
    case DType::kQ4_1:
      DequantizeTileQ4<DType::kQ4_1>(block, count, tile);
      return tile;
    case DType::kQ5_0:
      DequantizeTileQ5<DType::kQ5_0>(block, count, tile);
      return tile;
    case DType::kQ5_1:
      DequantizeTileQ5<DType::kQ5_1>(block, count, tile);
      return tile;
    case DType::kQ4_K:
      DequantizeTileK<false>(block, count, tile);
      return tile;
    case DType::kQ5_K:
      DequantizeTileK<true>(block, count, tile);
      return tile;
    case DType::kQ6_K:
      DequantizeTileQ6K(block, count, tile);
      return tile;
    case DType::kIQ4_NL:
      DequantizeTileIndices<DType::kIQ4_NL>(block, count, tile);
      return tile;
    case DType::kMXFP4:
      DequantizeTileIndices<DType::kMXFP4>(block, count, tile);
      return tile;
    case DType::kIQ4_XS:
      DequantizeTileIq4Xs(block, count, tile);
      return tile;
    case DType::kQ3_K:
      DequantizeTileTwoBits<DType::kQ3_K>(block, count, tile);
      return tile;
    case DType::kQ2_K:
      DequantizeTileTwoBits<DType::kQ2_K>(block, count, tile);
      return tile;
    case DType::kF32:
    case DType::kI32:
    case DType::kF8_E4M3:
      break;
  }
  return reinterpret_cast<const float*>(block);
}

}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#endif
