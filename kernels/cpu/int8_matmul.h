// SPDX-License-Identifier: Apache-2.0
// Products of quantised weights by integer arithmetic: the activations of a row are quantised in
// blocks of 32 as well, and a block's dot product is an integer, so it is exact.
//
//   dx = max |x| of the block / limit,  q = x / dx to the nearest integer, ties to even
//   sum = fma(integer sum of w * q over each part of the block that has a weight scale d,
//             d * dx, sum)                          for the blocks of 32 in ascending order
//   sum = fma(minimum m, dx * (sum of q), sum)      after each, where the type has minimums
//
// with w the integers, d and m the f32 factors of the type (packed_weight.h): exact in f32 for all
// of them. Nothing else enters, so the bits of an output are the same for every number of tokens,
// tile, thread and instruction set: AVX2, AVX-512 VNNI, AMX and plain C++ (tests/reference) all
// give these.
//
// limit is 127 with one term (Numerics::kFast) and 2032 with two (kPrecise): there q = 16 high +
// low with |high| <= 127 and -8 <= low <= 7, so that both are operands of byte instructions. A
// block with a value that is not finite makes the row NaN; one below 2^-100 throughout counts as
// zeros. All functions are thread-safe and allocate nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/simd_matmul.h"

namespace fairlead {

inline constexpr int kInt8Block = 32;       // k that share one activation scale
inline constexpr int kInt8TokenGroup = 16;  // rows of activations are allocated in such groups
inline constexpr int kMaxInt8Tokens = 256;  // of one call of Int8Kernels::multiply

// Quantised rows, in groups of 16 tokens: what a tile of AMX reads stands together. Within 8
// consecutive k, those with even offsets come first: the order in which the nibbles of a packed
// word come out (packed_weight.h), in words of four k.
struct Int8Activations {
  int64_t blocks = 0;       // of a row
  int terms = 1;            // 1 or 2
  int8_t* quads = nullptr;  // [groups, blocks, 16, terms, 32]: high terms, then low ones
  float* scale = nullptr;   // [groups, blocks, 16]: dx
  float* sum = nullptr;     // [groups, blocks, 16]: dx * sum of q
  int32_t* half = nullptr;  // [groups, blocks, 16, 2]: sum of q of the first and of the last 16 k

  // Of a token's block: of scale and sum; times what follows, of the others.
  int64_t At(int64_t token, int64_t block) const {
    return (token / kInt8TokenGroup * blocks + block) * kInt8TokenGroup + token % kInt8TokenGroup;
  }
};

struct Int8Kernels {
  const char* name;
  bool (*supported)();  // by this machine and its operating system
  bool fast_two_terms;  // faster with two terms than the f32 kernels of such machines
  // Row `token` of x, with `k` values, a multiple of 32.
  void (*quantize)(const float* x, int64_t k, int64_t token, const Int8Activations& out);
  // Panels [panel_begin, panel_end) for the tokens [token_begin, token_end), token_begin a multiple
  // of kInt8TokenGroup. scratch: kInt8ScratchBytes, 64-byte aligned, not initialised.
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
#endif

}  // namespace fairlead
