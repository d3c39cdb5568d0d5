// SPDX-License-Identifier: Apache-2.0
// Decoders of packed weights (packed_weight.h): a struct a dtype, which a thread fills with one
// chunk of a row and then asks for four elements at a time. A decoder has
//   kElements                                of a chunk, a multiple of 4
//   void Load(const GpuPlanes&, int row, int chunk)
//   void Decode(int quad, float* out) const    elements 4 quad to 4 quad + 3
//   void DecodeHalf(int quad, float power, uint32_t* out) const   they times power, as two pairs of
//                                              f16; power: the row's
// and one that is all zero decodes to zeros.
//
// Decode: the values of the file: q minus its zero, times the scale, plus the minimum. The products
// are exact in f32 (d has 11 bits, a sub-block's scale 7 at most, q 6, or 8 where that has 6
// or there is none), so only the sum rounds, fused or not.
// DecodeHalf: the scale and the minimum are rounded to f16 (exact where they are f16 in the file),
// then q times scale plus minimum is, fused.
#pragma once

#include <type_traits>

#include "kernels/check.h"
#include "kernels/gpu/bits.h"
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/mma.h"
#include "kernels/gpu/packed_weight.h"

namespace fairlead::FAIRLEAD_GPU {

// What a lane reads at once.
struct alignas(16) Words {
  uint32_t word[4];
};

template <typename T>
GPU_DEVICE T ReadAt(const std::byte* plane, size_t index) {
  return reinterpret_cast<const T*>(plane)[index];
}

// What a lane reads at once of chunks whose values fill 8 bytes.
struct alignas(8) HalfWords {
  uint32_t word[2];
};

// ---- scales of a chunk. Scale(quad), and where the dtype has them, Minimum(quad)

// d of 32 elements; kShare: chunks that have a block's in common.
template <int kShare>
struct BlockScale {
  static constexpr bool kHasMinimum = false;
  float scale;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    const size_t index = GpuBlockIndex(row, chunk / kShare, planes.chunks / kShare);
    scale = PairLow(ReadAt<uint16_t>(planes.scales, index));
  }
  GPU_METHOD float Scale(int) const { return scale; }
};

// d and m of 32 elements.
struct BlockScaleAndMinimum {
  static constexpr bool kHasMinimum = true;
  uint32_t pair;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    pair = ReadAt<uint32_t>(planes.scales, GpuBlockIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD float Scale(int) const { return PairLow(pair); }
  GPU_METHOD float Minimum(int) const { return PairHigh(pair); }
};

// d * scale and -dmin * min of 32 elements.
struct SubScaleAndMinimum {
  static constexpr bool kHasMinimum = true;
  uint32_t pair;
  uint32_t sub;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    pair = ReadAt<uint32_t>(planes.scales, GpuBlockIndex(row, chunk / 8, planes.chunks / 8));
    sub = ReadAt<uint16_t>(planes.sub_scales, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD float Scale(int) const { return PairLow(pair) * static_cast<float>(sub & 0xffu); }
  GPU_METHOD float Minimum(int) const { return -PairHigh(pair) * static_cast<float>(sub >> 8); }
};

// d * scale of 16 elements, twice.
struct SubScales {
  static constexpr bool kHasMinimum = false;
  uint32_t d;
  uint32_t sub;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    d = ReadAt<uint16_t>(planes.scales, GpuBlockIndex(row, chunk / 8, planes.chunks / 8));
    sub = ReadAt<uint16_t>(planes.sub_scales, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD float Scale(int quad) const {
    const uint32_t byte = quad < 4 ? sub & 0xffu : sub >> 8;
    return PairLow(d) * static_cast<float>(static_cast<int8_t>(byte));
  }
};

// d * scale and -dmin * min of 16 elements, twice.
struct SubScalesAndMinimums {
  static constexpr bool kHasMinimum = true;
  uint32_t pair;
  uint32_t sub;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    pair = ReadAt<uint32_t>(planes.scales, GpuBlockIndex(row, chunk / 8, planes.chunks / 8));
    sub = ReadAt<uint16_t>(planes.sub_scales, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD uint32_t Byte(int quad) const { return quad < 4 ? sub & 0xffu : sub >> 8; }
  GPU_METHOD float Scale(int quad) const {
    return PairLow(pair) * static_cast<float>(Byte(quad) & 15u);
  }
  GPU_METHOD float Minimum(int quad) const {
    return -PairHigh(pair) * static_cast<float>(Byte(quad) >> 4);
  }
};

// d * scale of 32 elements.
struct SubScale {
  static constexpr bool kHasMinimum = false;
  uint32_t d;
  uint32_t sub;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    d = ReadAt<uint16_t>(planes.scales, GpuBlockIndex(row, chunk / 8, planes.chunks / 8));
    sub = ReadAt<uint8_t>(planes.sub_scales, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD float Scale(int) const {
    return PairLow(d) * static_cast<float>(static_cast<int8_t>(sub));
  }
};

// 2^(e - 128) of 32 elements: half of 2^(e - 127), which is subnormal where e is 0.
struct ExponentScale {
  static constexpr bool kHasMinimum = false;
  uint32_t exponent;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    exponent = ReadAt<uint8_t>(planes.scales, GpuBlockIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD float Scale(int) const {
    return BitsFloat(exponent == 0 ? 0x00400000u : exponent << 23) * 0.5f;
  }
};

// ---- decoders

// A quad of integers that are kZero more than theirs, by the scale, and the minimum where there is
// one.
template <int kZero, typename Scale>
GPU_DEVICE void DecodeQuad(uint32_t quad, int i, const Scale& scale, float* out) {
  constexpr float kBase = 8388608.0f;  // 2^23: its last bit is 1, so q in the low bits adds q
  for (int b = 0; b < 4; ++b) {
    const float raised = BitsFloat(0x4b000000u | (quad >> 8 * b & 0xffu));
    out[b] = (raised - (kBase + static_cast<float>(kZero))) * scale.Scale(i);
    if constexpr (Scale::kHasMinimum) out[b] += scale.Minimum(i);
  }
}

template <int kZero, typename Scale>
GPU_DEVICE void DecodeQuadHalf(uint32_t quad, int i, const Scale& scale, float power,
                               uint32_t* out) {
  const uint32_t base = PackPair(1024.0f + kZero, 1024.0f + kZero);
  const float factor = scale.Scale(i) * power;
  float minimum = 0.0f;
  if constexpr (Scale::kHasMinimum) minimum = scale.Minimum(i) * power;
  for (int half = 0; half < 2; ++half) {
    const uint32_t q = PairSub(RaisedPair(quad, half), base);  // exact
    out[half] = PairFma(q, PackPair(factor, factor), PackPair(minimum, minimum));
  }
}

template <int kValueBits, int kHighWords, int kZero, typename Scale>
struct Integers {
  static constexpr int kElements = kValueBits < 4 ? 32 : 128 / kValueBits;

  std::conditional_t<(kValueBits < 4), HalfWords, Words> values;
  uint32_t high[kHighWords > 0 ? kHighWords : 1];
  Scale scale;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    const size_t index = GpuChunkIndex(row, chunk, planes.chunks);
    values = ReadAt<decltype(values)>(planes.values, index);
    for (int i = 0; i < kHighWords; ++i) {
      high[i] = ReadAt<uint32_t>(planes.high, index * kHighWords + i);
    }
    scale.Load(planes, row, chunk);
  }

  GPU_METHOD uint32_t Quad(int i) const {
    if constexpr (kValueBits == 8) {
      return values.word[i];
    } else if constexpr (kValueBits == 2) {
      uint32_t quad = values.word[i / 4] >> 2 * (i % 4) & 0x03030303u;
      if constexpr (kHighWords == 1) quad |= (high[0] >> i & 0x01010101u) << 2;
      return quad;
    } else {
      uint32_t quad = values.word[i / 2] >> 4 * (i % 2) & 0x0f0f0f0fu;
      if constexpr (kHighWords == 1) quad |= (high[0] >> i & 0x01010101u) << 4;
      if constexpr (kHighWords == 2) quad |= (high[i / 4] >> 2 * (i % 4) & 0x03030303u) << 4;
      return quad;
    }
  }

  GPU_METHOD void Decode(int i, float* out) const { DecodeQuad<kZero>(Quad(i), i, scale, out); }
  GPU_METHOD void DecodeHalf(int i, float power, uint32_t* out) const {
    DecodeQuadHalf<kZero>(Quad(i), i, scale, power, out);
  }
};

// The integers that indices stand for (codebooks.h), kZero more: a byte each, in four words.
struct Iq4Table {
  static constexpr int kZero = 128;
  GPU_BOTH static constexpr uint32_t Word(int i) {
    return i < 2 ? (i == 0 ? 0x3f2d1801u : 0x766a5d4fu) : (i == 2 ? 0xa6998d81u : 0xf1d9c5b5u);
  }
};
struct Fp4Table {
  static constexpr int kZero = 16;
  GPU_BOTH static constexpr uint32_t Word(int i) {
    return i < 2 ? (i == 0 ? 0x13121110u : 0x1c181614u) : (i == 2 ? 0x0d0e0f10u : 0x04080a0cu);
  }
};

// Indices of 4 bits.
template <typename Table, typename Scale>
struct Indices {
  static constexpr int kElements = 32;

  Words values;
  Scale scale;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    values = ReadAt<Words>(planes.values, GpuChunkIndex(row, chunk, planes.chunks));
    scale.Load(planes, row, chunk);
  }
  GPU_METHOD uint32_t Quad(int i) const {
    return LookUpBytes<Table>(values.word[i / 2] >> 4 * (i % 2) & 0x0f0f0f0fu);
  }
  GPU_METHOD void Decode(int i, float* out) const {
    DecodeQuad<Table::kZero>(Quad(i), i, scale, out);
  }
  GPU_METHOD void DecodeHalf(int i, float power, uint32_t* out) const {
    DecodeQuadHalf<Table::kZero>(Quad(i), i, scale, power, out);
  }
};

// DecodeHalf of a plain dtype.
template <typename Chunk>
GPU_DEVICE void PackQuad(const Chunk& chunk, int quad, float power, uint32_t* out) {
  float value[4];
  chunk.Decode(quad, value);
  out[0] = PackPair(value[0] * power, value[1] * power);
  out[1] = PackPair(value[2] * power, value[3] * power);
}

struct F32Chunk {
  static constexpr int kElements = 4;

  Words values;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    values = ReadAt<Words>(planes.values, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD void Decode(int, float* out) const {
    for (int i = 0; i < 4; ++i) out[i] = BitsFloat(values.word[i]);
  }
  GPU_METHOD void DecodeHalf(int quad, float power, uint32_t* out) const {
    PackQuad(*this, quad, power, out);
  }
};

template <bool kBFloat>
struct HalfChunk {
  static constexpr int kElements = 8;

  Words values;

  GPU_METHOD void Load(const GpuPlanes& planes, int row, int chunk) {
    values = ReadAt<Words>(planes.values, GpuChunkIndex(row, chunk, planes.chunks));
  }
  GPU_METHOD void Decode(int quad, float* out) const {
    for (int i = 0; i < 2; ++i) {
      const uint32_t pair = values.word[2 * quad + i];
      out[2 * i] = kBFloat ? BitsFloat(pair << 16) : PairLow(pair);
      out[2 * i + 1] = kBFloat ? BitsFloat(pair & 0xffff0000u) : PairHigh(pair);
    }
  }
  GPU_METHOD void DecodeHalf(int quad, float power, uint32_t* out) const {
    PackQuad(*this, quad, power, out);
  }
};

// ---- by dtype

template <typename T>
struct Decoder {
  using Type = T;
};

// Calls with_decoder(Decoder<...>()) for the dtype's. Host.
template <typename Function>
void WithDecoder(DType dtype, const Function& with_decoder) {
  switch (dtype) {
    case DType::kF32:
      return with_decoder(Decoder<F32Chunk>());
    case DType::kF16:
      return with_decoder(Decoder<HalfChunk<false>>());
    case DType::kBF16:
      return with_decoder(Decoder<HalfChunk<true>>());
    case DType::kQ8_0:
      return with_decoder(Decoder<Integers<8, 0, 128, BlockScale<2>>>());
    case DType::kQ4_0:
      return with_decoder(Decoder<Integers<4, 0, 8, BlockScale<1>>>());
    case DType::kQ4_1:
      return with_decoder(Decoder<Integers<4, 0, 0, BlockScaleAndMinimum>>());
    case DType::kQ5_0:
      return with_decoder(Decoder<Integers<4, 1, 16, BlockScale<1>>>());
    case DType::kQ5_1:
      return with_decoder(Decoder<Integers<4, 1, 0, BlockScaleAndMinimum>>());
    case DType::kQ4_K:
      return with_decoder(Decoder<Integers<4, 0, 0, SubScaleAndMinimum>>());
    case DType::kQ5_K:
      return with_decoder(Decoder<Integers<4, 1, 0, SubScaleAndMinimum>>());
    case DType::kQ6_K:
      return with_decoder(Decoder<Integers<4, 2, 32, SubScales>>());
    case DType::kIQ4_NL:
      return with_decoder(Decoder<Indices<Iq4Table, BlockScale<1>>>());
    case DType::kMXFP4:
      return with_decoder(Decoder<Indices<Fp4Table, ExponentScale>>());
    case DType::kIQ4_XS:
      return with_decoder(Decoder<Indices<Iq4Table, SubScale>>());
    case DType::kQ3_K:
      return with_decoder(Decoder<Integers<2, 1, 4, SubScales>>());
    case DType::kQ2_K:
      return with_decoder(Decoder<Integers<2, 0, 0, SubScalesAndMinimums>>());
    case DType::kI32:
    case DType::kF8_E4M3:
      break;
  }
  FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
}

}  // namespace fairlead::FAIRLEAD_GPU
