// SPDX-License-Identifier: Apache-2.0
// Decoders of packed weights (packed_weight.h): a struct a dtype, which a thread fills with one
// chunk of a row and then asks for four elements at a time. A decoder has
//   kElements                                of a chunk, a multiple of 4
//   void Load(const GpuPlanes&, size_t index)  index: row * chunks + chunk
//   void Decode(int quad, float* out) const    elements 4 quad to 4 quad + 3
// The values are those of the file: q minus its zero, times the scale, plus the minimum. The
// products are exact in f32 (d has 11 bits, a sub-block's scale 6 or 7, q 5, or 8 where there is no
// such scale), so only the sum rounds, fused or not.
#pragma once

#include "kernels/check.h"
#include "kernels/gpu/bits.h"
#include "kernels/gpu/gpu.h"
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

GPU_DEVICE float LowHalf(uint32_t pair) { return F16Value(static_cast<uint16_t>(pair & 0xffffu)); }
GPU_DEVICE float HighHalf(uint32_t pair) { return F16Value(static_cast<uint16_t>(pair >> 16)); }

// ---- scales of a chunk; kShare: chunks that have a block's in common

// d of 32 elements.
template <int kShare>
struct BlockScale {
  float scale;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    scale = F16Value(ReadAt<uint16_t>(planes.scales, index / kShare));
  }
  GPU_METHOD float Apply(int, float q) const { return q * scale; }
};

// d and m of 32 elements.
struct BlockScaleAndMinimum {
  float scale, minimum;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    const uint32_t pair = ReadAt<uint32_t>(planes.scales, index);
    scale = LowHalf(pair);
    minimum = HighHalf(pair);
  }
  GPU_METHOD float Apply(int, float q) const { return q * scale + minimum; }
};

// d * scale and -dmin * min of 32 elements.
struct SubScaleAndMinimum {
  float scale, minimum;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    const uint32_t pair = ReadAt<uint32_t>(planes.scales, index / 8);
    const unsigned sub = ReadAt<uint16_t>(planes.sub_scales, index);
    scale = LowHalf(pair) * static_cast<float>(sub & 0xffu);
    minimum = -HighHalf(pair) * static_cast<float>(sub >> 8);
  }
  GPU_METHOD float Apply(int, float q) const { return q * scale + minimum; }
};

// d * scale of 16 elements, twice.
struct SubScales {
  float scale[2];

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    const float d = F16Value(ReadAt<uint16_t>(planes.scales, index / 8));
    const unsigned sub = ReadAt<uint16_t>(planes.sub_scales, index);
    scale[0] = d * static_cast<float>(static_cast<int8_t>(sub & 0xffu));
    scale[1] = d * static_cast<float>(static_cast<int8_t>(sub >> 8));
  }
  GPU_METHOD float Apply(int quad, float q) const { return q * scale[quad / 4]; }
};

// ---- decoders

template <int kValueBits, int kHighWords, int kZero, typename Scale>
struct Integers {
  static constexpr int kElements = 128 / kValueBits;

  Words values;
  uint32_t high[kHighWords > 0 ? kHighWords : 1];
  Scale scale;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    values = ReadAt<Words>(planes.values, index);
    for (int i = 0; i < kHighWords; ++i) {
      high[i] = ReadAt<uint32_t>(planes.high, index * kHighWords + i);
    }
    scale.Load(planes, index);
  }

  GPU_METHOD uint32_t Quad(int i) const {
    if constexpr (kValueBits == 8) return values.word[i];
    uint32_t quad = values.word[i / 2] >> 4 * (i % 2) & 0x0f0f0f0fu;
    if constexpr (kHighWords == 1) quad |= (high[0] >> i & 0x01010101u) << 4;
    if constexpr (kHighWords == 2) quad |= (high[i / 4] >> 2 * (i % 4) & 0x03030303u) << 4;
    return quad;
  }

  GPU_METHOD void Decode(int i, float* out) const {
    constexpr float kBase = 8388608.0f;  // 2^23: its last bit is 1, so q in the low bits adds q
    const uint32_t quad = Quad(i);
    for (int b = 0; b < 4; ++b) {
      const float raised = BitsFloat(0x4b000000u | (quad >> 8 * b & 0xffu));
      out[b] = scale.Apply(i, raised - (kBase + static_cast<float>(kZero)));
    }
  }
};

struct F32Chunk {
  static constexpr int kElements = 4;

  Words values;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    values = ReadAt<Words>(planes.values, index);
  }
  GPU_METHOD void Decode(int, float* out) const {
    for (int i = 0; i < 4; ++i) out[i] = BitsFloat(values.word[i]);
  }
};

template <bool kBFloat>
struct HalfChunk {
  static constexpr int kElements = 8;

  Words values;

  GPU_METHOD void Load(const GpuPlanes& planes, size_t index) {
    values = ReadAt<Words>(planes.values, index);
  }
  GPU_METHOD void Decode(int quad, float* out) const {
    for (int i = 0; i < 2; ++i) {
      const uint32_t pair = values.word[2 * quad + i];
      out[2 * i] = kBFloat ? BitsFloat(pair << 16) : LowHalf(pair);
      out[2 * i + 1] = kBFloat ? BitsFloat(pair & 0xffff0000u) : HighHalf(pair);
    }
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
    case DType::kI32:
    case DType::kF8_E4M3:
      break;
  }
  FAIRLEAD_CHECK_MSG(false, Info(dtype).name);
}

}  // namespace fairlead::FAIRLEAD_GPU
