// SPDX-License-Identifier: Apache-2.0
// AMX tiles: 16 tokens by the 16 rows of a panel. A tile instruction takes 64 k: both terms of a
// block of 32 at once where 16 times a weight still fits a byte (4 bits), as
// [16 w, w] * [high, low]; else one instruction a term. The rest, a conversion and a fused
// multiply-add or two a block, is what takes the time.
#include "kernels/cpu/int8_matmul.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c,amx-tile,amx-int8")
namespace fairlead {
namespace {

#include "kernels/cpu/int8_avx512-inl.h"
#include "kernels/cpu/int8_unpack-inl.h"
//
#include "kernels/cpu/int8_driver-inl.h"
#include "kernels/cpu/int8_quantize-inl.h"
#include "kernels/cpu/int8_vnni-inl.h"

constexpr int kTokens = kInt8TokenGroup;
constexpr int kDots = 4;  // tiles of sums in flight: enough to hide a tile instruction's latency
using TileSums = int32_t[kTokens][kPanelRows];

// Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights: of `row_bytes` k.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  explicit constexpr TileConfig(int bytes) {
    for (int tile = 0; tile < 8; ++tile) {
      row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? bytes : 64);
      rows[tile] = static_cast<uint8_t>(tile >= 6 ? bytes / 4 : 16);
    }
  }
};
static_assert(sizeof(TileConfig) == 64);

// The intrinsics want literal tile numbers. They say nothing to the compiler about the memory they
// read: AmxKernel::Run has a barrier before the first.
#define FAIRLEAD_AMX_DOT(sums, activations, weights, x, words) \
  _tile_zero(sums);                                            \
  _tile_loadd(activations, x, kRowBytes);                      \
  _tile_loadd(weights, words, 64);                             \
  if constexpr (kUnsigned) {                                   \
    _tile_dpbsud(sums, activations, weights);                  \
  } else {                                                     \
    _tile_dpbssd(sums, activations, weights);                  \
  }

// 16 tokens by one panel, a few blocks at a time, of kDots tile instructions together: their sums
// come while those before are converted and added.
template <DType kType, int kTerms, bool kJoined>
struct AmxTile {
  static constexpr Int8Type kInfo = TypeOf(kType);
  static constexpr bool kUnsigned = kInfo.offset == 0;
  static constexpr int kDotTerms = kJoined ? 1 : kTerms;
  static constexpr int kBlockDots = kInfo.halves * kDotTerms;
  static constexpr int kGroupBlocks = kDots / kBlockDots;
  static constexpr int kDotBytes = kJoined ? 64 : kInt8Block / kInfo.halves;  // k of a dot
  static constexpr int64_t kRowBytes = kTerms * kInt8Block;
  static constexpr TileConfig kConfig = TileConfig(kDotBytes);
  using Tile = PanelTile<kJoined ? 2 : 1>;

  // Where dot `i` of the blocks from `b` on finds its operands.
  struct Operands {
    const int8_t* x;
    const uint32_t* words;
  };
  [[gnu::always_inline]] static inline Operands Of(const Tile& tile, const int8_t* x, int b,
                                                   int i) {
    const int half = i % kBlockDots / kDotTerms, term = i % kDotTerms;
    b += i / kBlockDots;
    return {x + b * kTokens * kRowBytes + term * kInt8Block + half * kDotBytes,
            tile.quads[b][0][half * kQuads / 2]};
  }

  [[gnu::always_inline]] static inline void Dots(const Tile& tile, const int8_t* x, int b,
                                                 int blocks, TileSums* out) {
    const int dots = blocks * kBlockDots;
    const auto operands = [&](int i) { return Of(tile, x, b, i); };
    const Operands o0 = operands(0), o1 = operands(1), o2 = operands(2), o3 = operands(3);
    FAIRLEAD_AMX_DOT(0, 4, 6, o0.x, o0.words)
    if (dots > 1) {
      FAIRLEAD_AMX_DOT(1, 5, 7, o1.x, o1.words)
    }
    if (dots > 2) {
      FAIRLEAD_AMX_DOT(2, 4, 6, o2.x, o2.words)
    }
    if (dots > 3) {
      FAIRLEAD_AMX_DOT(3, 5, 7, o3.x, o3.words)
    }
    _tile_stored(0, out[0], 64);
    if (dots > 1) _tile_stored(1, out[1], 64);
    if (dots > 2) _tile_stored(2, out[2], 64);
    if (dots > 3) _tile_stored(3, out[3], 64);
  }

  // Adds one block.
  [[gnu::always_inline]] static inline void Add(const Tile& tile, int b, const TileSums* in,
                                                const float* scale, const float* sum,
                                                __m512 (&total)[kTokens]) {
#pragma GCC unroll 2
    for (int half = 0; half < kInfo.halves; ++half, in += kDotTerms) {
      const __m512 d = _mm512_load_ps(tile.scale[b][half]);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        __m512i dot = _mm512_load_si512(in[0][t]);
        if constexpr (kDotTerms == 2) {
          dot = _mm512_add_epi32(_mm512_slli_epi32(dot, 4), _mm512_load_si512(in[1][t]));
        }
        const __m512 factor = _mm512_mul_ps(d, _mm512_set1_ps(scale[t]));
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, total[t]);
      }
    }
    if constexpr (kInfo.minimum) {
      const __m512 m = _mm512_load_ps(tile.minimum[b]);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        total[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum[t]), total[t]);
      }
    }
  }

  // sums: of the tokens, `sum_stride` floats apart.
  static void Run(const Tile& tile, const Int8Activations& a, int64_t token, int64_t block,
                  int count, float* sums, int sum_stride) {
    __m512 total[kTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) total[t] = _mm512_load_ps(sums + t * sum_stride);
    alignas(64) TileSums out[2][kDots];
    const int64_t at = a.At(token, block);
    const int8_t* x = a.quads + at * kTerms * kInt8Block;
    Dots(tile, x, 0, std::min(kGroupBlocks, count), out[0]);
    for (int first = 0, group = 0; first < count; first += kGroupBlocks, group ^= 1) {
      const int next = first + kGroupBlocks;
      if (next < count) Dots(tile, x, next, std::min(kGroupBlocks, count - next), out[group ^ 1]);
      for (int b = first; b < std::min(next, count); ++b) {
        const int64_t factors = at + b * kTokens;
        Add(tile, b, out[group] + (b - first) * kBlockDots, a.scale + factors, a.sum + factors,
            total);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) _mm512_store_ps(sums + t * sum_stride, total[t]);
  }
};

#undef FAIRLEAD_AMX_DOT

struct AmxKernel {
  static constexpr int kPanels = 2;
  static constexpr int kRows = kTokens;
  static constexpr int kStretchBlocks = kMaxStretch;
  template <DType kType, int kTerms>
  static constexpr bool Joined() {
    return kTerms == 2 && TypeOf(kType).bits == 4;
  }
  template <DType kType, int kTerms>
  static constexpr int Copies() {
    return Joined<kType, kTerms>() ? 2 : 1;
  }
  template <DType, int>
  static constexpr bool Signed() {
    return true;
  }

  template <DType kType, int kTerms>
  static void Run(const Stretch<kPanels, Copies<kType, kTerms>()>& s, int64_t tokens) {
    using Block = AmxTile<kType, kTerms, Joined<kType, kTerms>()>;
    _tile_loadconfig(&Block::kConfig);
    asm volatile("" ::: "memory");
    for (int64_t t = 0; t < tokens; t += kTokens) {
      for (int p = 0; p < kPanels; ++p) {
        Block::Run(s.tile[p], *s.x, s.token + t, s.block, s.count,
                   s.sums + (t * kPanels + p) * kPanelRows, kPanels * kPanelRows);
      }
    }
  }
};

// A group of 16 costs the same for one token; few take the other kernel, which gives the same bits.
constexpr int64_t kVnniTokens = 4;

void Multiply(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
              int64_t token_end, int64_t panel_begin, int64_t panel_end, std::byte* scratch,
              const MatmulOutput& out) {
  if (token_end - token_begin <= kVnniTokens) {
    return MultiplyVnni(weight, x, token_begin, token_end, panel_begin, panel_end, scratch, out);
  }
  MultiplyWith<AmxKernel>(weight, x, token_begin, token_end, panel_begin, panel_end, scratch, out);
  _tile_release();
}

// GCC 12 cannot name these features in __builtin_cpu_supports. Linux keeps the tiles' state for a
// process that asks for it (arch_prctl(2), ARCH_REQ_XCOMP_PERM).
bool Supported() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!kInt8Avx512Vnni.supported() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
    return false;
  constexpr uint32_t kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
  if ((edx & kAmxTile) == 0 || (edx & kAmxInt8) == 0) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

const Int8Kernels kInt8Amx = {.name = "amx_int8",
                              .supported = &Supported,
                              .fast_two_terms = true,
                              .quantize = &Quantize,
                              .multiply = &Multiply};

}  // namespace fairlead
#pragma GCC pop_options
#endif
