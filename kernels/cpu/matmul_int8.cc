// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_int8.h"

#include <algorithm>

namespace fairlead {
namespace {

// A task's panels are a multiple of what any kernel takes at once.
constexpr int64_t kUnitPanels = 4;
// With fewer tokens than this, a unit is too little work to be handed out alone.
constexpr int64_t kManyTokens = 32;
// Then a task has a few units, and of a large weight no more bytes than this: the others wait for
// the last one.
constexpr int64_t kTaskBytes = 256 << 10;
// Values that one core quantises in the time that waking the others takes.
constexpr int64_t kInlineValues = 16 * 1024;
constexpr int64_t kQuantizeTokens = 4;  // of a task

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

void QuantizeRows(ThreadPool& pool, const Int8Kernels& kernels, const float* x, int64_t tokens,
                  int64_t k, const Int8Activations& out) {
  const auto quantize = [&](int64_t task, int) {
    const int64_t end = std::min(tokens, (task + 1) * kQuantizeTokens);
    for (int64_t t = task * kQuantizeTokens; t < end; ++t) kernels.quantize(x + t * k, k, t, out);
  };
  const int64_t tasks = CeilDiv(tokens, kQuantizeTokens);
  if (tokens * k > kInlineValues) return pool.ParallelFor(tasks, quantize);
  for (int64_t task = 0; task < tasks; ++task) quantize(task, 0);
}

}  // namespace

Int8Mode Int8ModeFor(Numerics numerics) {
  const absl::Span<const Int8Kernels* const> kernels = SupportedInt8Kernels();
  if (kernels.empty() || numerics == Numerics::kFloat32) return {};
  const Int8Kernels& best = *kernels.front();
  const int terms = numerics == Numerics::kFast ? best.fast_terms : best.precise_terms;
  return terms > 0 ? Int8Mode{.kernels = &best, .terms = terms} : Int8Mode{};
}

Int8Activations Int8Scratch::Reserve(int threads, int64_t tokens, int64_t k, const Int8Mode& mode) {
  const int64_t blocks = k / kInt8Block;
  const int64_t rows = CeilDiv(tokens, kInt8TokenGroup) * kInt8TokenGroup;
  const int terms = mode.kernels->spans ? 2 : mode.terms;
  workers_.Reserve(threads * kInt8ScratchBytes);
  return {.blocks = blocks,
          .terms = terms,
          .quads = quads_.Reserve(rows * ((blocks + 1) / 2 * 2) * kInt8Block * terms),
          .scale = scale_.Reserve(rows * blocks),
          .sum = sum_.Reserve(rows * blocks),
          .half = mode.kernels->spans && tokens > kInt8SpanFewTokens
                      ? nullptr
                      : half_.Reserve(rows * blocks * 2)};
}

void MultiplyInt8(ThreadPool& pool, const Int8Mode& mode, const CpuPackedWeight& weight,
                  const float* x, int64_t tokens, const MatmulOutput& out, Int8Scratch& scratch) {
  const int64_t k = weight.cols();
  const Int8Activations rows = scratch.Reserve(pool.threads(), tokens, k, mode);
  QuantizeRows(pool, *mode.kernels, x, tokens, k, rows);
  // Nearly equal blocks of whole groups of tokens.
  const int64_t groups = CeilDiv(tokens, kInt8TokenGroup);
  const int64_t token_blocks = CeilDiv(tokens, kMaxInt8Tokens);
  const int64_t units = CeilDiv(weight.panels(), kUnitPanels);
  const int64_t few_tasks = std::max<int64_t>(int64_t{6} * pool.threads(),
                                              static_cast<int64_t>(weight.bytes()) / kTaskBytes);
  const int64_t panel_tasks = tokens < kManyTokens ? std::min(units, few_tasks) : units;
  pool.ParallelFor(panel_tasks * token_blocks, [&](int64_t task, int worker) {
    const int64_t token_block = task % token_blocks, panel_task = task / token_blocks;
    const int64_t begin = groups * token_block / token_blocks * kInt8TokenGroup;
    const int64_t end =
        std::min(tokens, groups * (token_block + 1) / token_blocks * kInt8TokenGroup);
    const int64_t panel = units * panel_task / panel_tasks * kUnitPanels;
    const int64_t panel_end =
        std::min(weight.panels(), units * (panel_task + 1) / panel_tasks * kUnitPanels);
    mode.kernels->multiply(weight, rows, begin, end, panel, panel_end, scratch.worker(worker), out);
  });
}

}  // namespace fairlead
