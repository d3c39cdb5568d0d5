// SPDX-License-Identifier: Apache-2.0
// Products with packed weights by tensor cores, for numerics that may round activations. The
// weight's rows are the tile's 16 rows, tokens its columns.
//
// k is cut into groups of 4 chunks (packed_weight.h), and those into at most kSlices slices of
// equally many groups (the last may have fewer). A step of a group is a tile product: quad c of it
// is quad `step` of the group's chunk c, so that a lane makes its fragments of the 16 bytes it
// loaded. Values: a row of the weight times its power of two, rounded to f16 (dequantize.h); the
// activations of a token in a slice times the power of two that brings the largest of them into
// [2^14, 2^15), rounded to f16. So nothing overflows, and an element 2^-28 of the largest still has
// 11 bits. Then
//   a slice is one chain of tile products over ascending groups and steps, from zero;
//   it is multiplied with the inverse of the activations' power of two (exact),
//   slices are added in order, from zero;
//   the total is multiplied with the inverse of the row's (exact), then come bias and what was
//   there.
// So the order of a sum depends on the dtype and k alone, not on the kernel, tile or tokens.
// Kernels that are kRouted multiply tokens that choose among the weight's matrices (matmul_call.h):
// they find a token's activations where those of its row of x are.
#include "kernels/gpu/matmul_mma.h"

#include "kernels/gpu/dequantize.h"
#include "kernels/gpu/matmul_call.h"
#include "kernels/gpu/mma.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kSlices = 8;
constexpr int kFewTokens = 16, kSomeTokens = 64;
// Of a block. A lane of a warp of 64 has half as much of a tile as one of a warp of 32, and where
// there are such warps, twice the registers.
constexpr int kManyRows = 128, kManyTokens = kWarp == 64 ? 128 : 64;
constexpr int kManyThreads = 256;
constexpr size_t kMaxStagedBytes = size_t{32} << 10;
constexpr int kStageSteps = 4;      // of MatmulTiles, at most
constexpr int kRoundedTokens = 64;  // that stand together
// Blocks of kManyRows x kManyTokens that keep a GPU of some 100 multiprocessors busy.
constexpr int64_t kManyBlocks = 96;

// Four activations.
struct alignas(8) Halves {
  uint32_t pair[2];
};

struct MmaCall {
  MatmulCall product;
  // Rounded activations, or null: kRoundedTokens after kRoundedTokens, as TokenLayout says.
  Halves* halves;
  float* factors;  // [tokens, kSlices]: what a slice's sums are multiplied with
  int groups, slice_groups;
};

// Where the four activations stand that one of `tokens` multiplies with a quad: steps one after
// another, two by two where there are two, so that a lane reads 16 bytes and a warp contiguous
// ones.
template <int kElements>
struct TokenLayout {
  static constexpr int kSteps = kElements / 4;  // of a group
  static constexpr int kJoined = kSteps > 1 ? 2 : 1;

  GPU_BOTH static constexpr size_t Index(int tokens, int group, int step, int token, int quad) {
    const size_t pair = static_cast<size_t>(group) * (kSteps / kJoined) + step / kJoined;
    return ((pair * tokens + token) * kMmaQuads + quad) * kJoined + step % kJoined;
  }
  GPU_BOTH static constexpr size_t Quads(int tokens, int groups) {
    return static_cast<size_t>(groups) * kSteps * kMmaQuads * tokens;
  }
};

// By a warp: rounds the activations of a row of x and a slice into `halves`, of so many tokens,
// this one at `place`. Returns the factor.
template <int kElements>
GPU_DEVICE float RoundSlice(const MmaCall& call, int x_row, int slice, Halves* halves, int tokens,
                            int place) {
  constexpr int kGroup = kGroupChunks * kElements;
  const int first = 4 * LaneId() + slice * call.slice_groups * kGroup;
  const int end = Min((slice + 1) * call.slice_groups, call.groups) * kGroup;
  uint32_t largest = 0;
  for (int k = first; k < end && k < call.product.cols; k += 4 * kWarp) {
    const Floats four = ReadFour(call.product, x_row, k);
    for (int i = 0; i < 4; ++i) {
      const uint32_t magnitude = FloatBits(four.value[i]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  // Of NaN and infinity, too, so they stay what they are.
  const int exponent = Min(14 + 127 - static_cast<int>(WarpMax(largest) >> 23), 126);
  const float power = BitsFloat(static_cast<uint32_t>(127 + exponent) << 23);
  for (int k = first; k < end; k += 4 * kWarp) {
    const Floats four = ReadFour(call.product, x_row, k);
    const int chunk = k / kElements, step = k % kElements / 4;
    halves[TokenLayout<kElements>::Index(tokens, chunk / kGroupChunks, step, place,
                                         chunk % kGroupChunks)] = {
        PackPair(four.value[0] * power, four.value[1] * power),
        PackPair(four.value[2] * power, four.value[3] * power)};
  }
  return BitsFloat(static_cast<uint32_t>(127 - exponent) << 23);
}

// A warp a slice of a token: the product's tokens are the rows of x.
template <int kElements>
GPU_KERNEL void GPU_THREADS(kManyThreads) RoundTokens(MmaCall call) {
  const int warp = static_cast<int>(BlockX()) * (BlockThreads() / kWarp) + WarpId();
  const int token = warp / kSlices, slice = warp % kSlices;
  if (token >= call.product.tokens || slice * call.slice_groups >= call.groups) return;
  Halves* halves = call.halves + token / kRoundedTokens *
                                     TokenLayout<kElements>::Quads(kRoundedTokens, call.groups);
  const float factor =
      RoundSlice<kElements>(call, token, slice, halves, kRoundedTokens, token % kRoundedTokens);
  if (LaneId() == 0) call.factors[token * kSlices + slice] = factor;
}

// The chunks of a group that a lane makes its fragments of.
template <typename Weight>
struct TileChunks {
  static constexpr int kRows = RowFragment::kRows, kQuads = RowFragment::kQuads;
  Weight chunk[kRows][kQuads];

  GPU_METHOD void Load(const GpuPlanes& planes, int tile, int group) {
    const int lane = LaneId();
    GPU_UNROLL for (int r = 0; r < kRows; ++r) {
      GPU_UNROLL for (int q = 0; q < kQuads; ++q) {
        const int row = tile * kTileRows + RowFragment::Row(lane, r);
        const int c = group * kGroupChunks + RowFragment::Quad(lane, q);
        chunk[r][q] = Weight{};
        if (c < planes.chunks) chunk[r][q].Load(planes, row, c);
      }
    }
  }

  GPU_METHOD RowFragment Fragment(int step, const float (&power)[kRows]) const {
    RowFragment fragment;
    GPU_UNROLL for (int r = 0; r < kRows; ++r) {
      GPU_UNROLL for (int q = 0; q < kQuads; ++q) {
        uint32_t pair[2];
        chunk[r][q].DecodeHalf(step, power[r], pair);
        fragment.Set(r, q, pair[0], pair[1]);
      }
    }
    return fragment;
  }
};

GPU_DEVICE void LoadPowers(const GpuPlanes& planes, int tile, float (&power)[RowFragment::kRows]) {
  GPU_UNROLL for (int r = 0; r < RowFragment::kRows; ++r) {
    power[r] = planes.powers[tile * kTileRows + RowFragment::Row(LaneId(), r)];
  }
}

// The tokens' fragments of one step, or of two that stand together. from: of the lane's token and
// first quad. A lane without a token has zeros.
template <int kJoined>
struct TokenSteps {
  TokenFragment fragment[kJoined];

  GPU_METHOD void Load(const Halves* from, bool has_token) {
    GPU_UNROLL for (int q = 0; q < TokenFragment::kQuads; ++q) {
      if constexpr (kJoined == 2) {
        Words words = {};
        if (has_token) words = reinterpret_cast<const Words*>(from)[q];
        GPU_UNROLL for (int i = 0; i < 4; ++i) {
          fragment[i / 2].pair[2 * q + i % 2] = words.word[i];
        }
      } else {
        Halves halves = {};
        if (has_token) halves = from[q];
        fragment[0].pair[2 * q] = halves.pair[0];
        fragment[0].pair[2 * q + 1] = halves.pair[1];
      }
    }
  }
};

// Where a lane finds the activations of its tokens in kTiles times kMmaTokens that a warp has,
// which end with the product's tokens or its tile's.
template <int kElements, int kTiles, bool kRouted>
struct LaneTokens {
  using Layout = TokenLayout<kElements>;
  static_assert(kRoundedTokens % (kTiles * kMmaTokens) == 0);
  static constexpr int kTileHalves = kMmaTokens * kMmaQuads * Layout::kJoined;
  const Halves*
      start[kRouted ? kTiles : 1];  // group 0, step 0; not routed: tiles follow each other
  int together;                     // tokens that stand together
  int first, end;                   // tokens of the product

  GPU_METHOD bool Has(int t) const {
    return first + t * kMmaTokens + TokenFragment::Token(LaneId()) < end;
  }
  GPU_METHOD const Halves* At(int t, int group, int step) const {
    const Halves* from = kRouted ? start[t] : start[0] + t * kTileHalves;
    return from + Layout::Index(together, group, step, 0, 0);
  }

  // Of those that a kernel before has rounded.
  GPU_METHOD void Find(const MmaCall& call, const TokenTile<kRouted>& tile, int first_token) {
    together = kRoundedTokens;
    first = first_token;
    end = tile.end;
    GPU_UNROLL for (int t = 0; t < (kRouted ? kTiles : 1); ++t) {
      const int token = first + t * kMmaTokens + TokenFragment::Token(LaneId());
      const int row = kRouted ? tile.XRow(Min(token, end - 1)) : token;
      start[t] = call.halves + row / kRoundedTokens * Layout::Quads(kRoundedTokens, call.groups) +
                 Layout::Index(kRoundedTokens, 0, 0, row % kRoundedTokens,
                               TokenFragment::Quad(LaneId(), 0));
    }
  }
  // Of those that the block has rounded: all of its own.
  GPU_METHOD void FindStaged(const Halves* staged, const TokenTile<kRouted>& tile) {
    static_assert(kTiles == 1);
    first = tile.first;
    end = tile.end;
    together = end - first;
    start[0] = staged + Layout::Index(together, 0, 0, TokenFragment::Token(LaneId()),
                                      TokenFragment::Quad(LaneId(), 0));
  }
};

// ---- few tokens: a warp a slice of 16 rows; weights go from memory to fragments

template <typename Weight, int kTiles, typename Tokens>
GPU_DEVICE void MultiplyGroup(const TileChunks<Weight>& chunks,
                              const float (&power)[RowFragment::kRows], int group, int tiles,
                              const Tokens& tokens, TileSums (&sums)[kTiles]) {
  using Layout = TokenLayout<Weight::kElements>;
  GPU_UNROLL for (int step = 0; step < Layout::kSteps; step += Layout::kJoined) {
    RowFragment rows[Layout::kJoined];
    GPU_UNROLL for (int i = 0; i < Layout::kJoined; ++i) {
      rows[i] = chunks.Fragment(step + i, power);
    }
    // Not left early: HIP 5.7 would not unroll it, and keep the sums in memory.
    GPU_UNROLL for (int t = 0; t < kTiles; ++t) {
      if (t < tiles) {  // the same for all lanes
        TokenSteps<Layout::kJoined> steps;
        steps.Load(tokens.At(t, group, step), tokens.Has(t));
        Mma(rows, steps.fragment, &sums[t]);
      }
    }
  }
}

// The chain of slice WarpId(); tile: of the planes.
template <typename Weight, int kTiles, typename Tokens>
GPU_DEVICE void MultiplySlice(const MmaCall& call, int tile, const Tokens& tokens,
                              TileSums (&sums)[kTiles]) {
  // Loads of so many groups are under way at once.
  constexpr int kLoads = kTiles * kMmaTokens <= kFewTokens ? 8 : 4;
  constexpr int kBatch = kLoads / (RowFragment::kRows * RowFragment::kQuads);
  static_assert(kBatch > 0);
  const int tiles = Min(kTiles, (tokens.end - tokens.first + kMmaTokens - 1) / kMmaTokens);
  const int end = Min((WarpId() + 1) * call.slice_groups, call.groups);
  float power[RowFragment::kRows];
  LoadPowers(call.product.planes, tile, power);
  for (int group = WarpId() * call.slice_groups; group < end; group += kBatch) {
    TileChunks<Weight> chunks[kBatch];
    GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
      if (group + i < end) chunks[i].Load(call.product.planes, tile, group + i);
    }
    GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
      if (group + i >= end) break;
      MultiplyGroup(chunks[i], power, group + i, tiles, tokens, sums);
    }
  }
}

// Adds the slices' sums [kSlices, kTokens, kMmaRows] and stores the results.
template <int kTokens, bool kRouted>
GPU_DEVICE void StoreSlices(const MmaCall& call, const TokenTile<kRouted>& token_tile, int tile,
                            const float* sums) {
  const int slices = (call.groups + call.slice_groups - 1) / call.slice_groups;
  for (int i = ThreadX(); i < kTokens * kMmaRows; i += kSlices * kWarp) {
    const int row = tile * kMmaRows + i % kMmaRows, token = token_tile.first + i / kMmaRows;
    if (row >= call.product.rows || token >= token_tile.end) continue;
    float total = 0.0f;
    for (int s = 0; s < slices; ++s) total += sums[s * kTokens * kMmaRows + i];
    const float power = call.product.planes.powers[token_tile.PlaneRow(row)];
    StoreProduct(token_tile, row, token, total * (1.0f / power));
  }
}

// kTiles of tokens a block. kStaged: all tokens, which the block rounds into shared memory; routed,
// one.
template <typename Weight, int kTiles, bool kStaged, bool kRouted>
GPU_KERNEL void GPU_THREADS(kSlices* kWarp) MatmulSlices(MmaCall call) {
  constexpr int kTokens = kTiles * kMmaTokens;
  GPU_SHARED(float, shared, kSlices* kTokens* kMmaRows);
  // That share the rows.
  const int blocks = kStaged && !kRouted ? 1 : TokenTile<kRouted>::Count(call.product, kTokens);
  const int tile = static_cast<int>(BlockX()) / blocks, slice = WarpId();
  const TokenTile<kRouted> token_tile(call.product, static_cast<int>(BlockX()) % blocks, kTokens);
  if (token_tile.empty()) return;
  LaneTokens<Weight::kElements, kTiles, kRouted> tokens;
  const float* factors = call.factors;
  if constexpr (kStaged) {
    GPU_DYNAMIC_SHARED(Halves, staged);
    GPU_SHARED(float, staged_factors, kSlices* kStagedTokens);
    const int count = token_tile.end - token_tile.first;
    for (int t = 0; t < count; ++t) {
      const float factor = RoundSlice<Weight::kElements>(
          call, token_tile.XRow(token_tile.first + t), slice, staged, count, t);
      if (LaneId() == 0) staged_factors[t * kSlices + slice] = factor;
    }
    SyncWarp();
    tokens.FindStaged(staged, token_tile);
    factors = staged_factors;
  } else {
    tokens.Find(call, token_tile, token_tile.first);
  }
  if (slice * call.slice_groups < call.groups) {
    TileSums sums[kTiles] = {};
    MultiplySlice<Weight>(call, token_tile.PlaneTile(tile), tokens, sums);
    GPU_UNROLL for (int t = 0; t < kTiles; ++t) {
      GPU_UNROLL for (int i = 0; i < TileSums::kValues; ++i) {
        const int place = t * kMmaTokens + TileSums::Token(LaneId(), i);
        const int token = tokens.first + place;
        if (token >= tokens.end) continue;
        const int row = kStaged ? place : token_tile.XRow(token);
        shared[(slice * kTokens + place) * kMmaRows + TileSums::Row(LaneId(), i)] =
            sums[t].value[i] * factors[row * kSlices + slice];
      }
    }
  }
  SyncThreads();
  StoreSlices<kTokens>(call, token_tile, tile, shared);
}

// ---- many tokens: a block has kManyRows x kManyTokens; its warps make fragments of the rows for
// all of them, by stages

constexpr int kManyWarps = kManyThreads / kWarp;
constexpr int kManyRowTiles = kManyRows / kMmaRows;
constexpr int kWarpRowTiles = kManyRowTiles / (kManyWarps / 2);
constexpr int kWarpTokenTiles = kManyTokens / 2 / kMmaTokens;
constexpr int kOwnTiles = kManyRowTiles / kManyWarps;  // that a warp makes fragments of

// A warp's sums of a slice and of the slices before it.
struct WarpSums {
  TileSums slice[kWarpRowTiles][kWarpTokenTiles];
  TileSums total[kWarpRowTiles][kWarpTokenTiles];
};

template <typename Weight, bool kRouted>
struct TilesBlock {
  using Layout = TokenLayout<Weight::kElements>;
  static constexpr int kStages = Layout::kSteps > kStageSteps ? Layout::kSteps / kStageSteps : 1;
  static constexpr int kSteps = Layout::kSteps / kStages;  // of a stage
  static constexpr int kBufferFragments = kManyRowTiles * kSteps * RowFragment::kDistinctLanes;

  const MmaCall& call;
  RowFragment* buffers;  // two, each [row tile, step, lane]
  int first_tile;
  TokenTile<kRouted> token_tile;

  GPU_METHOD RowFragment* At(int buffer, int row_tile, int step) const {
    return buffers + buffer * kBufferFragments +
           (row_tile * kSteps + step) * RowFragment::kDistinctLanes +
           LaneId() % RowFragment::kDistinctLanes;
  }

  GPU_METHOD void LoadGroup(int group, TileChunks<Weight> (&chunks)[kOwnTiles]) const {
    GPU_UNROLL for (int i = 0; i < kOwnTiles; ++i) {
      const int tile = first_tile + WarpId() * kOwnTiles + i;
      if (group < call.groups && tile * kTileRows < call.product.rows) {
        chunks[i].Load(call.product.planes, token_tile.PlaneTile(tile), group);
      }
    }
  }

  GPU_METHOD void MakeStage(int stage, int buffer, const TileChunks<Weight> (&chunks)[kOwnTiles],
                            const float (&power)[kOwnTiles][RowFragment::kRows]) const {
    GPU_UNROLL for (int i = 0; i < kOwnTiles; ++i) {
      GPU_UNROLL for (int step = 0; step < kSteps; ++step) {
        const RowFragment rows = chunks[i].Fragment(stage * kSteps + step, power[i]);
        if (LaneId() < RowFragment::kDistinctLanes)
          *At(buffer, WarpId() * kOwnTiles + i, step) = rows;
      }
    }
  }

  GPU_METHOD int RowTile() const { return WarpId() / 2 * kWarpRowTiles; }
  GPU_METHOD int Token() const {
    return token_tile.first + WarpId() % 2 * kWarpTokenTiles * kMmaTokens;
  }

  // Whether any of the warp's results is wanted.
  GPU_METHOD bool HasResults() const {
    return Token() < token_tile.end && (first_tile + RowTile()) * kTileRows < call.product.rows;
  }

  using Tokens = LaneTokens<Weight::kElements, kWarpTokenTiles, kRouted>;
  GPU_METHOD void Multiply(int group, int stage, int buffer, const Tokens& tokens,
                           WarpSums* sums) const {
    GPU_UNROLL for (int step = 0; step < kSteps; step += Layout::kJoined) {
      RowFragment rows[kWarpRowTiles][Layout::kJoined];
      GPU_UNROLL for (int r = 0; r < kWarpRowTiles; ++r) {
        GPU_UNROLL for (int i = 0; i < Layout::kJoined; ++i) {
          rows[r][i] = *At(buffer, RowTile() + r, step + i);
        }
      }
      GPU_UNROLL for (int t = 0; t < kWarpTokenTiles; ++t) {
        TokenSteps<Layout::kJoined> steps;
        steps.Load(tokens.At(t, group, stage * kSteps + step), tokens.Has(t));
        GPU_UNROLL for (int i = 0; i < Layout::kJoined; ++i) {
          GPU_UNROLL for (int r = 0; r < kWarpRowTiles; ++r) {
            Mma(rows[r][i], steps.fragment[i], &sums->slice[r][t]);
          }
        }
      }
    }
  }

  GPU_METHOD void EndSlice(int slice, WarpSums* sums) const {
    GPU_UNROLL for (int t = 0; t < kWarpTokenTiles; ++t) {
      GPU_UNROLL for (int i = 0; i < TileSums::kValues; ++i) {
        const int token = Token() + t * kMmaTokens + TileSums::Token(LaneId(), i);
        const float factor =
            token < token_tile.end ? call.factors[token_tile.XRow(token) * kSlices + slice] : 0.0f;
        GPU_UNROLL for (int r = 0; r < kWarpRowTiles; ++r) {
          sums->total[r][t].value[i] += sums->slice[r][t].value[i] * factor;
          sums->slice[r][t].value[i] = 0.0f;
        }
      }
    }
  }

  GPU_METHOD void Store(const WarpSums& sums) const {
    GPU_UNROLL for (int r = 0; r < kWarpRowTiles; ++r) {
      GPU_UNROLL for (int i = 0; i < TileSums::kValues; ++i) {
        const int row = (first_tile + RowTile() + r) * kMmaRows + TileSums::Row(LaneId(), i);
        if (row >= call.product.rows) continue;
        const float inverse = 1.0f / call.product.planes.powers[token_tile.PlaneRow(row)];
        GPU_UNROLL for (int t = 0; t < kWarpTokenTiles; ++t) {
          const int token = Token() + t * kMmaTokens + TileSums::Token(LaneId(), i);
          if (token >= token_tile.end) continue;
          StoreProduct(token_tile, row, token, sums.total[r][t].value[i] * inverse);
        }
      }
    }
  }
};

template <typename Weight, bool kRouted>
GPU_KERNEL void GPU_THREADS(kManyThreads) MatmulTiles(MmaCall call) {
  using Block = TilesBlock<Weight, kRouted>;
  GPU_SHARED(RowFragment, buffers, 2 * Block::kBufferFragments);
  const int blocks = TokenTile<kRouted>::Count(call.product, kManyTokens);  // that share the rows
  const Block block = {
      call, buffers, static_cast<int>(BlockX()) / blocks * kManyRowTiles,
      TokenTile<kRouted>(call.product, static_cast<int>(BlockX()) % blocks, kManyTokens)};
  if (block.token_tile.empty()) return;
  typename Block::Tokens tokens;
  tokens.Find(call, block.token_tile, block.Token());
  float power[kOwnTiles][RowFragment::kRows] = {};
  GPU_UNROLL for (int i = 0; i < kOwnTiles; ++i) {
    const int tile = block.first_tile + WarpId() * kOwnTiles + i;
    if (tile * kTileRows < call.product.rows) {
      LoadPowers(call.product.planes, block.token_tile.PlaneTile(tile), power[i]);
    }
  }
  // Of the next stage to be made; loaded a stage ahead.
  TileChunks<Weight> chunks[kOwnTiles] = {};
  block.LoadGroup(0, chunks);
  block.MakeStage(0, 0, chunks, power);
  if (Block::kStages == 1) block.LoadGroup(1, chunks);
  SyncThreads();
  WarpSums sums = {};
  int buffer = 0;
  int end = call.slice_groups;  // of the slice
  for (int group = 0, slice = 0; group < call.groups; ++group) {
    GPU_UNROLL for (int stage = 0; stage < Block::kStages; ++stage) {
      const int next = (stage + 1) % Block::kStages;
      block.MakeStage(next, buffer ^ 1, chunks, power);
      if (next + 1 == Block::kStages) block.LoadGroup(group + 1 + (next == 0), chunks);
      if (block.HasResults()) block.Multiply(group, stage, buffer, tokens, &sums);
      SyncThreads();
      buffer ^= 1;
    }
    if (group + 1 == end || group + 1 == call.groups) {
      block.EndSlice(slice++, &sums);
      end += call.slice_groups;
    }
  }
  block.Store(sums);
}

// ---- launches

int64_t Parts(int64_t all, int64_t part) { return (all + part - 1) / part; }

int Elements(DType dtype) { return GpuChunkElements(kGpuFormats[static_cast<size_t>(dtype)]); }

int64_t PaddedCols(DType dtype, int64_t cols) {
  const int64_t group = kGroupChunks * Elements(dtype);
  return Parts(cols, group) * group;
}

Grid GridOf(int64_t blocks) {
  FAIRLEAD_CHECK(blocks <= INT32_MAX);
  return {static_cast<unsigned>(blocks)};
}

template <typename Weight, int kTokens, bool kRouted>
void LaunchSlices(const StreamHandle& stream, const MmaCall& call) {
  const Grid grid =
      GridOf(Parts(call.product.rows, kMmaRows) * TokenTile<kRouted>::Count(call.product, kTokens));
  GPU_LAUNCH(stream, grid, kSlices * kWarp, 0,
             (MatmulSlices<Weight, kTokens / kMmaTokens, false, kRouted>), call);
}

template <int kElements>
void LaunchRounding(const StreamHandle& stream, const MmaCall& call) {
  const Grid grid = GridOf(Parts(int64_t{call.product.tokens} * kSlices, kManyWarps));
  GPU_LAUNCH(stream, grid, kManyThreads, 0, RoundTokens<kElements>, call);
}

template <typename Weight, bool kRouted>
void LaunchTiles(const StreamHandle& stream, const MmaCall& call) {
  const Grid grid = GridOf(Parts(call.product.rows, kManyRows) *
                           TokenTile<kRouted>::Count(call.product, kManyTokens));
  GPU_LAUNCH(stream, grid, kManyThreads, 0, (MatmulTiles<Weight, kRouted>), call);
}

// `tokens`: that a block rounds for itself; `tiles`: blocks for other tokens.
template <typename Weight, bool kRouted>
void LaunchStaged(const StreamHandle& stream, const MmaCall& call, int tokens, int64_t tiles) {
  const size_t bytes = TokenLayout<Weight::kElements>::Quads(tokens, call.groups) * sizeof(Halves);
  GPU_LAUNCH(stream, GridOf(Parts(call.product.rows, kMmaRows) * tiles), kSlices * kWarp, bytes,
             (MatmulSlices<Weight, 1, true, kRouted>), call);
}

template <typename Weight>
void LaunchMma(const StreamHandle& stream, const MmaCall& call, MmaKernel kernel) {
  if (kernel == MmaKernel::kStaged) {
    return LaunchStaged<Weight, false>(stream, call, call.product.tokens, 1);
  }
  LaunchRounding<Weight::kElements>(stream, call);
  if (kernel == MmaKernel::kFew) return LaunchSlices<Weight, kFewTokens, false>(stream, call);
  if (kernel == MmaKernel::kSome) return LaunchSlices<Weight, kSomeTokens, false>(stream, call);
  LaunchTiles<Weight, false>(stream, call);
}

// kStaged: a pair a tile, whose experts the kernel reads where they are. x_rows: of x.
template <typename Weight>
void LaunchRouted(const StreamHandle& stream, const MmaCall& call, MmaKernel kernel, int x_rows) {
  if (kernel == MmaKernel::kStaged) {
    return LaunchStaged<Weight, true>(stream, call, 1, call.product.tokens);
  }
  MmaCall rounding = call;
  rounding.product.tokens = x_rows;
  LaunchRounding<Weight::kElements>(stream, rounding);
  if (kernel == MmaKernel::kFew) return LaunchSlices<Weight, kFewTokens, true>(stream, call);
  LaunchTiles<Weight, true>(stream, call);
}

// Tokens of a tile of a kernel that is routed.
int RoutedTile(MmaKernel kernel) { return kernel == MmaKernel::kFew ? kFewTokens : kManyTokens; }

size_t HalvesBytes(DType dtype, int64_t cols, int64_t tokens) {
  return static_cast<size_t>(Parts(tokens, kRoundedTokens) * kRoundedTokens *
                             PaddedCols(dtype, cols)) *
         2;
}

// memory: as many bytes as MmaMemoryBytes; kStaged needs none.
MmaCall MakeMmaCall(const MatmulCall& product, DType dtype, MmaKernel kernel, int64_t x_rows,
                    void* memory) {
  const int64_t cols = product.cols;
  const int groups = static_cast<int>(PaddedCols(dtype, cols) / (kGroupChunks * Elements(dtype)));
  MmaCall call = {.product = product,
                  .halves = nullptr,
                  .factors = nullptr,
                  .groups = groups,
                  .slice_groups = static_cast<int>(Parts(groups, kSlices))};
  if (kernel != MmaKernel::kStaged) {
    call.halves = static_cast<Halves*>(memory);
    call.factors = reinterpret_cast<float*>(static_cast<std::byte*>(memory) +
                                            HalvesBytes(dtype, cols, x_rows));
  }
  return call;
}

}  // namespace

bool HasMmaKernel(MmaKernel kernel, DType dtype, int64_t cols, int64_t tokens) {
  return kernel != MmaKernel::kStaged ||
         (tokens <= kStagedTokens &&
          static_cast<size_t>(tokens * PaddedCols(dtype, cols)) * 2 <= kMaxStagedBytes);
}

MmaKernel ChooseMmaKernel(DType dtype, int64_t rows, int64_t cols, int64_t tokens) {
  if (HasMmaKernel(MmaKernel::kStaged, dtype, cols, tokens)) return MmaKernel::kStaged;
  if (tokens <= kFewTokens) return MmaKernel::kFew;
  const int64_t blocks = Parts(rows, kManyRows) * Parts(tokens, kManyTokens);
  return tokens <= kSomeTokens || blocks < kManyBlocks ? MmaKernel::kSome : MmaKernel::kMany;
}

size_t MmaMemoryBytes(DType dtype, int64_t cols, int64_t tokens) {
  return HalvesBytes(dtype, cols, tokens) + static_cast<size_t>(tokens) * kSlices * sizeof(float);
}

void LaunchMatmulMma(const StreamHandle& stream, const MatmulArgs& args, MmaKernel kernel,
                     void* memory) {
  const int64_t tokens = args.x.dim[0], cols = args.weight->cols();
  const DType dtype = args.weight->dtype();
  if (tokens == 0) return;
  FAIRLEAD_CHECK(HasMmaKernel(kernel, dtype, cols, tokens));
  FAIRLEAD_CHECK(tokens <= INT32_MAX / kSlices - kManyTokens && cols <= INT32_MAX / 2);
  const MmaCall call = MakeMmaCall(MakeMatmulCall(args), dtype, kernel, tokens, memory);
  WithDecoder(dtype, [&](auto decoder) {
    LaunchMma<typename decltype(decoder)::Type>(stream, call, kernel);
  });
}

bool HasGroupedMmaKernel(MmaKernel kernel, DType dtype, int64_t cols) {
  return kernel == MmaKernel::kStaged ? HasMmaKernel(kernel, dtype, cols, 1)
                                      : kernel != MmaKernel::kSome;
}

// Tiles of one pair read a matrix once for each that chose it: good for as few as hardly meet. Of
// larger tiles, those of kMany are half full, or few enough to leave a GPU idle, up to there.
MmaKernel ChooseGroupedMmaKernel(const GroupedMatmulArgs& args) {
  const PackedWeight& weight = *args.weight;
  const int64_t tokens = args.expert.dim[0], pairs = tokens * args.expert.dim[1];
  if (tokens <= kStagedTokens &&
      HasGroupedMmaKernel(MmaKernel::kStaged, weight.dtype(), weight.cols())) {
    return MmaKernel::kStaged;
  }
  const int64_t blocks = Parts(weight.group_rows(), kManyRows) * Parts(pairs, kManyTokens);
  return pairs <= int64_t{kManyTokens} / 2 * weight.groups() || blocks < kManyBlocks
             ? MmaKernel::kFew
             : MmaKernel::kMany;
}

size_t GroupedMmaMemoryBytes(const GroupedMatmulArgs& args, int64_t tokens) {
  const PackedWeight& weight = *args.weight;
  const int64_t x_rows = args.x.dim[0] / args.expert.dim[0];  // of a token
  return MmaMemoryBytes(weight.dtype(), weight.cols(), tokens * x_rows) +
         ExpertTiles::MemoryBytes(tokens * args.expert.dim[1], weight.groups(), kFewTokens);
}

void LaunchGroupedMma(const StreamHandle& stream, const GroupedMatmulArgs& args, MmaKernel kernel,
                      void* memory) {
  const DType dtype = args.weight->dtype();
  const int64_t cols = args.weight->cols(), x_rows = args.x.dim[0];
  if (x_rows == 0) return;
  FAIRLEAD_CHECK(HasGroupedMmaKernel(kernel, dtype, cols));
  FAIRLEAD_CHECK(x_rows <= INT32_MAX / kSlices - kManyTokens && cols <= INT32_MAX / 2);
  MatmulCall product = MakeGroupedCall(args);
  if (kernel != MmaKernel::kStaged) {
    std::byte* after = static_cast<std::byte*>(memory) + MmaMemoryBytes(dtype, cols, x_rows);
    product.routing.tiles = LaunchExpertTiles(stream, product.routing.expert, product.tokens,
                                              args.weight->groups(), RoutedTile(kernel), after);
  }
  const MmaCall call = MakeMmaCall(product, dtype, kernel, x_rows, memory);
  WithDecoder(dtype, [&](auto decoder) {
    LaunchRouted<typename decltype(decoder)::Type>(stream, call, kernel, static_cast<int>(x_rows));
  });
}

}  // namespace fairlead::FAIRLEAD_GPU
