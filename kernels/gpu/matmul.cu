// SPDX-License-Identifier: Apache-2.0
// Products with packed weights, and rows of them. A warp takes kRows rows of the weight and a tile
// of tokens. The order of an output's sum is the same in every kernel, tile and batch:
//   lane l is one chain of fused multiply-adds over its chunks l, l + kWarp, ... in ascending k,
//   from zero; then the lanes are added in order, from lane 0 on; then bias and what was there.
// So it depends on the dtype (which sets the chunk), k and the warp's size alone.
#include "kernels/gpu/dequantize.h"
#include "kernels/gpu/kernels.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kRows = 4;          // of a warp: its running sums are kRows * tokens of the tile
constexpr int kFewTokens = 2;     // up to these, lanes read x where it is, if it is aligned
constexpr int kFewThreads = 128;  // of a block
constexpr int kManyThreads = 256;
constexpr int kMaxTileTokens = 256 / kWarp;

// Elements of each token that a block stages at once: a whole number of chunks for each lane.
constexpr int kStageElements = 32 * kWarp;
constexpr int kStageFours = kStageElements / 4;
// Lanes read x 32 elements apart at most: 4 more after each 32 put 8 lanes' vectors in different
// banks.
GPU_BOTH constexpr int StageAt(int four) { return four + four / 8; }
constexpr int kStageStride = kStageFours + kStageFours / 8;

struct alignas(16) Floats {
  float value[4];
};

struct MatmulCall {
  GpuPlanes planes;
  const float* x;     // [tokens, cols]
  const float* bias;  // [rows] or null
  float* out;         // row 0, column 0 of this product
  int64_t out_stride;
  int rows, cols, chunks, tokens;
  bool vectors;  // rows of x are 16-byte aligned
  bool accumulate;
};

// Elements k to k + 3 of a token; zeros past the end.
GPU_DEVICE Floats ReadFour(const MatmulCall& call, int token, int k) {
  const float* x = call.x + int64_t{1} * token * call.cols;
  if (call.vectors && k < call.cols) return *reinterpret_cast<const Floats*>(x + k);
  Floats four;
  for (int i = 0; i < 4; ++i) four.value[i] = k + i < call.cols ? x[k + i] : 0.0f;
  return four;
}

// Where lanes read x. Four(t, k): elements k to k + 3 of token t of the tile.
struct GlobalTokens {  // aligned rows
  const MatmulCall& call;
  GPU_METHOD Floats Four(int token, int k) const {
    Floats four = {};
    if (k < call.cols) {
      four = *reinterpret_cast<const Floats*>(call.x + int64_t{1} * token * call.cols + k);
    }
    return four;
  }
};
struct StagedTokens {
  const Floats* stage;  // [tokens of the tile, kStageStride]
  int first;            // element that the stage begins with
  GPU_METHOD Floats Four(int token, int k) const {
    return stage[token * kStageStride + StageAt((k - first) / 4)];
  }
};

// The rows of a warp. Those past the end are the last one again, and are not stored.
struct WarpRows {
  int first;
  size_t chunk[kRows];  // the row's first

  GPU_METHOD WarpRows(const MatmulCall& call, int first_row) : first(first_row) {
    for (int r = 0; r < kRows; ++r) {
      chunk[r] = static_cast<size_t>(Min(first + r, call.rows - 1)) * call.chunks;
    }
  }
};

// Adds four elements of every row times those of every token, and those that follow in the chunk.
// Not a loop: indices that are constants keep the chunks in registers.
template <int kQuad, typename Weight, int kTokens, typename Tokens>
GPU_DEVICE void AddQuads(const Weight (&weight)[kRows], int k, const Tokens& tokens,
                         float (&sum)[kRows][kTokens]) {
  float w[kRows][4];
  for (int r = 0; r < kRows; ++r) weight[r].Decode(kQuad, w[r]);
  for (int t = 0; t < kTokens; ++t) {
    const Floats x = tokens.Four(t, k + 4 * kQuad);
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < 4; ++i) sum[r][t] = fmaf(w[r][i], x.value[i], sum[r][t]);
    }
  }
  if constexpr (4 * (kQuad + 1) < Weight::kElements) {
    AddQuads<kQuad + 1>(weight, k, tokens, sum);
  }
}

// Adds a chunk of every row times that of every token.
template <typename Weight, int kTokens, typename Tokens>
GPU_DEVICE void AddChunk(const MatmulCall& call, const WarpRows& rows, int chunk,
                         const Tokens& tokens, float (&sum)[kRows][kTokens]) {
  Weight weight[kRows];
  for (int r = 0; r < kRows; ++r) weight[r].Load(call.planes, rows.chunk[r] + chunk);
  AddQuads<0>(weight, chunk * Weight::kElements, tokens, sum);
}

// Floats of shared memory that StoreSums takes.
template <int kTokens, int kThreads>
constexpr int kSumsFloats = kThreads* kRows* kTokens / kWarp*(kWarp + 1);

// Adds up the lanes' sums and stores them: a lane an output.
template <int kTokens>
GPU_DEVICE void StoreSums(const MatmulCall& call, const WarpRows& rows, int first_token,
                          const float (&sum)[kRows][kTokens], float* shared) {
  constexpr int kOutputs = kRows * kTokens;
  static_assert(kOutputs <= kWarp);
  constexpr int kStride = kWarp + 1;
  const int lane = LaneId();
  float* sums = shared + WarpId() * kOutputs * kStride;
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums[(r * kTokens + t) * kStride + lane] = sum[r][t];
  }
  SyncWarp();
  const int row = rows.first + lane / kTokens;
  const int token = first_token + lane % kTokens;
  if (lane >= kOutputs || row >= call.rows || token >= call.tokens) return;
  float total = 0.0f;
  for (int i = 0; i < kWarp; ++i) total += sums[lane * kStride + i];
  if (call.bias != nullptr) total += call.bias[row];
  float* out = call.out + token * call.out_stride + row;
  *out = call.accumulate ? *out + total : total;
}

// Exactly kTokens tokens, in aligned rows.
template <typename Weight, int kTokens>
GPU_KERNEL void MatmulFew(MatmulCall call) {
  GPU_SHARED(float, sums, (kSumsFloats<kTokens, kFewThreads>));
  const int warp = static_cast<int>(BlockX()) * (kFewThreads / kWarp) + WarpId();
  if (warp * kRows >= call.rows) return;
  const WarpRows rows(call, warp * kRows);
  float sum[kRows][kTokens] = {};
  for (int chunk = LaneId(); chunk < call.chunks; chunk += kWarp) {
    AddChunk<Weight, kTokens>(call, rows, chunk, GlobalTokens{call}, sum);
  }
  StoreSums<kTokens>(call, rows, 0, sum, sums);
}

// Elements from `first` on of the tile's tokens; those past the last token are the last one again.
template <int kTokens>
GPU_DEVICE void FillStage(const MatmulCall& call, int first_token, int first, Floats* stage) {
  const int fours = Min(kStageElements, (call.cols - first + 31) / 32 * 32) / 4;
  for (int i = ThreadX(); i < kTokens * fours; i += kManyThreads) {
    const int token = i / fours, four = i % fours;
    stage[token * kStageStride + StageAt(four)] =
        ReadFour(call, Min(first_token + token, call.tokens - 1), first + 4 * four);
  }
}

// Any number of tokens. Blocks that follow each other share the rows: they are in the cache.
template <typename Weight, int kTokens>
GPU_KERNEL void MatmulMany(MatmulCall call) {
  constexpr int kStageChunks = kStageElements / Weight::kElements;
  constexpr int kFours = kTokens * kStageStride;
  static_assert(4 * kFours >= kSumsFloats<kTokens, kManyThreads>);
  GPU_SHARED(Floats, stage, kFours);
  const unsigned tiles = static_cast<unsigned>((call.tokens + kTokens - 1) / kTokens);
  const int first_token = static_cast<int>(BlockX() % tiles) * kTokens;
  const int warp = static_cast<int>(BlockX() / tiles) * (kManyThreads / kWarp) + WarpId();
  const WarpRows rows(call, warp * kRows);
  const bool has_rows = rows.first < call.rows;
  float sum[kRows][kTokens] = {};
  for (int begin = 0; begin < call.chunks; begin += kStageChunks) {
    const StagedTokens tokens = {stage, begin * Weight::kElements};
    SyncThreads();  // the stage before has been read
    FillStage<kTokens>(call, first_token, tokens.first, stage);
    SyncThreads();
    const int end = has_rows ? Min(begin + kStageChunks, call.chunks) : begin;
    for (int chunk = begin + LaneId(); chunk < end; chunk += kWarp) {
      AddChunk<Weight, kTokens>(call, rows, chunk, tokens, sum);
    }
  }
  SyncThreads();
  StoreSums<kTokens>(call, rows, first_token, sum, reinterpret_cast<float*>(stage));
}

template <typename Weight, int kTokens>
void LaunchTile(const StreamHandle& stream, const MatmulCall& call) {
  constexpr int kThreads = kTokens <= kFewTokens ? kFewThreads : kManyThreads;
  constexpr int kBlockRows = kThreads / kWarp * kRows;
  const int64_t tiles = (call.tokens + kTokens - 1) / kTokens;
  const int64_t blocks = (int64_t{call.rows} + kBlockRows - 1) / kBlockRows * tiles;
  FAIRLEAD_CHECK(blocks <= INT32_MAX);
  const Grid grid = {static_cast<unsigned>(blocks)};
  if constexpr (kTokens <= kFewTokens) {
    GPU_LAUNCH(stream, grid, kThreads, 0, (MatmulFew<Weight, kTokens>), call);
  } else {
    GPU_LAUNCH(stream, grid, kThreads, 0, (MatmulMany<Weight, kTokens>), call);
  }
}

template <typename Weight>
void LaunchTiles(const StreamHandle& stream, const MatmulCall& call) {
  if (call.tokens == 1 && call.vectors) return LaunchTile<Weight, 1>(stream, call);
  if (call.tokens == 2 && call.vectors) return LaunchTile<Weight, 2>(stream, call);
  if (call.tokens <= 4) return LaunchTile<Weight, 4>(stream, call);
  return LaunchTile<Weight, kMaxTileTokens>(stream, call);
}

struct EmbedCall {
  GpuPlanes planes;
  const int* token;
  float* out;  // [tokens, cols]
  int cols, chunks;
  bool vectors;  // rows of out are 16-byte aligned
};

// A block a token, a chunk a thread.
template <typename Weight>
GPU_KERNEL void EmbedRows(EmbedCall call) {
  const size_t first = static_cast<size_t>(call.token[BlockX()]) * call.chunks;
  float* out = call.out + int64_t{1} * BlockX() * call.cols;
  for (int chunk = ThreadX(); chunk < call.chunks; chunk += BlockThreads()) {
    Weight weight;
    weight.Load(call.planes, first + chunk);
    for (int quad = 0; quad < Weight::kElements / 4; ++quad) {
      const int k = chunk * Weight::kElements + 4 * quad;
      Floats four;
      weight.Decode(quad, four.value);
      if (call.vectors && k < call.cols) {
        *reinterpret_cast<Floats*>(out + k) = four;
        continue;
      }
      for (int i = 0; i < 4 && k + i < call.cols; ++i) out[k + i] = four.value[i];
    }
  }
}

// Whether every row of a matrix of floats begins at a multiple of 16 bytes.
bool HasVectors(const void* data, int64_t cols) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && cols % 4 == 0;
}

}  // namespace

void LaunchEmbed(const StreamHandle& stream, const EmbedArgs& args) {
  const auto& table = static_cast<const GpuPackedWeight&>(*args.table);
  const int64_t tokens = args.out.dim[0];
  if (tokens == 0) return;
  const EmbedCall call = {.planes = table.planes(),
                          .token = args.token.As<int>(),
                          .out = args.out.As<float>(),
                          .cols = static_cast<int>(table.cols()),
                          .chunks = static_cast<int>(table.chunks()),
                          .vectors = HasVectors(args.out.data, table.cols())};
  WithDecoder(table.dtype(), [&](auto decoder) {
    using Weight = typename decltype(decoder)::Type;
    GPU_LAUNCH(stream, Grid{static_cast<unsigned>(tokens)}, 128, 0, EmbedRows<Weight>, call);
  });
}

void LaunchMatmul(const StreamHandle& stream, const MatmulArgs& args) {
  const auto& weight = static_cast<const GpuPackedWeight&>(*args.weight);
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  FAIRLEAD_CHECK(weight.cols() <= INT32_MAX - kStageElements);
  FAIRLEAD_CHECK(weight.rows() <= INT32_MAX - kManyThreads && tokens <= INT32_MAX - kMaxTileTokens);
  const MatmulCall call = {.planes = weight.planes(),
                           .x = args.x.As<float>(),
                           .bias = args.bias.As<float>(),
                           .out = args.out.As<float>() + args.out_column,
                           .out_stride = args.out.dim[1],
                           .rows = static_cast<int>(weight.rows()),
                           .cols = static_cast<int>(weight.cols()),
                           .chunks = static_cast<int>(weight.chunks()),
                           .tokens = static_cast<int>(tokens),
                           .vectors = HasVectors(args.x.data, weight.cols()),
                           .accumulate = args.accumulate};
  WithDecoder(weight.dtype(),
              [&](auto decoder) { LaunchTiles<typename decltype(decoder)::Type>(stream, call); });
}

}  // namespace fairlead::FAIRLEAD_GPU
