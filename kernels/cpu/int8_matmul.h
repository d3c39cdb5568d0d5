// SPDX-License-Identifier: Apache-2.0
// Products of quantised weights by integer arithmetic, which is exact; f32 sums join the integer
// ones in an order that nothing but the weight decides. So the bits of an output are the same for
// every number of tokens, tile and thread. There are two definitions.
//
// By blocks (AVX2, AVX-512 VNNI, NEON DotProd; the same bits on all and in plain C++,
// tests/reference): a block of 32 activations has a scale of its own.
//   dx = max |x| of the block / limit
//   q = x * (limit / max |x|), to the nearest integer, ties to even
//   sum = fma(integer sum of w * q over each part of the block that has a weight scale d,
//             d * dx, sum)                          for the blocks of 32 in ascending order
//   sum = fma(minimum m, dx * (sum of q), sum)      after each part, where the type has minimums
// with w the integers, d and m the f32 factors of the type (packed_weight.h): exact in f32 for all
// of them. limit is 127 with one term (Numerics::kFast) and 2032 with two (kPrecise): there q = 16
// high + low with |high| <= 127 and -8 <= low <= 7, so that both are operands of byte instructions.
//
// By spans (AMX, where scaling each block's sums costs more than multiplying): weights and
// activations are 16-bit integers over a span of 256 k, each a pair of bytes.
//   dx = max |x| of the span / 32512
//   q  = x * (32512 / max |x|), to the nearest integer, ties to even
//   dw = max |weight| that the types' integers allow the row's span / (32766 - c / 2),
//        c = 2^(bits of a weight - 1)
//   w  = slope * (stored integer - c) + middle, with the block's factors to the nearest integers:
//        slope = d * (1 / dw), middle = fma(c, d, m) * (1 / dw), 0 for types without minimums;
//        |w| <= 32767
//   sum = fma(fma(sum of w * high, 256, sum of w * low), dw * dx, sum)     q = 256 high + low
// for the spans in ascending order; -128 <= low <= 127, and a term's sum fits 32 bits. A weight is
// off by (c + 1) / 2 parts in 32,766 of the row's largest of the span at most: 1/7200 (4 bits) to
// 1/500 (8 bits, about a q8_0 block's own step where the blocks' scales are alike).
//
// A block or span with an activation that is not finite makes the row NaN, and by spans a factor of
// the weight its output; activations below 2^-100 throughout, and a span's weights (of mxfp4),
// count as zeros. All functions are thread-safe and allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/simd_matmul.h"

namespace fairlead {

inline constexpr int kInt8Block = 32;           // k that share one activation scale
inline constexpr int kInt8TokenGroup = 16;      // rows of activations are allocated in such groups
inline constexpr int kMaxInt8Tokens = 256;      // of one call of Int8Kernels::multiply
inline constexpr int kInt8SpanBlocks = 8;       // blocks of a span
inline constexpr float kInt8SpanLimit = 32512;  // of its activations' integers
inline constexpr int64_t kInt8SpanFewTokens = 4;     // up to these, vectors beat tiles
inline constexpr int64_t kInt8SpanTermBytes = 1024;  // of 16 tokens and two blocks
inline constexpr int64_t kInt8SpanPairBytes = 2 * kInt8SpanTermBytes;

// Limit of the integers of weights with `bits` bits.
constexpr float SpanWeightLimit(int bits) {
  return static_cast<float>(32766 - (1 << (bits - 1)) / 2);
}

// Quantised rows, in groups of 16 tokens; by spans, what a tile of AMX reads stands together.
// Within 8 consecutive k, those with even offsets come first: the order in which the nibbles of a
// packed word come out (packed_weight.h), in words of four k.
struct Int8Activations {
  int64_t blocks = 0;       // of a row
  int terms = 1;            // 1 or 2
  int8_t* quads = nullptr;  // [groups, blocks, 16, terms, 32]: high terms, then low ones; of spans
                            // [groups, pairs of blocks, 2, 16, 64], a missing block's zeros
  float* scale = nullptr;   // [groups, blocks, 16]: dx; of spans [groups, spans, 16]
  float* sum = nullptr;     // [groups, blocks, 16]: dx * sum of q; spans have none
  int32_t* half = nullptr;  // [groups, blocks, 16, 2]: sum of q of the first and of the last 16 k;
                            // of spans both sums in 16 bits each, of the high and of the low terms
                            // (null where tokens are more than kInt8SpanFewTokens)

  // Of a token's block: of scale and sum; times what follows, of the others.
  int64_t At(int64_t token, int64_t block) const {
    return (token / kInt8TokenGroup * blocks + block) * kInt8TokenGroup + token % kInt8TokenGroup;
  }
  int64_t SpanAt(int64_t token, int64_t span) const {
    const int64_t spans = (blocks + kInt8SpanBlocks - 1) / kInt8SpanBlocks;
    return (token / kInt8TokenGroup * spans + span) * kInt8TokenGroup + token % kInt8TokenGroup;
  }
  // The high terms of a token's block; the low ones kInt8SpanTermBytes further.
  int8_t* SpanQuads(int64_t token, int64_t block) const {
    const int64_t pair = token / kInt8TokenGroup * ((blocks + 1) / 2) + block / 2;
    return quads + pair * kInt8SpanPairBytes + token % kInt8TokenGroup * (2 * kInt8Block) +
           block % 2 * kInt8Block;
  }
};

struct Int8Kernels {
  const char* name;
  bool (*supported)();  // by this machine and its operating system
  int fast_terms;       // of Numerics::kFast
  int precise_terms;    // of kPrecise; 0: the f32 kernels of such machines are faster
  bool spans;           // which definition
  // Row `token` of x, with `k` values, a multiple of 32.
  void (*quantize)(const float* x, int64_t k, int64_t token, const Int8Activations& out);
  // Panels [panel_begin, panel_end) for the tokens [token_begin, token_end), token_begin a multiple
  // of kInt8TokenGroup. By spans, x.half says that all tokens are few: at most kInt8SpanFewTokens.
  // scratch: kInt8ScratchBytes, 64-byte aligned, not initialised.
  void (*multiply)(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
                   int64_t token_end, int64_t panel_begin, int64_t panel_end, std::byte* scratch,
                   const MatmulOutput& out);
};

inline constexpr size_t kInt8ScratchBytes = size_t{128} << 10;

// Whether `type` is computed this way: every quantised one.
inline bool HasInt8Path(DType type) { return IsQuantized(type); }

// What this machine runs, best first; may be empty.
absl::Span<const Int8Kernels* const> SupportedInt8Kernels();

#if defined(__x86_64__)
extern const Int8Kernels kInt8Avx2;
extern const Int8Kernels kInt8Avx512Vnni;
extern const Int8Kernels kInt8Amx;
#elif defined(__aarch64__)
extern const Int8Kernels kInt8Neon;
#endif

}  // namespace fairlead
