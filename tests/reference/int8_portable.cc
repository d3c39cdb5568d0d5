// SPDX-License-Identifier: Apache-2.0
#include "tests/reference/int8_portable.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/codebooks.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

struct Isa {
  static void HalfToFloat(const std::byte* half, float* out) {
    for (int r = 0; r < kPanelRows; ++r) {
      uint16_t bits;
      std::memcpy(&bits, half + 2 * r, sizeof(bits));
      out[r] = F16ToF32(bits);
    }
  }

  static void LookUp(const uint8_t (&table)[16], uint32_t (*quads)[kPanelRows]) {
    auto* bytes = reinterpret_cast<uint8_t*>(quads);
    for (int i = 0; i < kInt8Block * kPanelRows; ++i) bytes[i] = table[bytes[i]];
  }

  static uint32_t LargestMagnitude(const float* x) {
    uint32_t largest = 0;
    for (int i = 0; i < kInt8Block; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + i, sizeof(bits));
      largest = std::max(largest, bits & 0x7fffffffu);
    }
    return largest;
  }

  static void Quads(const float* x, float factor, int terms, int8_t* quads, int32_t* half) {
    half[0] = half[1] = 0;
    for (int i = 0; i < kInt8Block; ++i) {
      const int value = static_cast<int>(std::nearbyint(x[i] * factor));
      half[i / 16] += value;
      // Of each 8: the even ones, then the odd ones.
      const int at = i / 8 * 8 + i % 2 * 4 + i % 8 / 2;
      const int high = terms == 2 ? (value + 8) >> 4 : value;
      quads[at] = static_cast<int8_t>(high);
      if (terms == 2) quads[kInt8Block + at] = static_cast<int8_t>(value - 16 * high);
    }
  }
};

#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"
#include "kernels/cpu/int8_quantize-inl.h"

struct PortableKernel {
  static constexpr int kPanels = 1;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kMaxStretch;
  static constexpr bool kOneTerm = true;
  static constexpr bool kTiles = true;
  static constexpr bool kWrites = false;
  template <DType, int>
  static constexpr bool Signed() {
    return true;
  }

  template <DType kType, int kTerms>
  static void Run(const Stretch<1>& s, int64_t tokens) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int b = 0; b < s.count; ++b) RunBlock<kType, kTerms>(s, t, b);
    }
  }

  template <DType kType, int kTerms>
  static void RunBlock(const Stretch<1>& s, int64_t t, int b) {
    constexpr Int8Type kInfo = TypeOf(kType);
    const Int8Activations& a = *s.x;
    const int64_t at = a.At(s.token + t, s.block + b);
    const int8_t* x = a.quads + at * kTerms * kInt8Block;
    const auto* w = reinterpret_cast<const int8_t*>(s.tile->quads[b]);
    float* sums = s.sums + t * kPanelRows;
    for (int half = 0; half < kInfo.halves; ++half) {
      int32_t dot[kPanelRows] = {};
      const int quads = kQuads / kInfo.halves;
      for (int i = half * quads * 4; i < (half + 1) * quads * 4; ++i) {
        const int q = kTerms == 2 ? 16 * x[i] + x[kInt8Block + i] : x[i];
        for (int r = 0; r < kPanelRows; ++r) dot[r] += q * w[(i / 4 * kPanelRows + r) * 4 + i % 4];
      }
      for (int r = 0; r < kPanelRows; ++r) {
        const float scale = s.tile->scale[b][half][r] * a.scale[at];
        sums[r] = std::fma(static_cast<float>(dot[r]), scale, sums[r]);
      }
      if constexpr (kInfo.minimum) {
        const float x_sum = ActivationSum<kType>(a, at, half);
        for (int r = 0; r < kPanelRows; ++r) {
          sums[r] = std::fma(s.tile->minimum[b][half][r], x_sum, sums[r]);
        }
      }
    }
  }
};

bool Supported() { return true; }

}  // namespace

namespace reference {
const Int8Kernels kInt8Portable = {.name = "portable",
                                   .supported = &Supported,
                                   .fast_terms = 1,
                                   .precise_terms = 2,
                                   .spans = false,
                                   .quantize = &Quantize,
                                   .multiply = &MultiplyWith<PortableKernel>};

}  // namespace reference

}  // namespace fairlead
