// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/tile_attention.h"

#include "kernels/cpu/amx.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/device.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,amx-tile,amx-bf16")
namespace fairlead {
namespace {

constexpr int kRows = 16;   // queries of a tile
constexpr int kDims = 32;   // of a step of scores
constexpr int kKeys = 16;   // of a step of values: any two such groups may lie apart
constexpr int kAtOnce = 4;  // tiles of sums
// Rows stand apart by no multiple of 1,024 bytes, which would share a few sets of the cache.
constexpr int kScoreStride = kSplitKeys + 16;
constexpr int kWeightStride = kSplitKeys + 32;

// Up to 16 queries of a split. Tiles: 0 to 3 are sums, 4 queries, 5 keys, 6 weights, 7 values.
class QueryTile {
 public:
  QueryTile(const SplitArgs& args, int first)
      : args_(args),
        first_(first),
        rows_(std::min(kRows, args.queries - first)),
        begin_(args.begin + first),
        limit_(args.limit + first),
        first_group_(begin_[0] / 16),
        out_(args.sums.out + int64_t{first} * args.v_stride) {}

  void Run() {
    LoadConfig();
    RoundQueries();
    Scores();
    const int steps = (limit_[rows_ - 1] + kKeys - 1) / kKeys;
    for (int r = 0; r < rows_; ++r) Softmax(r, steps * kKeys);
    Values(steps);
  }

 private:
  using Bf16 = uint16_t;

  void LoadConfig() const {
    AmxTileConfig config;
    for (const int tile : {0, 1, 2, 3, 4, 6}) config.rows[tile] = static_cast<uint8_t>(rows_);
    config.row_bytes[6] = static_cast<uint16_t>(2 * kKeys);
    config.rows[7] = static_cast<uint8_t>(kKeys / 2);
    asm volatile("" ::: "memory");
    _tile_loadconfig(&config);
  }

  void RoundQueries();
  void Scores() const;
  template <int kGroups>
  void ScoreGroups(int group) const;
  void Softmax(int row, int end);
  void Values(int steps);
  template <int kTiles>
  void AddSteps(int begin, int end, int dim) const;
  void AddSteps(int begin, int end) const;
  void AddStepByRow(int step);
  const std::byte* Value(int step) const {
    return static_cast<const std::byte*>(args_.v_group[step]);
  }
  bool IsFinite(int step) const;
  int dim_steps() const { return (args_.head_dim + kDims - 1) / kDims; }

  const SplitArgs& args_;
  const int first_;
  const int rows_;
  const int* const begin_;
  const int* const limit_;
  const int first_group_;  // the first that any of the rows sees
  float* const out_;
  alignas(64) Bf16 query_[kRows][KvShape::kMaxHeadDim];
  alignas(64) float score_[kRows][kScoreStride];
  alignas(64) Bf16 weight_[kRows][kWeightStride];
};

// bf16 of a and b, to the nearest, ties to even.
[[gnu::always_inline]] inline __m512i Round(__m512 a, __m512 b) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a));
}

void QueryTile::RoundQueries() {
  for (int r = 0; r < rows_; ++r) {
    const float* q = args_.q + int64_t{first_ + r} * args_.head_dim;
    for (int dim = 0; dim < args_.head_dim; dim += kDims) {
      const int left = args_.head_dim - dim;
      const uint32_t mask = left >= kDims ? ~0u : (1u << left) - 1;
      const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), q + dim);
      const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), q + dim + 16);
      _mm512_store_si512(&query_[r][dim], Round(low, high));
    }
  }
}

// The intrinsics say nothing to the compiler about the memory they touch, and they want literal
// tile numbers.
template <int kGroups>
void QueryTile::ScoreGroups(int group) const {
  const int64_t stride = int64_t{4} * args_.k_stride;
  const auto key = [&](int i, int step) {
    return static_cast<const std::byte*>(args_.k_group[group + i]) + step * (kDims / 2) * stride;
  };
  _tile_zero(0);
  if constexpr (kGroups > 1) {
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int step = 0; step < dim_steps(); ++step) {
    _tile_loadd(4, &query_[0][step * kDims], sizeof(query_[0]));
    _tile_loadd(5, key(0, step), stride);
    _tile_dpbf16ps(0, 4, 5);
    if constexpr (kGroups > 1) {
      _tile_loadd(5, key(1, step), stride);
      _tile_dpbf16ps(1, 4, 5);
      _tile_loadd(5, key(2, step), stride);
      _tile_dpbf16ps(2, 4, 5);
      _tile_loadd(5, key(3, step), stride);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  auto* score = const_cast<float*>(&score_[0][group * 16]);
  _tile_stored(0, score, sizeof(score_[0]));
  if constexpr (kGroups > 1) {
    _tile_stored(1, score + 16, sizeof(score_[0]));
    _tile_stored(2, score + 32, sizeof(score_[0]));
    _tile_stored(3, score + 48, sizeof(score_[0]));
  }
}

void QueryTile::Scores() const {
  asm volatile("" ::: "memory");  // the queries are written before tiles read them
  const int groups = (limit_[rows_ - 1] + 15) / 16;
  int group = first_group_;
  for (; group + kAtOnce <= groups; group += kAtOnce) ScoreGroups<kAtOnce>(group);
  for (; group < groups; ++group) ScoreGroups<1>(group);
  asm volatile("" ::: "memory");
}

// 2^t for t <= 0: 2^n * 2^r, |r| <= 1/2, and 2^r by its Taylor series (ln 2)^k / k! up to r^5, off
// by 3e-6. Below -150 it is 2^-150, which bf16 and sums take for 0; NaN stays NaN.
[[gnu::always_inline]] inline __m512 Exp2(__m512 t) {
  t = _mm512_max_ps(_mm512_set1_ps(-150.0f), t);
  const __m512 n = _mm512_roundscale_ps(t, 0);
  const __m512 r = _mm512_sub_ps(t, n);
  __m512 p = _mm512_set1_ps(1.33335581e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// A row's weights; those of the tile's other keys up to `end` are 0.
void QueryTile::Softmax(int row, int end) {
  float* score = score_[row];
  const int begin = begin_[row], limit = limit_[row];
  const auto before = [](int keys) { return (1u << std::clamp(keys, 0, 16)) - 1; };
  const auto seen = [&](int key) {
    return static_cast<__mmask16>(before(limit - key) & ~before(begin - key));
  };
  if (args_.soft_cap > 0) {
    const int first = begin / 16 * 16;
    SimdCapScores(args_.soft_cap, (limit + 15) / 16 * 16 - first, score + first);
  }
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 most = lowest;
  for (int key = begin / 16 * 16; key < limit; key += 16) {
    most = _mm512_max_ps(most, _mm512_mask_loadu_ps(lowest, seen(key), score + key));
  }
  const float max = _mm512_reduce_max_ps(most);
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  const auto weight = [&](int key) {
    const __m512 below = _mm512_sub_ps(_mm512_load_ps(score + key), _mm512_set1_ps(max));
    return _mm512_maskz_mov_ps(seen(key), Exp2(_mm512_mul_ps(below, log2e)));
  };
  __m512 sum = _mm512_setzero_ps(), odd_sum = _mm512_setzero_ps();
  int key = first_group_ / 2 * 32;
  for (; key + 32 <= begin; key += 32) {
    _mm512_store_si512(&weight_[row][key], _mm512_setzero_si512());
  }
  for (; key < limit; key += 32) {
    const __m512 low = weight(key);
    const __m512 high = key + 16 < limit ? weight(key + 16) : _mm512_setzero_ps();
    sum = _mm512_add_ps(sum, low);
    odd_sum = _mm512_add_ps(odd_sum, high);
    _mm512_store_si512(&weight_[row][key], Round(low, high));
  }
  for (; key < end; key += 32) {
    _mm512_store_si512(&weight_[row][key], _mm512_setzero_si512());
  }
  args_.sums.max[first_ + row] = max;
  args_.sums.sum[first_ + row] = _mm512_reduce_add_ps(_mm512_add_ps(sum, odd_sum));
}

bool QueryTile::IsFinite(int step) const {
  const std::byte* value = Value(step);
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 infinite = 0;
  for (int64_t i = 0; i < int64_t{2} * kKeys * args_.v_stride; i += 64) {
    const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(value + i), exponent);
    infinite |= _mm512_cmpeq_epi16_mask(bits, exponent);
  }
  return infinite == 0;
}

// out += weights * values of the steps [begin, end), for kTiles * 16 dimensions from `dim` on.
template <int kTiles>
void QueryTile::AddSteps(int begin, int end, int dim) const {
  const int64_t stride = int64_t{4} * args_.v_stride;
  float* out = out_ + dim;
  if (begin == first_group_) {
    _tile_zero(0);
    if constexpr (kTiles > 1) {
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, out, stride);
    if constexpr (kTiles > 1) {
      _tile_loadd(1, out + 16, stride);
      _tile_loadd(2, out + 32, stride);
      _tile_loadd(3, out + 48, stride);
    }
  }
  for (int step = begin; step < end; ++step) {
    const std::byte* value = Value(step) + int64_t{4} * dim;
    _tile_loadd(6, &weight_[0][step * kKeys], sizeof(weight_[0]));
    _tile_loadd(7, value, stride);
    _tile_dpbf16ps(0, 6, 7);
    if constexpr (kTiles > 1) {
      _tile_loadd(7, value + 64, stride);
      _tile_dpbf16ps(1, 6, 7);
      _tile_loadd(7, value + 128, stride);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, value + 192, stride);
      _tile_dpbf16ps(3, 6, 7);
    }
  }
  _tile_stored(0, out, stride);
  if constexpr (kTiles > 1) {
    _tile_stored(1, out + 16, stride);
    _tile_stored(2, out + 32, stride);
    _tile_stored(3, out + 48, stride);
  }
}

void QueryTile::AddSteps(int begin, int end) const {
  asm volatile("" ::: "memory");
  int dim = 0;
  for (; dim + 16 * kAtOnce <= args_.v_stride; dim += 16 * kAtOnce) {
    AddSteps<kAtOnce>(begin, end, dim);
  }
  for (; dim < args_.v_stride; dim += 16) AddSteps<1>(begin, end, dim);
  asm volatile("" ::: "memory");
}

// A step in which some value is not finite: row by row, with zeros for what the row does not see.
// The same sums as AddSteps where that may be used: there such values are multiplied by zero.
void QueryTile::AddStepByRow(int step) {
  alignas(64) uint32_t values[kKeys / 2 * KvShape::kMaxHeadDim];  // pairs, as in the cache
  alignas(64) float sums[kRows][16];
  const int width = args_.v_stride;
  for (int r = 0; r < rows_; ++r) {
    const int begin = begin_[r] - step * kKeys, limit = limit_[r] - step * kKeys;
    if (limit <= 0 || begin >= kKeys) continue;
    std::memcpy(values, Value(step), sizeof(uint32_t) * (kKeys / 2) * width);
    for (int key = 0; key < kKeys; ++key) {
      if (key >= begin && key < limit) continue;
      const uint32_t other = key % 2 == 0 ? 0xffff0000u : 0xffffu;
      for (int i = key / 2 * width; i < (key / 2 + 1) * width; ++i) values[i] &= other;
    }
    for (int dim = 0; dim < width; dim += 16) {
      float* out = out_ + int64_t{r} * width + dim;
      asm volatile("" ::: "memory");
      _tile_loadd(0, out, 0);  // all rows are this one
      _tile_loadd(6, &weight_[r][step * kKeys], 0);
      _tile_loadd(7, values + dim, int64_t{4} * width);
      _tile_dpbf16ps(0, 6, 7);
      _tile_stored(0, sums, sizeof(sums[0]));
      asm volatile("" ::: "memory");
      std::memcpy(out, sums[0], sizeof(sums[0]));
    }
  }
}

void QueryTile::Values(int steps) {
  const auto seen_by_all = [&](int step) {
    return begin_[rows_ - 1] <= step * kKeys && (step + 1) * kKeys <= limit_[0];
  };
  int done = first_group_, end = done;
  for (;;) {
    while (end < steps && (seen_by_all(end) || IsFinite(end))) ++end;
    if (end > done) AddSteps(done, end);
    if (end == steps) return;
    if (end == first_group_) std::memset(out_, 0, sizeof(float) * rows_ * args_.v_stride);
    AddStepByRow(end);
    done = ++end;
  }
}

void AttendSplit(const SplitArgs& args) {
  for (int first = 0; first < args.queries; first += kRows) QueryTile(args, first).Run();
  _tile_release();
}

bool Supported() {
  return HasAmx(kAmxTileBit | kAmxBf16Bit) && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma");
}

}  // namespace

// Asked once: each time would cost two exits to a virtual machine's host.
AttendSplitFunction TileAttention() {
  static const AttendSplitFunction function = Supported() ? &AttendSplit : nullptr;
  return function;
}

}  // namespace fairlead
#pragma GCC pop_options

#else
namespace fairlead {
AttendSplitFunction TileAttention() { return nullptr; }
}  // namespace fairlead
#endif
