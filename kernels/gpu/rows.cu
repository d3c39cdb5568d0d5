// SPDX-License-Identifier: Apache-2.0
// Ops that take rows of activations as they are: norm, gate, gather, pool.
#include "kernels/gpu/activation.h"
#include "kernels/gpu/ops_gpu.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t elements) {
  return static_cast<unsigned>((elements + kThreads - 1) / kThreads);
}

struct RmsNormCall {
  const float* x;
  const float* weight;
  float* out;
  int columns;  // from one row to the next
  int hidden;
  float epsilon;
  bool accumulate;
};

// A block a token. Each thread sums its own elements in order, then the threads' sums are joined:
// the order depends on `hidden` alone.
GPU_KERNEL void RmsNormKernel(RmsNormCall call) {
  const int64_t row = int64_t{1} * BlockX() * call.columns;
  const float* x = call.x + row;
  float sum = 0.0f;
  for (int i = ThreadX(); i < call.hidden; i += kThreads) sum = fmaf(x[i], x[i], sum);
  const float mean = BlockSum<kThreads>(sum) / static_cast<float>(call.hidden);
  const float scale = 1.0f / sqrtf(mean + call.epsilon);
  for (int i = ThreadX(); i < call.hidden; i += kThreads) {
    const float y = x[i] * scale * call.weight[i];
    call.out[row + i] = call.accumulate ? call.out[row + i] + y : y;
  }
}

struct LayerNormCall {
  const float* x;
  const float* weight;  // or null, as bias may be
  const float* bias;
  float* out;
  int hidden;
  float epsilon;
};

// A block a token, both sums in the order of RmsNorm's. Each thread writes what it alone has read.
GPU_KERNEL void LayerNormKernel(LayerNormCall call) {
  const int64_t row = int64_t{1} * BlockX() * call.hidden;
  const float* x = call.x + row;
  const auto count = static_cast<float>(call.hidden);
  float sum = 0.0f;
  for (int i = ThreadX(); i < call.hidden; i += kThreads) sum += x[i];
  const float mean = BlockSum<kThreads>(sum) / count;
  float squares = 0.0f;
  for (int i = ThreadX(); i < call.hidden; i += kThreads) {
    const float y = x[i] - mean;
    squares = fmaf(y, y, squares);
  }
  const float scale = 1.0f / sqrtf(BlockSum<kThreads>(squares) / count + call.epsilon);
  for (int i = ThreadX(); i < call.hidden; i += kThreads) {
    float y = (x[i] - mean) * scale;
    if (call.weight != nullptr) y *= call.weight[i];
    if (call.bias != nullptr) y += call.bias[i];
    call.out[row + i] = y;
  }
}

struct ActivateAndMulCall {
  const float* x;
  float* out;
  int ffn;
  float limit;
  bool gated;
};

// Grid: tokens by chunks of kThreads elements.
template <Activation kActivation>
GPU_KERNEL void ActivateAndMulKernel(ActivateAndMulCall call) {
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.ffn) return;
  const int64_t row = int64_t{1} * BlockX() * call.ffn;
  const float* x = call.x + (call.gated ? 2 * row : row);
  const float up = call.gated ? x[call.ffn + i] : 1.0f;  // times 1 changes no bit
  call.out[row + i] = ActivatedProduct<kActivation>(x[i], up, call.limit);
}

struct GatherRowsCall {
  const float* x;
  const int* row;
  float* out;
  int hidden;
};

GPU_KERNEL void GatherRowsKernel(GatherRowsCall call) {
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.hidden) return;
  const int64_t from = call.row[BlockX()];
  call.out[int64_t{1} * BlockX() * call.hidden + i] = call.x[from * call.hidden + i];
}

struct ScaleCall {
  float* x;
  int columns;
  float factor;
  float soft_cap;
};

GPU_KERNEL void ScaleKernel(ScaleCall call) {
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.columns) return;
  float* x = call.x + int64_t{1} * BlockX() * call.columns + i;
  const float y = *x * call.factor;
  *x = call.soft_cap == 0.0f ? y : call.soft_cap * Tanh(y / call.soft_cap);
}

struct SelectTokensCall {
  const int* token;
  const int* source;
  const int* drawn;
  int* out;
  int tokens;
};

GPU_KERNEL void SelectTokensKernel(SelectTokensCall call) {
  const int t = static_cast<int>(BlockX()) * BlockThreads() + ThreadX();
  if (t >= call.tokens) return;
  const int source = call.source[t];
  int token = call.token[t];
  if (source >= 0) token = call.drawn[source] < 0 ? 0 : call.drawn[source];
  call.out[t] = token;
}

struct PoolCall {
  const float* x;
  const int* query_start;
  float* out;
  int hidden;
  Pooling pooling;
};

// Grid: sequences by chunks of kThreads columns, a thread a column. Several loads are under way at
// a time, and added in order.
GPU_KERNEL void PoolKernel(PoolCall call) {
  constexpr int kLoads = 8;
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.hidden) return;
  const int begin = call.query_start[BlockX()], end = call.query_start[BlockX() + 1];
  float* out = call.out + int64_t{1} * BlockX() * call.hidden + i;
  if (begin == end) {
    *out = 0.0f;
    return;
  }
  const float* x = call.x + i;
  float value = x[int64_t{1} * (call.pooling == Pooling::kLast ? end - 1 : begin) * call.hidden];
  if (call.pooling == Pooling::kMean) {
    for (int first = begin + 1; first < end; first += kLoads) {
      float next[kLoads];
      for (int j = 0; j < kLoads; ++j) {
        next[j] = first + j < end ? x[int64_t{1} * (first + j) * call.hidden] : 0.0f;
      }
      for (int j = 0; j < kLoads; ++j) value = first + j < end ? value + next[j] : value;
    }
    value /= static_cast<float>(end - begin);
  }
  *out = value;
}

struct NormalizeCall {
  float* x;
  int hidden;
};

// A block a row, its sum in the order of RmsNorm's.
GPU_KERNEL void NormalizeKernel(NormalizeCall call) {
  constexpr float kLeast = 1e-12f;  // PoolArgs::normalize
  float* x = call.x + int64_t{1} * BlockX() * call.hidden;
  float sum = 0.0f;
  for (int i = ThreadX(); i < call.hidden; i += kThreads) sum = fmaf(x[i], x[i], sum);
  const float norm = sqrtf(BlockSum<kThreads>(sum));
  const float divisor = norm < kLeast ? kLeast : norm;  // NaN stays
  for (int i = ThreadX(); i < call.hidden; i += kThreads) x[i] /= divisor;
}

template <Activation kActivation>
void LaunchActivateAndMul(const StreamHandle& stream, const Grid& grid,
                          const ActivateAndMulCall& call) {
  GPU_LAUNCH(stream, grid, kThreads, 0, ActivateAndMulKernel<kActivation>, call);
}

}  // namespace

void GpuOps::RmsNorm(Stream& stream, const RmsNormArgs& args) const {
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  const RmsNormCall call = {.x = args.x.As<float>() + args.column,
                            .weight = args.weight.As<float>(),
                            .out = args.out.As<float>() + args.column,
                            .columns = static_cast<int>(args.x.dim[1]),
                            .hidden = static_cast<int>(args.weight.dim[0]),
                            .epsilon = args.epsilon,
                            .accumulate = args.accumulate};
  GPU_LAUNCH(HandleOf(stream), Grid{static_cast<unsigned>(tokens)}, kThreads, 0, RmsNormKernel,
             call);
}

void GpuOps::LayerNorm(Stream& stream, const LayerNormArgs& args) const {
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  const LayerNormCall call = {.x = args.x.As<float>(),
                              .weight = args.weight.As<float>(),
                              .bias = args.bias.As<float>(),
                              .out = args.out.As<float>(),
                              .hidden = static_cast<int>(args.x.dim[1]),
                              .epsilon = args.epsilon};
  GPU_LAUNCH(HandleOf(stream), Grid{static_cast<unsigned>(tokens)}, kThreads, 0, LayerNormKernel,
             call);
}

void GpuOps::ActivateAndMul(Stream& stream, const ActivateAndMulArgs& args) const {
  const int64_t tokens = args.out.dim[0], ffn = args.out.dim[1];
  if (tokens == 0 || ffn == 0) return;
  const ActivateAndMulCall call = {.x = args.x.As<float>(),
                                   .out = args.out.As<float>(),
                                   .ffn = static_cast<int>(ffn),
                                   .limit = args.limit,
                                   .gated = args.gated};
  const Grid grid = {static_cast<unsigned>(tokens), Blocks(ffn)};
  switch (args.activation) {
    case Activation::kSilu:
      return LaunchActivateAndMul<Activation::kSilu>(HandleOf(stream), grid, call);
    case Activation::kGeluTanh:
      return LaunchActivateAndMul<Activation::kGeluTanh>(HandleOf(stream), grid, call);
    case Activation::kGelu:
      return LaunchActivateAndMul<Activation::kGelu>(HandleOf(stream), grid, call);
    case Activation::kClampedSilu:
      return LaunchActivateAndMul<Activation::kClampedSilu>(HandleOf(stream), grid, call);
  }
}

void GpuOps::GatherRows(Stream& stream, const GatherRowsArgs& args) const {
  const int64_t rows = args.out.dim[0], hidden = args.out.dim[1];
  if (rows == 0 || hidden == 0) return;
  const GatherRowsCall call = {.x = args.x.As<float>(),
                               .row = args.row.As<int>(),
                               .out = args.out.As<float>(),
                               .hidden = static_cast<int>(hidden)};
  const Grid grid = {static_cast<unsigned>(rows), Blocks(hidden)};
  GPU_LAUNCH(HandleOf(stream), grid, kThreads, 0, GatherRowsKernel, call);
}

void GpuOps::Scale(Stream& stream, const ScaleArgs& args) const {
  const int64_t rows = args.x.dim[0], columns = args.x.dim[1];
  if (rows == 0 || columns == 0) return;
  const ScaleCall call = {.x = args.x.As<float>(),
                          .columns = static_cast<int>(columns),
                          .factor = args.factor,
                          .soft_cap = args.soft_cap};
  const Grid grid = {static_cast<unsigned>(rows), Blocks(columns)};
  GPU_LAUNCH(HandleOf(stream), grid, kThreads, 0, ScaleKernel, call);
}

void GpuOps::SelectTokens(Stream& stream, const SelectTokensArgs& args) const {
  const int64_t tokens = args.token.dim[0];
  if (tokens == 0) return;
  const SelectTokensCall call = {.token = args.token.As<int>(),
                                 .source = args.source.As<int>(),
                                 .drawn = args.drawn.As<int>(),
                                 .out = args.out.As<int>(),
                                 .tokens = static_cast<int>(tokens)};
  GPU_LAUNCH(HandleOf(stream), Grid{Blocks(tokens)}, kThreads, 0, SelectTokensKernel, call);
}

void GpuOps::Pool(Stream& stream, const PoolArgs& args) const {
  const int64_t seqs = args.out.dim[0], hidden = args.out.dim[1];
  if (seqs == 0 || hidden == 0) return;
  const PoolCall call = {.x = args.x.As<float>(),
                         .query_start = args.query_start.As<int>(),
                         .out = args.out.As<float>(),
                         .hidden = static_cast<int>(hidden),
                         .pooling = args.pooling};
  const Grid grid = {static_cast<unsigned>(seqs), Blocks(hidden)};
  GPU_LAUNCH(HandleOf(stream), grid, kThreads, 0, PoolKernel, call);
  if (!args.normalize) return;
  const NormalizeCall rows = {.x = call.out, .hidden = call.hidden};
  GPU_LAUNCH(HandleOf(stream), Grid{grid.x}, kThreads, 0, NormalizeKernel, rows);
}

}  // namespace fairlead::FAIRLEAD_GPU
