// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "kernels/cpu/simd_matmul.h"

namespace fairlead {
namespace {

constexpr int64_t kPackTokens = 8;  // tokens per task of packing activations

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

void MultiplyVectors(ThreadPool& pool, const CpuPackedWeight& weight, const float* x, int tokens,
                     const MatmulOutput& out) {
  // Enough tasks that a thread which lost its core for a while holds up little, few enough that
  // handing out is cheap.
  const int64_t unit = SimdVectorPanels(tokens);
  const int64_t units = CeilDiv(weight.panels(), unit);
  const int64_t tasks = std::min<int64_t>(units, int64_t{6} * pool.threads());
  pool.ParallelFor(tasks, [&](int64_t task, int) {
    const int64_t begin = units * task / tasks * unit;
    const int64_t end = std::min(weight.panels(), units * (task + 1) / tasks * unit);
    SimdMultiplyVectors(weight, x, tokens, begin, end, out);
  });
}

void MultiplyTiles(ThreadPool& pool, const CpuPackedWeight& weight, const float* x, int64_t tokens,
                   const MatmulOutput& out, MatmulScratch& scratch) {
  const int64_t k = weight.cols();
  scratch.Reserve(pool.threads(), tokens, k);
  pool.ParallelFor(CeilDiv(tokens, kPackTokens), [&](int64_t task, int) {
    const int64_t begin = task * kPackTokens;
    SimdPackActivations(x, k, begin, std::min(tokens, begin + kPackTokens), scratch.activations());
  });
  // Equal blocks of an even number of tokens; a worker runs through the blocks of its panels.
  const int64_t blocks = CeilDiv(tokens, kMaxTileTokens);
  const int64_t block = CeilDiv(CeilDiv(tokens, blocks), 2) * 2;
  const int64_t unit = SimdTilePanels();
  pool.ParallelFor(CeilDiv(weight.panels(), unit) * blocks, [&](int64_t task, int worker) {
    const int64_t begin = task % blocks * block;
    const int64_t end = std::min(tokens, begin + block);
    if (begin >= end) return;
    SimdMultiplyTile(weight, scratch.activations(), begin, end, task / blocks * unit,
                     scratch.worker(worker), out);
  });
}

}  // namespace

void MatmulScratch::Reserve(int threads, int64_t max_tokens, int64_t max_k) {
  activations_.Reserve(PackedActivationFloats(max_tokens, max_k));
  worker_floats_ = SimdTileScratchFloats();
  workers_.Reserve(threads * worker_floats_);
}

void CpuMatmul(ThreadPool& pool, const Int8Mode& mode, const MatmulArgs& args,
               MatmulScratch& scratch) {
  const auto& weight = static_cast<const CpuPackedWeight&>(*args.weight);
  const int64_t tokens = args.x.dim[0];
  if (tokens == 0) return;
  const MatmulOutput out = {.data = args.out.As<float>() + args.out_column,
                            .stride = args.out.dim[1],
                            .bias = args.bias.As<const float>(),
                            .accumulate = args.accumulate};
  const float* x = args.x.As<const float>();
  if (weight.plan() != nullptr) {
    weight.plan()->Multiply(pool, x, tokens, out, scratch);
  } else if (mode.kernels != nullptr && HasInt8Path(weight.dtype())) {
    MultiplyInt8(pool, mode, weight, x, tokens, out, scratch.int8());
  } else if (tokens <= SimdVectorTokens(weight.dtype())) {
    MultiplyVectors(pool, weight, x, static_cast<int>(tokens), out);
  } else {
    MultiplyTiles(pool, weight, x, tokens, out, scratch);
  }
}

void CpuEmbed(ThreadPool& pool, const EmbedArgs& args) {
  const auto& table = static_cast<const CpuPackedWeight&>(*args.table);
  const int32_t* token = args.token.As<const int32_t>();
  float* out = args.out.As<float>();
  pool.ParallelFor(args.token.dim[0], [&](int64_t t, int) {
    if (args.accumulate) {
      table.AddRow(token[t], out + t * table.cols());
    } else {
      table.DequantizeRow(token[t], out + t * table.cols());
    }
  });
}

}  // namespace fairlead
