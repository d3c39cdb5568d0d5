// SPDX-License-Identifier: Apache-2.0
// AMX tiles: 16 tokens by the 16 rows of a panel, 64 k an instruction, which takes 16 cycles. What
// a span's sums still need is spread between the instructions of the next tile: no processor looks
// far enough ahead to do so itself.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/int8_matmul.h"

#if defined(__x86_64__)
#include <immintrin.h>

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
#include "kernels/cpu/int8_span-inl.h"
//
#include "kernels/cpu/int8_span_quantize-inl.h"
#include "kernels/cpu/int8_span_vnni-inl.h"

constexpr int kTokens = kInt8TokenGroup;
static_assert(kSpanBlocks == 8);  // four pairs of blocks, 64 k each

constexpr AmxTileConfig kTileConfig;

// Sums of a span: of the high terms with the weights' high and low bytes, of the low terms alike.
struct alignas(64) TileSums {
  int32_t of[4][kTokens][kPanelRows];
};

// Tile of `kTokens` tokens by one panel over one span.
struct TileWork {
  const int8_t* x;  // SpanQuads of the first token
  const SpanWeights* weights;
  const SpanFactors* factors;
  const float* scale;  // of the tokens
  float* sums;         // of the tokens, `stride` floats apart
  int stride;
};

// Adds the tokens [kBegin, kEnd) of finished sums.
template <int kBegin, int kEnd>
[[gnu::always_inline]] inline void AddSums(const TileSums& in, const TileWork& work) {
#pragma GCC unroll 16
  for (int t = kBegin; t < kEnd; ++t) {
    const auto join = [&](int high, int low) {
      return _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(in.of[high][t]), 8),
                              _mm512_load_si512(in.of[low][t]));
    };
    AddSpan(join(0, 1), join(2, 3), *work.factors, work.scale[t], work.sums + t * work.stride);
  }
}

// The intrinsics say nothing to the compiler about the memory they read, and they want literal tile
// numbers: 0 to 3 are sums, 4 and 5 terms of activations, 6 and 7 bytes of weights.
[[gnu::always_inline]] inline void MultiplyPair(const TileWork& work, int pair) {
  const int8_t* x = work.x + pair * kInt8SpanPairBytes;
  _tile_loadd(4, x, 64);
  _tile_loadd(6, work.weights->high[pair], 64);
  _tile_dpbssd(0, 4, 6);
  _tile_loadd(7, work.weights->low[pair], 64);
  _tile_dpbsud(1, 4, 7);
  _tile_loadd(5, x + kInt8SpanTermBytes, 64);
  _tile_dpbssd(2, 5, 6);
  _tile_dpbsud(3, 5, 7);
}

// The first pair. Each tile of sums goes to `last` just before it starts again, so that the others'
// work hides the store.
template <bool kLast>
[[gnu::always_inline]] inline void MultiplyFirstPair(const TileWork& work, TileSums& last) {
  _tile_loadd(4, work.x, 64);
  _tile_loadd(6, work.weights->high[0], 64);
  if constexpr (kLast) _tile_stored(0, last.of[0], 64);
  _tile_zero(0);
  _tile_dpbssd(0, 4, 6);
  _tile_loadd(7, work.weights->low[0], 64);
  if constexpr (kLast) _tile_stored(1, last.of[1], 64);
  _tile_zero(1);
  _tile_dpbsud(1, 4, 7);
  _tile_loadd(5, work.x + kInt8SpanTermBytes, 64);
  if constexpr (kLast) _tile_stored(2, last.of[2], 64);
  _tile_zero(2);
  _tile_dpbssd(2, 5, 6);
  if constexpr (kLast) _tile_stored(3, last.of[3], 64);
  _tile_zero(3);
  _tile_dpbsud(3, 5, 7);
}

// Multiplies `next` while the sums of `last` are stored and added.
inline void RunTile(const TileWork& next, int pairs, const TileWork& last, TileSums& sums) {
  MultiplyFirstPair<true>(next, sums);
  if (pairs > 1) MultiplyPair(next, 1);
  AddSums<0, 5>(sums, last);
  if (pairs > 2) MultiplyPair(next, 2);
  AddSums<5, 10>(sums, last);
  if (pairs > 3) MultiplyPair(next, 3);
  AddSums<10, kTokens>(sums, last);
}

struct AmxKernel {
  static constexpr int kPanels = 2;
  static constexpr int kRows = kTokens;
  static constexpr int kStretchBlocks = kSpanBlocks;
  static constexpr bool kOneTerm = false;
  static constexpr bool kTiles = false;

  using Works = TileWork[kPanels];

  // The first tokens' tiles. The next pair is widened before a pair's products, so that vectors and
  // tiles work at once.
  template <DType kType>
  static void RunFirst(const Stretch<kPanels>& s, const Works& works, SpanFactors* factors,
                       SpanWeights* weights, TileSums& sums) {
    const int pairs = (s.count + 1) / 2;
    const auto widen = [&](int step) {
      const int p = step / pairs, pair = step % pairs;
      const auto source = SpanSource<kType>::Of(s, p);
      if (pair == 0) MakeSpanFactors<kType>(source, s.count, factors[p]);
      WidenPair<kType>(source, factors[p], pair, s.count, weights[p]);
    };
    const int steps = kPanels * pairs;
    widen(0);
    for (int step = 0; step < steps; ++step) {
      if (step + 1 < steps) widen(step + 1);
      asm volatile("" ::: "memory");  // weights are written before tiles read them
      const int p = step / pairs, pair = step % pairs;
      if (pair > 0) {
        MultiplyPair(works[p], pair);
      } else if (p == 0) {
        MultiplyFirstPair<false>(works[p], sums);
      } else {
        MultiplyFirstPair<true>(works[p], sums);
        AddSums<0, kTokens>(sums, works[p - 1]);
      }
    }
  }

  template <DType kType, int>
  static void Run(const Stretch<kPanels>& s, int64_t tokens) {
    SpanFactors factors[kPanels];
    SpanWeights weights[kPanels];
    constexpr int kStride = kPanels * kPanelRows;
    const auto work = [&](int64_t first, int p) {
      return TileWork{.x = s.x->SpanQuads(s.token + first, s.block),
                      .weights = &weights[p],
                      .factors = &factors[p],
                      .scale = s.x->scale + s.x->SpanAt(s.token + first, s.block / kSpanBlocks),
                      .sums = s.sums + first * kStride + p * kPanelRows,
                      .stride = kStride};
    };
    TileSums sums;
    static_assert(kPanels == 2);
    RunFirst<kType>(s, {work(0, 0), work(0, 1)}, factors, weights, sums);
    const int pairs = (s.count + 1) / 2;
    TileWork last = work(0, kPanels - 1);
    for (int64_t first = kTokens; first < tokens; first += kTokens) {
      for (int p = 0; p < kPanels; ++p) {
        const TileWork next = work(first, p);
        RunTile(next, pairs, last, sums);
        last = next;
      }
    }
    _tile_stored(0, sums.of[0], 64);
    _tile_stored(1, sums.of[1], 64);
    _tile_stored(2, sums.of[2], 64);
    _tile_stored(3, sums.of[3], 64);
    AddSums<0, kTokens>(sums, last);
  }
};

void Multiply(const CpuPackedWeight& weight, const Int8Activations& x, int64_t token_begin,
              int64_t token_end, int64_t panel_begin, int64_t panel_end, std::byte* scratch,
              const MatmulOutput& out) {
  // A group of 16 costs the same for one token. The sums of the terms are there for few.
  if (x.half != nullptr) {
    return MultiplySpanVnni(weight, x, token_begin, token_end, panel_begin, panel_end, scratch,
                            out);
  }
  _tile_loadconfig(&kTileConfig);
  MultiplyWith<AmxKernel>(weight, x, token_begin, token_end, panel_begin, panel_end, scratch, out);
  _tile_release();
}

bool Supported() { return kInt8Avx512Vnni.supported() && HasAmx(kAmxTileBit | kAmxInt8Bit); }

}  // namespace

const Int8Kernels kInt8Amx = {.name = "amx_int8",
                              .supported = &Supported,
                              .fast_terms = 2,
                              .precise_terms = 2,
                              .spans = true,
                              .quantize = &QuantizeSpans,
                              .multiply = &Multiply};

}  // namespace fairlead
#pragma GCC pop_options
#endif
