// SPDX-License-Identifier: Apache-2.0
// AMX tiles: 16 tokens by the 16 rows of a panel, 64 k an instruction, which takes 16 cycles. What
// a span's sums still need is spread between the instructions of the next tile: no processor looks
// far enough ahead to do so itself.
#include "kernels/codebooks.h"
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
  // Where the last span's sums go: `tokens` rows, out.stride floats apart, of `columns`.
  const MatmulOutput* out;  // null before the last span
  float* out_data;
  const float* bias;  // of the panel, or null
  __mmask16 columns;
  int64_t tokens;

  void Write(int t, __m512 sum) const {
    if (t >= tokens) return;
    float* to = out_data + t * out->stride;
    if (bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(columns, bias));
    if (out->accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(columns, to));
    _mm512_mask_storeu_ps(to, columns, sum);
  }
};

// Adds the tokens [begin, end) of finished sums, and writes those of the last span where they
// belong: between tiles there is time to wait for that memory.
[[gnu::always_inline]] inline void AddSums(const TileSums& in, const TileWork& work, int begin,
                                           int end) {
#pragma GCC unroll 16
  for (int t = begin; t < end; ++t) {
    const auto join = [&](int high, int low) {
      return _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(in.of[high][t]), 8),
                              _mm512_load_si512(in.of[low][t]));
    };
    float* sums = work.sums + t * work.stride;
    const __m512 sum = AddSpan(join(0, 1), join(2, 3), *work.factors, work.scale[t], sums);
    if (work.out == nullptr) {
      _mm512_store_ps(sums, sum);
    } else {
      work.Write(t, sum);
    }
  }
}

// What becomes of the sums that a span finds in the tiles.
enum class Start { kAdd, kClear, kStore };  // add to them, or start anew, having stored them

// Step `step` of kSteps of a pair of blocks: a product and what it loads, so that a caller can put
// a few of its vector instructions between two: a core that shares its tile unit waits at each. The
// intrinsics say nothing to the compiler about the memory they read, and they want literal tile
// numbers: 0 to 3 are sums, 4 and 5 terms of activations, 6 and 7 bytes of weights.
constexpr int kSteps = 4;
template <Start kStart>
[[gnu::always_inline]] inline void MultiplyStep(const TileWork& work, int pair, int step,
                                                TileSums& last) {
  const int8_t* x = work.x + pair * kInt8SpanPairBytes;
  switch (step) {
    case 0:
      _tile_loadd(4, x, 64);
      _tile_loadd(6, work.weights->high[pair], 64);
      if constexpr (kStart == Start::kStore) _tile_stored(0, last.of[0], 64);
      if constexpr (kStart != Start::kAdd) _tile_zero(0);
      _tile_dpbssd(0, 4, 6);
      return;
    case 1:
      _tile_loadd(7, work.weights->low[pair], 64);
      if constexpr (kStart == Start::kStore) _tile_stored(1, last.of[1], 64);
      if constexpr (kStart != Start::kAdd) _tile_zero(1);
      _tile_dpbsud(1, 4, 7);
      return;
    case 2:
      _tile_loadd(5, x + kInt8SpanTermBytes, 64);
      if constexpr (kStart == Start::kStore) _tile_stored(2, last.of[2], 64);
      if constexpr (kStart != Start::kAdd) _tile_zero(2);
      _tile_dpbssd(2, 5, 6);
      return;
    default:
      if constexpr (kStart == Start::kStore) _tile_stored(3, last.of[3], 64);
      if constexpr (kStart != Start::kAdd) _tile_zero(3);
      _tile_dpbsud(3, 5, 7);
  }
}

// Multiplies `next` while the sums of `last` are stored and added.
template <int kPairs>
inline void RunTile(const TileWork& next, const TileWork& last, TileSums& sums) {
#pragma GCC unroll 4
  for (int i = 0; i < kSteps; ++i) MultiplyStep<Start::kStore>(next, 0, i, sums);
  constexpr int kRest = (kPairs - 1) * kSteps;
#pragma GCC unroll 12
  for (int i = 0; i < kRest; ++i) {
    MultiplyStep<Start::kAdd>(next, 1 + i / kSteps, i % kSteps, sums);
    AddSums(sums, last, kTokens * i / kRest, kTokens * (i + 1) / kRest);
  }
  if constexpr (kRest == 0) AddSums(sums, last, 0, kTokens);
}

struct AmxKernel {
  static constexpr int kPanels = 2;
  static constexpr int kRows = kTokens;
  static constexpr int kStretchBlocks = kSpanBlocks;
  static constexpr bool kOneTerm = false;
  static constexpr bool kTiles = false;
  static constexpr bool kWrites = true;

  using Works = TileWork[kPanels];

  // The first tokens' tiles, a pair of them while the next pair is widened: vectors and tiles work
  // at once.
  template <DType kType>
  static void RunFirst(const Stretch<kPanels>& s, const Works& works, SpanFactors* factors,
                       SpanWeights* weights, TileSums& sums) {
    const int pairs = (s.count + 1) / 2;
    const ReadAhead<kType, kPanels> ahead(s);
    const auto widen = [&](int index, auto between) __attribute__((always_inline)) {
      const int p = index / pairs, pair = index % pairs;
      const auto source = SpanSource<kType>::Of(s, p);
      ahead.Prefetch(p, 2 * pair);
      const auto after = [&](int i) __attribute__((always_inline)) {
        if (i == 1 && 2 * pair + 1 < s.count) ahead.Prefetch(p, 2 * pair + 1);
        between(i);
      };
      if (pair == 0) MakeSpanFactors<kType>(source, s.count, factors[p]);
      WidenPair<kType>(source, factors[p], pair, s.count, weights[p], after);
    };
    const auto multiply = [&]<Start kStart>(int index) {
      const int p = index / pairs, pair = index % pairs;
      const auto step = [&](int i) __attribute__((always_inline)) {
        MultiplyStep<kStart>(works[p], pair, i, sums);
      };
      if (index + 1 < kPanels * pairs) {
        widen(index + 1, step);
      } else {
        for (int i = 0; i < kSteps; ++i) step(i);
      }
    };
    widen(0, [](int) {});
    for (int index = 0; index < kPanels * pairs; ++index) {
      asm volatile("" ::: "memory");  // weights are written before tiles read them
      if (index % pairs != 0) {
        multiply.template operator()<Start::kAdd>(index);
      } else if (index == 0) {
        multiply.template operator()<Start::kClear>(index);
      } else {
        multiply.template operator()<Start::kStore>(index);
        AddSums(sums, works[0], 0, kTokens);
      }
    }
  }

  template <DType kType, int>
  static void Run(const Stretch<kPanels>& s, int64_t tokens) {
    SpanFactors factors[kPanels];
    SpanWeights weights[kPanels];
    constexpr int kStride = kPanels * kPanelRows;
    const auto work = [&](int64_t first, int p) {
      const int64_t row = s.row + p * kPanelRows;
      const auto columns = std::clamp<int64_t>(s.columns - p * kPanelRows, 0, kPanelRows);
      return TileWork{.x = s.x->SpanQuads(s.token + first, s.block),
                      .weights = &weights[p],
                      .factors = &factors[p],
                      .scale = s.x->scale + s.x->SpanAt(s.token + first, s.block / kSpanBlocks),
                      .sums = s.sums + first * kStride + p * kPanelRows,
                      .stride = kStride,
                      .out = s.last ? s.out : nullptr,
                      .out_data = s.out->data + (s.token + first) * s.out->stride + row,
                      .bias = s.out->bias == nullptr || columns == 0 ? nullptr : s.out->bias + row,
                      .columns = static_cast<__mmask16>((1u << columns) - 1),
                      .tokens = tokens - first};
    };
    TileSums sums;
    static_assert(kPanels == 2);
    RunFirst<kType>(s, {work(0, 0), work(0, 1)}, factors, weights, sums);
    constexpr decltype(&RunTile<1>) kRunTile[] = {&RunTile<1>, &RunTile<2>, &RunTile<3>,
                                                  &RunTile<4>};
    const auto run_tile = kRunTile[(s.count - 1) / 2];
    TileWork last = work(0, kPanels - 1);
    for (int64_t first = kTokens; first < tokens; first += kTokens) {
      for (int p = 0; p < kPanels; ++p) {
        const TileWork next = work(first, p);
        run_tile(next, last, sums);
        last = next;
      }
    }
    _tile_stored(0, sums.of[0], 64);
    _tile_stored(1, sums.of[1], 64);
    _tile_stored(2, sums.of[2], 64);
    _tile_stored(3, sums.of[3], 64);
    AddSums(sums, last, 0, kTokens);
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
