// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "kernels/codebooks.h"
#include "kernels/half.h"
#include "tests/reference/int8_portable.h"

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
};

#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"

// Where k stands in the bytes of a block: of each 8, the even ones first.
int QuadByte(int k) { return k / 8 * 8 + k % 2 * 4 + k % 8 / 2; }

void QuantizeSpan(const float* x, int count, int64_t token, int64_t block,
                  const Int8Activations& out) {
  float largest = 0;
  bool finite = true;
  for (int k = 0; k < count; ++k) {
    finite = finite && std::isfinite(x[k]);
    largest = std::max(largest, std::abs(x[k]));
  }
  const bool zero = !finite || largest < 0x1p-100f;
  float& scale = out.scale[out.SpanAt(token, block / kInt8SpanBlocks)];
  scale = zero ? 0.0f : largest / 32512.0f;
  if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
  const float factor = zero ? 0.0f : 32512.0f / largest;
  for (int k = 0; k < count; ++k) {
    const int value = zero ? 0 : static_cast<int>(std::nearbyint(x[k] * factor));
    const int high = (value + 128) >> 8;
    int8_t* to = out.SpanQuads(token, block + k / kInt8Block) + QuadByte(k % kInt8Block);
    to[0] = static_cast<int8_t>(high);
    to[kInt8SpanTermBytes] = static_cast<int8_t>(value - 256 * high);
  }
}

void Quantize(const float* x, int64_t k, int64_t token, const Int8Activations& out) {
  constexpr int64_t kSpan = kInt8SpanBlocks * kInt8Block;
  for (int64_t first = 0; first < k; first += kSpan) {
    QuantizeSpan(x + first, static_cast<int>(std::min(kSpan, k - first)), token, first / kInt8Block,
                 out);
  }
}

// The integers [count * 32] and the unit of row `r` of a span.
template <DType kType>
float SpanWeights(const PanelTile& tile, int count, int r, std::vector<int64_t>& weights) {
  constexpr Int8Type kInfo = TypeOf(kType);
  const float centre = static_cast<float>(1 << (kInfo.bits - 1));
  const float top = static_cast<float>((1 << kInfo.bits) - 1);
  float largest = 0;
  bool finite = true;
  for (int b = 0; b < count; ++b) {
    for (int half = 0; half < kInfo.halves; ++half) {
      const float d = tile.scale[b][half][r];
      finite = finite && std::isfinite(d);
      if (kInfo.minimum) {
        const float m = tile.minimum[b][half][r];
        finite = finite && std::isfinite(m);
        largest = std::max({largest, std::abs(m), std::abs(std::fma(top, d, m))});
      } else {
        largest = std::max(largest, std::abs(d * static_cast<float>(kInfo.offset)));
      }
    }
  }
  weights.assign(count * kInt8Block, 0);
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  const float unit = largest / SpanWeightLimit(kInfo.bits);
  const float inverse = largest < 0x1p-100f ? 0.0f : 1.0f / unit;
  for (int k = 0; k < count * kInt8Block; ++k) {
    const int b = k / kInt8Block, quad = k % kInt8Block / 4, half = quad * kInfo.halves / kQuads;
    const float d = tile.scale[b][half][r];
    const float m = kInfo.minimum ? std::fma(centre, d, tile.minimum[b][half][r]) : 0.0f;
    const int64_t stored = tile.quads[b][quad][r] >> 8 * (k % 4) & 0xff;
    weights[k] = std::lrint(d * inverse) * (stored - std::lrint(centre)) + std::lrint(m * inverse);
    FAIRLEAD_CHECK(std::abs(weights[k]) <= 32767);
  }
  return unit;
}

struct PortableKernel {
  static constexpr int kPanels = 1;
  static constexpr int kRows = 1;
  static constexpr int kStretchBlocks = kInt8SpanBlocks;
  static constexpr bool kOneTerm = false;
  static constexpr bool kTiles = true;
  static constexpr bool kWrites = false;
  template <DType, int>
  static constexpr bool Signed() {
    return false;
  }

  template <DType kType, int>
  static void Run(const Stretch<1>& s, int64_t tokens) {
    std::vector<int64_t> weights;
    for (int r = 0; r < kPanelRows; ++r) {
      const float unit = SpanWeights<kType>(*s.tile, s.count, r, weights);
      for (int64_t t = 0; t < tokens; ++t) {
        int64_t high = 0, low = 0;
        for (int k = 0; k < s.count * kInt8Block; ++k) {
          const int8_t* x = s.x->SpanQuads(s.token + t, s.block + k / kInt8Block) + k % kInt8Block;
          high += weights[k] * x[0];
          low += weights[k] * x[kInt8SpanTermBytes];
        }
        const float scale = s.x->scale[s.x->SpanAt(s.token + t, s.block / kInt8SpanBlocks)];
        const float sum = std::fma(static_cast<float>(high), 256.0f, static_cast<float>(low));
        float& total = s.sums[t * kPanelRows + r];
        total = std::fma(sum, unit * scale, total);
      }
    }
  }
};

bool Supported() { return true; }

}  // namespace

namespace reference {
const Int8Kernels kInt8PortableSpan = {.name = "portable by spans",
                                       .supported = &Supported,
                                       .fast_terms = 2,
                                       .precise_terms = 2,
                                       .spans = true,
                                       .quantize = &Quantize,
                                       .multiply = &MultiplyWith<PortableKernel>};

}  // namespace reference

}  // namespace fairlead
