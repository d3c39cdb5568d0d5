// SPDX-License-Identifier: Apache-2.0
// Ops that take rows of activations as they are: norm, gate, gather.
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
  int hidden;
  float epsilon;
};

// A block a token. Each thread sums its own elements in order, then the threads' sums are joined:
// the order depends on `hidden` alone.
GPU_KERNEL void RmsNormKernel(RmsNormCall call) {
  const int64_t row = int64_t{1} * BlockX() * call.hidden;
  const float* x = call.x + row;
  float sum = 0.0f;
  for (int i = ThreadX(); i < call.hidden; i += kThreads) sum = fmaf(x[i], x[i], sum);
  const float mean = BlockSum<kThreads>(sum) / static_cast<float>(call.hidden);
  const float scale = 1.0f / sqrtf(mean + call.epsilon);
  for (int i = ThreadX(); i < call.hidden; i += kThreads) {
    call.out[row + i] = x[i] * scale * call.weight[i];
  }
}

struct SiluAndMulCall {
  const float* x;
  float* out;
  int ffn;
};

// Grid: tokens by chunks of kThreads elements.
GPU_KERNEL void SiluAndMulKernel(SiluAndMulCall call) {
  const int i = static_cast<int>(BlockY()) * kThreads + ThreadX();
  if (i >= call.ffn) return;
  const float* x = call.x + int64_t{2} * BlockX() * call.ffn;
  const float gate = x[i];
  call.out[int64_t{1} * BlockX() * call.ffn + i] = gate / (1.0f + expf(-gate)) * x[call.ffn + i];
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

}  // namespace

void GpuOps::RmsNorm(Stream& stream, const RmsNormArgs& args) const {
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  const RmsNormCall call = {.x = args.x.As<float>(),
                            .weight = args.weight.As<float>(),
                            .out = args.out.As<float>(),
                            .hidden = static_cast<int>(args.x.dim[1]),
                            .epsilon = args.epsilon};
  GPU_LAUNCH(HandleOf(stream), Grid{static_cast<unsigned>(tokens)}, kThreads, 0, RmsNormKernel,
             call);
}

void GpuOps::SiluAndMul(Stream& stream, const SiluAndMulArgs& args) const {
  const int64_t tokens = args.out.dim[0], ffn = args.out.dim[1];
  if (tokens == 0) return;
  const SiluAndMulCall call = {
      .x = args.x.As<float>(), .out = args.out.As<float>(), .ffn = static_cast<int>(ffn)};
  const Grid grid = {static_cast<unsigned>(tokens), Blocks(ffn)};
  GPU_LAUNCH(HandleOf(stream), grid, kThreads, 0, SiluAndMulKernel, call);
}

void GpuOps::GatherRows(Stream& stream, const GatherRowsArgs& args) const {
  const int64_t rows = args.out.dim[0], hidden = args.out.dim[1];
  if (rows == 0) return;
  const GatherRowsCall call = {.x = args.x.As<float>(),
                               .row = args.row.As<int>(),
                               .out = args.out.As<float>(),
                               .hidden = static_cast<int>(hidden)};
  const Grid grid = {static_cast<unsigned>(rows), Blocks(hidden)};
  GPU_LAUNCH(HandleOf(stream), grid, kThreads, 0, GatherRowsKernel, call);
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

}  // namespace fairlead::FAIRLEAD_GPU
