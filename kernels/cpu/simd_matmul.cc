// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/simd_matmul.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/simd_matmul.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "kernels/cpu/simd_dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fairlead {
namespace HWY_NAMESPACE {

constexpr int64_t kTileK = 256;  // k of a dequantised tile: 16 KiB a panel, about what L1 can hold

// Running sums in registers: kTileTokens x kTilePanels * kVecs, beside the weights and a broadcast.
// That is 24 + 3 of 32 registers with AVX-512, 12 + 3 of 16 with AVX2, 24 + 5 of 32 with NEON, 8 +
// 5 of 16 with SSE4. At least 8 independent chains hide the latency of a fused multiply-add (4
// cycles, 2 a cycle).
constexpr int kTilePanels = kVecs == 1 ? 2 : 1;
constexpr int kTileVecs = kTilePanels * kVecs;
constexpr int kTileTokens = kLanes == 16 ? 12 : (kLanes == 8 || HWY_ARCH_ARM) ? 6 : 2;
constexpr int kSumStride =
    kTilePanels * kPanelRows;  // floats of scratch for a token's running sums

// The vector kernel: tokens of one pass over the weights, as many as leave registers for
// dequantising, and panels at once, for the same latency.
constexpr int kPassTokens = kLanes == 16 ? 8 : (kLanes == 8 || HWY_ARCH_ARM) ? 4 : 1;
constexpr int VectorPanels(int pass_tokens) {
  if (kLanes == 16) return pass_tokens <= 2 ? 4 : 2;
  return kLanes == 8 && pass_tokens == 1 ? 2 : 1;
}
// Two passes are still cheaper than a dequantised tile. Tokens of each pass:
constexpr int kVectorTokens = 2 * kPassTokens;
constexpr int PassTokens(int tokens) { return tokens <= kPassTokens ? tokens : (tokens + 1) / 2; }

constexpr int Powers(int tokens) { return kLanes == 16 ? 4 : tokens == 1 ? 2 : 1; }

// Bytes of a panel's `k` columns; a multiple of the block.
constexpr int StepBytes(DType type, int k) {
  switch (type) {
    case DType::kQ8_0:
      return k / kBlock * (ScaleBytes(type) + kBlock * kPanelRows);
    case DType::kQ4_0:
    case DType::kQ4_1:
      return k / kBlock * (ScaleBytes(type) + kBlock / 2 * kPanelRows);
    default:
      return k * PlainBytes(type) * kPanelRows;
  }
}

// ---- output

// data[t, c] = sums[t, c] (+ bias[c]) (+ data[t, c]) for c in [0, columns).
HWY_NOINLINE void WriteOutput(const float* HWY_RESTRICT sums, int64_t sum_stride, int64_t tokens,
                              int64_t columns, const float* bias, bool accumulate,
                              float* HWY_RESTRICT data, int64_t stride) {
  for (int64_t t = 0; t < tokens; ++t, sums += sum_stride, data += stride) {
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      V sum = hn::LoadU(d, sums + c);
      if (bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, bias + c));
      if (accumulate) sum = hn::Add(sum, hn::LoadU(d, data + c));
      hn::StoreU(sum, d, data + c);
    }
    for (; c < columns; ++c) {
      float sum = sums[c];
      if (bias != nullptr) sum += bias[c];
      if (accumulate) sum += data[c];
      data[c] = sum;
    }
  }
}

void WriteSums(const float* sums, int64_t sum_stride, int64_t tokens, int64_t columns,
               int64_t first_token, int64_t first_row, const MatmulOutput& out) {
  WriteOutput(sums, sum_stride, tokens, columns,
              out.bias == nullptr ? nullptr : out.bias + first_row, out.accumulate,
              out.data + first_token * out.stride + first_row, out.stride);
}

void WritePanels(const float* sums, int64_t sum_stride, int64_t tokens, int64_t panel, int panels,
                 const CpuPackedWeight& weight, int64_t first_token, const MatmulOutput& out) {
  const int64_t row = panel * kPanelRows;
  const int64_t columns = std::min<int64_t>(panels * kPanelRows, weight.rows() - row);
  WriteSums(sums, sum_stride, tokens, columns, first_token, row, out);
}

// ---- vector kernel: kPanels panels by kTokens tokens, weights dequantised in registers

template <int kTokens, int kPanels>
struct Sums {
  V sum[kTokens][kPanels * kVecs];

  HWY_INLINE Sums() {
    HWY_UNROLL(32)
    for (int t = 0; t < kTokens; ++t) {
      HWY_UNROLL(32)
      for (int i = 0; i < kPanels * kVecs; ++i) sum[t][i] = hn::Zero(d);
    }
  }
  // The broadcasts are repeated for each i; the compiler keeps them in registers where it has them.
  HWY_INLINE void Add(int i, const float* x, int64_t x_stride, V w) {
    HWY_UNROLL(32)
    for (int t = 0; t < kTokens; ++t) {
      sum[t][i] = hn::MulAdd(hn::Set(d, x[t * x_stride]), w, sum[t][i]);
    }
  }
  HWY_INLINE void Store(float* out) const {
    HWY_UNROLL(32)
    for (int t = 0; t < kTokens; ++t) {
      HWY_UNROLL(32)
      for (int i = 0; i < kPanels * kVecs; ++i) {
        hn::StoreU(sum[t][i], d, out + (t * kPanels * kVecs + i) * kLanes);
      }
    }
  }
};

// Where the panels of one call start. A missing panel is the last one again; its sums are not
// written.
template <int kPanels>
struct PanelOffsets {
  size_t at[kPanels];
  PanelOffsets(size_t panel_bytes, int64_t panels) {
    for (int p = 0; p < kPanels; ++p) at[p] = std::min<int64_t>(p, panels - 1) * panel_bytes;
  }
};

template <DType kType, int kTokens, int kPanels>
HWY_INLINE void VectorBlockQ4(const std::byte* block, const PanelOffsets<kPanels>& offsets,
                              const float* x, int64_t x_stride, Sums<kTokens, kPanels>& sums) {
  constexpr int kAll = kPanels * kVecs;
  NibbleScales<Powers(kTokens)> scales[kAll];
  HWY_UNROLL(32)
  for (int i = 0; i < kAll; ++i) {
    scales[i].template Load<kType>(block + offsets.at[i / kVecs], i % kVecs * kLanes);
  }
  block += ScaleBytes(kType);
  for (int group = 0; group < 4; ++group, x += 8, block += 4 * kPanelRows) {
    Words nibbles[kAll];
    HWY_UNROLL(32)
    for (int i = 0; i < kAll; ++i) {
      nibbles[i] = LoadWords(block + offsets.at[i / kVecs] + i % kVecs * kLanes * 4);
    }
    HWY_UNROLL(32)
    for (int j = 0; j < 8; ++j) {
      HWY_UNROLL(32)
      for (int i = 0; i < kAll; ++i) {
        sums.Add(i, x + j, x_stride, scales[i].Next(j, nibbles[i]));
      }
    }
  }
}

// The elements 2 * kByte and 2 * kByte + 1 of a group, whose even and odd ones are words[i][0] and
// words[i][1].
template <int kByte, int kAll, int kTokens, int kPanels>
HWY_INLINE void VectorPairQ8(const Words (&words)[kAll][2], const V (&scales)[kAll], const float* x,
                             int64_t x_stride, Sums<kTokens, kPanels>& sums) {
  HWY_UNROLL(2)
  for (int odd = 0; odd < 2; ++odd) {
    HWY_UNROLL(32)
    for (int i = 0; i < kAll; ++i) {
      sums.Add(i, x + 2 * kByte + odd, x_stride, DequantizeByte<kByte>(words[i][odd], scales[i]));
    }
  }
}

template <int kTokens, int kPanels>
HWY_INLINE void VectorBlockQ8(const std::byte* block, const PanelOffsets<kPanels>& offsets,
                              const float* x, int64_t x_stride, Sums<kTokens, kPanels>& sums) {
  constexpr int kAll = kPanels * kVecs;
  V scales[kAll];
  HWY_UNROLL(32)
  for (int i = 0; i < kAll; ++i) {
    scales[i] = LoadByteScale(block + offsets.at[i / kVecs] + 2 * (i % kVecs) * kLanes);
  }
  block += ScaleBytes(DType::kQ8_0);
  for (int group = 0; group < 4; ++group, x += 8, block += 2 * kWordBytes) {
    Words words[kAll][2];
    HWY_UNROLL(32)
    for (int i = 0; i < kAll; ++i) {
      const std::byte* from = block + offsets.at[i / kVecs] + i % kVecs * kLanes * 4;
      words[i][0] = LoadWords(from);
      words[i][1] = LoadWords(from + kWordBytes);
    }
    VectorPairQ8<0>(words, scales, x, x_stride, sums);
    VectorPairQ8<1>(words, scales, x, x_stride, sums);
    VectorPairQ8<2>(words, scales, x, x_stride, sums);
    VectorPairQ8<3>(words, scales, x, x_stride, sums);
  }
}

template <DType kType, int kTokens, int kPanels>
HWY_INLINE void VectorStepPlain(const std::byte* block, const PanelOffsets<kPanels>& offsets,
                                int64_t count, const float* x, int64_t x_stride,
                                Sums<kTokens, kPanels>& sums) {
  constexpr int kBytes = StepBytes(kType, 1);
  for (int64_t k = 0; k < count; ++k, block += kBytes) {
    HWY_UNROLL(32)
    for (int i = 0; i < kPanels * kVecs; ++i) {
      sums.Add(i, x + k, x_stride,
               LoadPlain<kType>(block + offsets.at[i / kVecs] +
                                i % kVecs * kLanes * kBytes / kPanelRows));
    }
  }
}

// How far to read ahead, measured: a few KiB, whatever the format.
constexpr int AheadSteps(int step_bytes) { return (3072 + step_bytes - 1) / step_bytes; }

// Several panels are several streams of a few KiB each: too short for the hardware to catch up with
// each of them.
template <int kBytes, int kPanels>
HWY_INLINE void PrefetchPanels(const std::byte* block, const PanelOffsets<kPanels>& offsets) {
  for (int p = 0; p < kPanels; ++p) {
    HWY_UNROLL(32)
    for (int line = 0; line < kBytes; line += 64) {
      hwy::Prefetch(block + offsets.at[p] + AheadSteps(kBytes) * kBytes + line);
    }
  }
}

// The first `panels` of kPanels panels from `block` on. out: [kTokens][kPanels * kPanelRows].
template <DType kType, int kTokens, int kPanels>
HWY_NOINLINE void VectorPanelsOf(const CpuPackedWeight& weight, const std::byte* block,
                                 int64_t panels, const float* x, float* out) {
  const int64_t cols = weight.cols();
  const PanelOffsets<kPanels> offsets(weight.panel_bytes(), panels);
  Sums<kTokens, kPanels> sums;
  constexpr bool kQuantized =
      kType == DType::kQ8_0 || kType == DType::kQ4_0 || kType == DType::kQ4_1;
  constexpr int64_t kStep = kQuantized ? kBlock : 16;
  constexpr int kBytes = StepBytes(kType, kStep);
  const size_t next_call = (kPanels - 1) * weight.panel_bytes();
  for (int64_t k = 0; k < cols; k += kStep, block += kBytes) {
    PrefetchPanels<kBytes>(block + (k + AheadSteps(kBytes) * kStep < cols ? 0 : next_call),
                           offsets);
    if constexpr (kType == DType::kQ8_0) {
      VectorBlockQ8(block, offsets, x + k, cols, sums);
    } else if constexpr (kQuantized) {
      VectorBlockQ4<kType>(block, offsets, x + k, cols, sums);
    } else {
      VectorStepPlain<kType>(block, offsets, std::min(kStep, cols - k), x + k, cols, sums);
    }
  }
  sums.Store(out);
}

template <DType kType, int kTokens>
void VectorsOf(const CpuPackedWeight& weight, const float* x, int tokens, int64_t panel, int panels,
               int64_t first_token, const MatmulOutput& out) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) {
      return VectorsOf<kType, kTokens - 1>(weight, x, tokens, panel, panels, first_token, out);
    }
  }
  constexpr int kPanels = VectorPanels(kTokens);
  HWY_ALIGN float sums[kTokens * kPanels * kPanelRows];
  VectorPanelsOf<kType, kTokens, kPanels>(weight, weight.panel(panel), panels, x, sums);
  WritePanels(sums, kPanels * kPanelRows, kTokens, panel, panels, weight, first_token, out);
}

// All tokens, kPassTokens at a time at most, over a few panels at a time: the later passes find
// these in L1.
template <DType kType>
void VectorsOfType(const CpuPackedWeight& weight, const float* x, int tokens, int64_t panel,
                   int64_t panel_end, const MatmulOutput& out) {
  const int step = PassTokens(tokens);
  for (const int unit = VectorPanels(step); panel < panel_end; panel += unit) {
    const int panels = static_cast<int>(std::min<int64_t>(unit, panel_end - panel));
    for (int t = 0; t < tokens; t += step) {
      VectorsOf<kType, kPassTokens>(weight, x + t * weight.cols(), std::min(step, tokens - t),
                                    panel, panels, t, out);
    }
  }
}

void MultiplyVectors(const CpuPackedWeight& weight, const float* x, int tokens, int64_t panel,
                     int64_t panel_end, const MatmulOutput& out) {
  switch (weight.dtype()) {
    case DType::kF16:
      return VectorsOfType<DType::kF16>(weight, x, tokens, panel, panel_end, out);
    case DType::kBF16:
      return VectorsOfType<DType::kBF16>(weight, x, tokens, panel, panel_end, out);
    case DType::kQ8_0:
      return VectorsOfType<DType::kQ8_0>(weight, x, tokens, panel, panel_end, out);
    case DType::kQ4_0:
      return VectorsOfType<DType::kQ4_0>(weight, x, tokens, panel, panel_end, out);
    case DType::kQ4_1:
      return VectorsOfType<DType::kQ4_1>(weight, x, tokens, panel, panel_end, out);
    case DType::kF32:
    case DType::kI32:
      return VectorsOfType<DType::kF32>(weight, x, tokens, panel, panel_end, out);
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_NL:
    case DType::kMXFP4:
    case DType::kIQ4_XS:
    case DType::kQ3_K:
    case DType::kQ2_K:
    case DType::kF8_E4M3:
      FAIRLEAD_CHECK_MSG(false, Info(weight.dtype()).name);
  }
}

// ---- tile kernel: a dequantised tile of kTilePanels panels by kTileK, multiplied with many tokens

// Where column k, the first of a block, starts in a panel.
const std::byte* BlockAt(const CpuPackedWeight& weight, int64_t panel, int64_t k) {
  return weight.panel(panel) + k / weight.block_k() * weight.block_bytes();
}

// The tile that is dequantised next, to arrive during the multiplication: of the same panels or,
// past the end, the next ones.
void PrefetchTile(const CpuPackedWeight& weight, int64_t panel, int64_t k) {
  if (k >= weight.cols()) {
    k = 0;
    panel += kTilePanels;
  }
  const int64_t blocks = std::min(kTileK, weight.cols() - k) / weight.block_k();
  for (const int64_t end = std::min(panel + kTilePanels, weight.panels()); panel < end; ++panel) {
    const std::byte* first = BlockAt(weight, panel, k);
    const std::byte* last = first + blocks * weight.block_bytes();
    for (; first < last; first += 64) hwy::Prefetch(first);
  }
}

// sums [kTokens][kSumStride] += x * w over `count` k. w: the panels' tiles; x: packed pairs.
template <int kTokens>
HWY_NOINLINE void MultiplyTokens(const float* const* w, int64_t count, const float* x,
                                 int64_t pair_stride, float* HWY_RESTRICT sums) {
  V sum[kTokens][kTileVecs];
  HWY_UNROLL(32)
  for (int t = 0; t < kTokens; ++t) {
    HWY_UNROLL(32)
    for (int i = 0; i < kTileVecs; ++i) {
      sum[t][i] = hn::Load(d, sums + t * kSumStride + i * kLanes);
    }
  }
  const float* HWY_RESTRICT w_first = w[0];
  const float* HWY_RESTRICT w_last = w[kTilePanels - 1];
  for (int64_t k = 0; k < count; ++k, x += 2, w_first += kPanelRows, w_last += kPanelRows) {
    V weights[kTileVecs];
    HWY_UNROLL(32)
    for (int i = 0; i < kTileVecs; ++i) {
      weights[i] = hn::Load(d, (i < kVecs ? w_first : w_last) + i % kVecs * kLanes);
    }
    HWY_UNROLL(32)
    for (int t = 0; t < kTokens; ++t) {
      const V broadcast = hn::Set(d, x[t / 2 * pair_stride + t % 2]);
      HWY_UNROLL(32)
      for (int i = 0; i < kTileVecs; ++i) {
        sum[t][i] = hn::MulAdd(broadcast, weights[i], sum[t][i]);
      }
    }
  }
  HWY_UNROLL(32)
  for (int t = 0; t < kTokens; ++t) {
    HWY_UNROLL(32)
    for (int i = 0; i < kTileVecs; ++i) {
      hn::Store(sum[t][i], d, sums + t * kSumStride + i * kLanes);
    }
  }
}

using TokensFunction = void (*)(const float* const*, int64_t, const float*, int64_t, float*);

template <int kTokens = kTileTokens>
TokensFunction MultiplyTokensFor(int64_t tokens) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) return MultiplyTokensFor<kTokens - 1>(tokens);
  }
  return &MultiplyTokens<kTokens>;
}

void MultiplyTile(const CpuPackedWeight& weight, const float* x, int64_t token_begin,
                  int64_t token_end, int64_t panel, float* scratch, const MatmulOutput& out) {
  const int64_t cols = weight.cols();
  const int64_t tokens = token_end - token_begin;
  const int panels = static_cast<int>(std::min<int64_t>(kTilePanels, weight.panels() - panel));
  float* sums = scratch + kTilePanels * kTileK * kPanelRows;
  std::fill(sums, sums + tokens * kSumStride, 0.0f);
  // Register tiles of an equal and even number of tokens, rather than full ones and a remainder.
  const int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int64_t step = ((tokens + tiles - 1) / tiles + 1) / 2 * 2;
  x += token_begin * cols;
  for (int64_t k = 0; k < cols; k += kTileK) {
    const int64_t count = std::min(kTileK, cols - k);
    const float* w[kTilePanels] = {};
    for (int p = 0; p < kTilePanels; ++p) {
      // A missing second panel is the first again; its sums are not written.
      w[p] = p < panels ? DequantizeTile(weight.dtype(), BlockAt(weight, panel + p, k), count,
                                         scratch + p * kTileK * kPanelRows)
                        : w[0];
    }
    PrefetchTile(weight, panel, k + kTileK);
    for (int64_t t = 0; t < tokens; t += step) {
      MultiplyTokensFor(std::min(step, tokens - t))(w, count, x + t * cols + 2 * k, 2 * cols,
                                                    sums + t * kSumStride);
    }
  }
  WritePanels(sums, kSumStride, tokens, panel, panels, weight, token_begin, out);
}

void PackActivations(const float* x, int64_t k, int64_t begin, int64_t end, float* packed) {
  for (int64_t t = begin; t < end; t += 2) {
    const float* HWY_RESTRICT first = x + t * k;
    float* HWY_RESTRICT out = packed + t * k;
    int64_t i = 0;
    if (t + 1 < end) {
      const float* HWY_RESTRICT second = first + k;
      for (; i + kLanes <= k; i += kLanes) {
        hn::StoreInterleaved2(hn::LoadU(d, first + i), hn::LoadU(d, second + i), d, out + 2 * i);
      }
      for (; i < k; ++i) {
        out[2 * i] = first[i];
        out[2 * i + 1] = second[i];
      }
    } else {
      for (; i < k; ++i) out[2 * i] = first[i];
    }
  }
}

void RoundToBF16(const float* HWY_RESTRICT values, int64_t count, uint16_t* HWY_RESTRICT out) {
  const hn::Rebind<uint16_t, D> d16;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto bits = hn::BitCast(du32, hn::LoadU(d, values + i));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du32, 1u));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du32, 0x7fffu)));
    const auto quiet = hn::Or(bits, hn::Set(du32, 0x400000u));
    const auto nan = hn::RebindMask(du32, hn::IsNaN(hn::BitCast(d, bits)));
    const auto high = hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, rounded));
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, high)), d16, out + i);
  }
  for (; i < count; ++i) out[i] = F32ToBF16(values[i]);
}

int TilePanels() { return kTilePanels; }
int VectorTokens(DType dtype) {
  switch (dtype) {
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_NL:
    case DType::kMXFP4:
    case DType::kIQ4_XS:
    case DType::kQ3_K:
    case DType::kQ2_K:
      return 0;
    default:
      return kVectorTokens;
  }
}
int VectorPanelsFor(int tokens) { return VectorPanels(PassTokens(tokens)); }
bool HasFma() { return HWY_NATIVE_FMA != 0; }
int64_t Target() { return HWY_TARGET; }

static_assert(kTilePanels * kPanelRows * (kTileK + kMaxTileTokens) <= 2 * 16 * (256 + 240));

}  // namespace HWY_NAMESPACE
}  // namespace fairlead
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fairlead {

HWY_EXPORT(MultiplyVectors);
HWY_EXPORT(MultiplyTile);
HWY_EXPORT(PackActivations);
HWY_EXPORT(WriteSums);
HWY_EXPORT(RoundToBF16);
HWY_EXPORT(TilePanels);
HWY_EXPORT(VectorTokens);
HWY_EXPORT(VectorPanelsFor);
HWY_EXPORT(Target);
HWY_EXPORT(HasFma);

std::string_view SimdTargetName() { return hwy::TargetName(HWY_DYNAMIC_DISPATCH(Target)()); }
bool SimdHasFma() { return HWY_DYNAMIC_DISPATCH(HasFma)(); }
int SimdTilePanels() { return HWY_DYNAMIC_DISPATCH(TilePanels)(); }
int SimdVectorTokens(DType dtype) { return HWY_DYNAMIC_DISPATCH(VectorTokens)(dtype); }
int SimdVectorPanels(int tokens) { return HWY_DYNAMIC_DISPATCH(VectorPanelsFor)(tokens); }
size_t SimdTileScratchFloats() { return 2 * kPanelRows * (256 + kMaxTileTokens); }

void SimdMultiplyVectors(const CpuPackedWeight& weight, const float* x, int tokens,
                         int64_t panel_begin, int64_t panel_end, const MatmulOutput& out) {
  HWY_DYNAMIC_DISPATCH(MultiplyVectors)(weight, x, tokens, panel_begin, panel_end, out);
}

void SimdPackActivations(const float* x, int64_t k, int64_t begin, int64_t end, float* packed) {
  HWY_DYNAMIC_DISPATCH(PackActivations)(x, k, begin, end, packed);
}

void SimdMultiplyTile(const CpuPackedWeight& weight, const float* packed_activations,
                      int64_t token_begin, int64_t token_end, int64_t panel, float* scratch,
                      const MatmulOutput& out) {
  HWY_DYNAMIC_DISPATCH(MultiplyTile)
  (weight, packed_activations, token_begin, token_end, panel, scratch, out);
}

void SimdWriteSums(const float* sums, int64_t sum_stride, int64_t tokens, int64_t columns,
                   int64_t first_token, int64_t first_row, const MatmulOutput& out) {
  HWY_DYNAMIC_DISPATCH(WriteSums)
  (sums, sum_stride, tokens, columns, first_token, first_row, out);
}

void SimdRoundToBF16(const float* values, int64_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(RoundToBF16)(values, count, out);
}

}  // namespace fairlead
#endif  // HWY_ONCE
