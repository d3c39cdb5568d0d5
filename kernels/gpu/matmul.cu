// SPDX-License-Identifier: Apache-2.0
// Products with packed weights in f32, and rows of them. A warp takes kRows rows of the weight and
// a tile of tokens. The order of an output's sum is the same in every kernel, tile and batch:
//   lane l is one chain of fused multiply-adds over its chunks l, l + kWarp, ... in ascending k,
//   from zero; then the lanes are added in order, from lane 0 on; then bias and what was there.
// So it depends on the dtype (which sets the chunk), k and the warp's size alone. kRouted: tokens
// choose among the weight's matrices.
#include <algorithm>

#include "kernels/gpu/dequantize.h"
#include "kernels/gpu/kernels.h"
#include "kernels/gpu/matmul_call.h"
#include "kernels/gpu/matmul_mma.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

// Rows of a warp: its running sums are kRows * tokens of the tile. Those past the end are zeros
// that the weight has there, and are not stored.
constexpr int kRows = 4;
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

// Adds a chunk of every row times that of every token. first_row: of the planes.
template <typename Weight, int kTokens, typename Tokens>
GPU_DEVICE void AddChunk(const MatmulCall& call, int first_row, int chunk, const Tokens& tokens,
                         float (&sum)[kRows][kTokens]) {
  Weight weight[kRows];
  for (int r = 0; r < kRows; ++r) weight[r].Load(call.planes, first_row + r, chunk);
  AddQuads<0>(weight, chunk * Weight::kElements, tokens, sum);
}

// Floats of shared memory that StoreSums takes.
template <int kTokens, int kThreads>
constexpr int kSumsFloats = kThreads* kRows* kTokens / kWarp*(kWarp + 1);

// Adds up the lanes' sums and stores them: a lane an output.
template <int kTokens, bool kRouted>
GPU_DEVICE void StoreSums(const TokenTile<kRouted>& tile, int first_row,
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
  const int row = first_row + lane / kTokens;
  const int token = tile.first + lane % kTokens;
  if (lane >= kOutputs || row >= tile.call.rows || token >= tile.end) return;
  float total = 0.0f;
  for (int i = 0; i < kWarp; ++i) total += sums[lane * kStride + i];
  StoreProduct(tile, row, token, total);
}

// Exactly kTokens tokens, in aligned rows.
template <typename Weight, int kTokens>
GPU_KERNEL void MatmulFew(MatmulCall call) {
  GPU_SHARED(float, sums, (kSumsFloats<kTokens, kFewThreads>));
  const int warp = static_cast<int>(BlockX()) * (kFewThreads / kWarp) + WarpId();
  if (warp * kRows >= call.rows) return;
  float sum[kRows][kTokens] = {};
  for (int chunk = LaneId(); chunk < call.planes.chunks; chunk += kWarp) {
    AddChunk<Weight, kTokens>(call, warp * kRows, chunk, GlobalTokens{call}, sum);
  }
  StoreSums<kTokens>(TokenTile<false>(call, 0, kTokens), warp * kRows, sum, sums);
}

// Elements from `first` on of the tile's tokens; those past the last token are the last one again.
template <int kTokens, bool kRouted>
GPU_DEVICE void FillStage(const TokenTile<kRouted>& tile, int first, Floats* stage) {
  const MatmulCall& call = tile.call;
  const int fours = Min(kStageElements, (call.cols - first + 31) / 32 * 32) / 4;
  for (int i = ThreadX(); i < kTokens * fours; i += kManyThreads) {
    const int token = i / fours, four = i % fours;
    stage[token * kStageStride + StageAt(four)] =
        ReadFour(call, tile.XRow(Min(tile.first + token, tile.end - 1)), first + 4 * four);
  }
}

// Any number of tokens. Blocks that follow each other share the rows: they are in the cache.
template <typename Weight, int kTokens, bool kRouted>
GPU_KERNEL void MatmulMany(MatmulCall call) {
  constexpr int kStageChunks = kStageElements / Weight::kElements;
  constexpr int kFours = kTokens * kStageStride;
  static_assert(4 * kFours >= kSumsFloats<kTokens, kManyThreads>);
  GPU_SHARED(Floats, stage, kFours);
  const unsigned tiles = static_cast<unsigned>(TokenTile<kRouted>::Count(call, kTokens));
  const TokenTile<kRouted> tile(call, static_cast<int>(BlockX() % tiles), kTokens);
  if (tile.empty()) return;
  const int warp = static_cast<int>(BlockX() / tiles) * (kManyThreads / kWarp) + WarpId();
  const int first_row = warp * kRows;
  const bool has_rows = first_row < call.rows;
  float sum[kRows][kTokens] = {};
  for (int begin = 0; begin < call.planes.chunks; begin += kStageChunks) {
    const StagedTokens tokens = {stage, begin * Weight::kElements};
    SyncThreads();  // the stage before has been read
    FillStage<kTokens>(tile, tokens.first, stage);
    SyncThreads();
    const int end = has_rows ? Min(begin + kStageChunks, call.planes.chunks) : begin;
    for (int chunk = begin + LaneId(); chunk < end; chunk += kWarp) {
      AddChunk<Weight, kTokens>(call, tile.PlaneRow(first_row), chunk, tokens, sum);
    }
  }
  SyncThreads();
  StoreSums<kTokens>(tile, first_row, sum, reinterpret_cast<float*>(stage));
}

template <typename Weight, int kTokens, bool kRouted = false>
void LaunchTile(const StreamHandle& stream, const MatmulCall& call) {
  constexpr int kThreads = kTokens <= kFewTokens ? kFewThreads : kManyThreads;
  constexpr int kBlockRows = kThreads / kWarp * kRows;
  const int64_t tiles = TokenTile<kRouted>::Count(call, kTokens);
  const int64_t blocks = (int64_t{call.rows} + kBlockRows - 1) / kBlockRows * tiles;
  FAIRLEAD_CHECK(blocks <= INT32_MAX);
  const Grid grid = {static_cast<unsigned>(blocks)};
  if constexpr (kTokens <= kFewTokens) {
    GPU_LAUNCH(stream, grid, kThreads, 0, (MatmulFew<Weight, kTokens>), call);
  } else {
    GPU_LAUNCH(stream, grid, kThreads, 0, (MatmulMany<Weight, kTokens, kRouted>), call);
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
  int cols;
  bool vectors;  // rows of out are 16-byte aligned
  bool accumulate;
};

// A block a token, a chunk a thread.
template <typename Weight>
GPU_KERNEL void EmbedRows(EmbedCall call) {
  const int row = call.token[BlockX()];
  float* out = call.out + int64_t{1} * BlockX() * call.cols;
  for (int chunk = ThreadX(); chunk < call.planes.chunks; chunk += BlockThreads()) {
    Weight weight;
    weight.Load(call.planes, row, chunk);
    for (int quad = 0; quad < Weight::kElements / 4; ++quad) {
      const int k = chunk * Weight::kElements + 4 * quad;
      Floats four;
      weight.Decode(quad, four.value);
      if (call.vectors && k < call.cols) {
        auto* to = reinterpret_cast<Floats*>(out + k);
        if (call.accumulate) {
          const Floats before = *to;
          for (int i = 0; i < 4; ++i) four.value[i] = before.value[i] + four.value[i];
        }
        *to = four;
        continue;
      }
      for (int i = 0; i < 4 && k + i < call.cols; ++i) {
        out[k + i] = call.accumulate ? out[k + i] + four.value[i] : four.value[i];
      }
    }
  }
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
                          .vectors = HasVectors(args.out.data, table.cols()),
                          .accumulate = args.accumulate};
  WithDecoder(table.dtype(), [&](auto decoder) {
    using Weight = typename decltype(decoder)::Type;
    GPU_LAUNCH(stream, Grid{static_cast<unsigned>(tokens)}, 128, 0, EmbedRows<Weight>, call);
  });
}

namespace {

// As many tokens at once as there is memory for, the same bits for each.
void MultiplyByTensorCores(const StreamHandle& stream, const MatmulArgs& args,
                           const MatmulMemory& memory) {
  const DType dtype = args.weight->dtype();
  const int64_t cols = args.weight->cols(), tokens = args.x.dim[0], columns = args.out.dim[1];
  const auto piece_bytes = MmaMemoryBytes(dtype, cols, kMmaTogether);
  int64_t most = static_cast<int64_t>(memory.bytes / piece_bytes) * kMmaTogether;
  if (most == 0) {
    most = kStagedTokens;
    while (most > 1 && !HasMmaKernel(MmaKernel::kStaged, dtype, cols, most)) --most;
  }
  for (int64_t begin = 0; begin < tokens; begin += most) {
    const int64_t count = std::min(most, tokens - begin);
    MatmulArgs piece = args;
    piece.x = Tensor(args.x.As<float>() + begin * cols, DType::kF32, {count, cols});
    piece.out = Tensor(args.out.As<float>() + begin * columns, DType::kF32, {count, columns});
    const MmaKernel kernel = ChooseMmaKernel(dtype, args.weight->rows(), cols, count);
    // Streams of a device with memory to spare have enough for any kernel and 64 tokens.
    FAIRLEAD_CHECK(kernel == MmaKernel::kStaged || memory.bytes >= piece_bytes);
    LaunchMatmulMma(stream, piece, kernel, memory.data);
  }
}

}  // namespace

void LaunchMatmul(const StreamHandle& stream, const MatmulArgs& args, Numerics numerics,
                  const MatmulMemory& memory) {
  const PackedWeight& weight = *args.weight;
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  if (numerics != Numerics::kFloat32) return MultiplyByTensorCores(stream, args, memory);
  FAIRLEAD_CHECK(weight.cols() <= INT32_MAX - kStageElements);
  FAIRLEAD_CHECK(weight.rows() <= INT32_MAX - kManyThreads && tokens <= INT32_MAX - kMaxTileTokens);
  WithDecoder(weight.dtype(), [&](auto decoder) {
    LaunchTiles<typename decltype(decoder)::Type>(stream, MakeMatmulCall(args));
  });
}

namespace {

// Device memory that a product of so many tokens takes.
size_t GroupedMemoryBytes(const GroupedMatmulArgs& args, Numerics numerics, int64_t tokens) {
  if (numerics != Numerics::kFloat32) return GroupedMmaMemoryBytes(args, tokens);
  return ExpertTiles::MemoryBytes(tokens * args.expert.dim[1], args.weight->groups(),
                                  kMaxTileTokens);
}

void LaunchGroupedPiece(const StreamHandle& stream, const GroupedMatmulArgs& args,
                        Numerics numerics, const MatmulMemory& memory) {
  if (numerics != Numerics::kFloat32) {
    return LaunchGroupedMma(stream, args, ChooseGroupedMmaKernel(args), memory.data);
  }
  MatmulCall call = MakeGroupedCall(args);
  call.routing.tiles = LaunchExpertTiles(stream, call.routing.expert, call.tokens,
                                         args.weight->groups(), kMaxTileTokens, memory.data);
  WithDecoder(args.weight->dtype(), [&](auto decoder) {
    LaunchTile<typename decltype(decoder)::Type, kMaxTileTokens, true>(stream, call);
  });
}

}  // namespace

void LaunchGroupedMatmul(const StreamHandle& stream, const GroupedMatmulArgs& args,
                         Numerics numerics, const MatmulMemory& memory) {
  const int64_t tokens = args.expert.dim[0], slots = args.expert.dim[1];
  const int64_t n = args.weight->group_rows(), cols = args.weight->cols();
  if (tokens == 0) return;
  FAIRLEAD_CHECK(cols <= INT32_MAX - kStageElements && args.weight->rows() <= INT32_MAX / 2);
  FAIRLEAD_CHECK(tokens * slots <= INT32_MAX / 16);
  const int64_t x_rows = args.x.dim[0] / tokens;  // of a token
  // As many tokens at once as there is memory for, the same bits for each.
  int64_t most = tokens;
  while (most > 1 && GroupedMemoryBytes(args, numerics, most) > memory.bytes) most = (most + 1) / 2;
  FAIRLEAD_CHECK(GroupedMemoryBytes(args, numerics, most) <= memory.bytes);
  for (int64_t begin = 0; begin < tokens; begin += most) {
    const int64_t count = std::min(most, tokens - begin);
    GroupedMatmulArgs piece = args;
    piece.x =
        Tensor(args.x.As<float>() + begin * x_rows * cols, DType::kF32, {count * x_rows, cols});
    piece.expert = Tensor(args.expert.As<int>() + begin * slots, DType::kI32, {count, slots});
    piece.out = Tensor(args.out.As<float>() + begin * slots * n, DType::kF32, {count * slots, n});
    LaunchGroupedPiece(stream, piece, numerics, memory);
  }
}

}  // namespace fairlead::FAIRLEAD_GPU
