// SPDX-License-Identifier: Apache-2.0
#include "bench/ops/work.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/check.h"
#include "tests/kernels/case_run.h"

namespace fairlead::bench {
namespace {

constexpr size_t kColdBytes = size_t{256} << 20;
constexpr int kBlockTokens = 16;

std::vector<int32_t> Sequence(int count, int first = 0) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

double FloatBytes(double elements) { return elements * sizeof(float); }

}  // namespace

Tensor Work::Checked(Tensor tensor) const {
  FAIRLEAD_CHECK(tensors_.status().ok());
  return tensor;
}

Tensor Work::Activations(std::initializer_list<int64_t> dims) {
  return Checked(tensors_.Activations(dims));
}

Tensor Work::Floats(std::initializer_list<int64_t> dims) { return Checked(tensors_.Floats(dims)); }

Tensor Work::Constant(float value, std::initializer_list<int64_t> dims) {
  return Checked(tensors_.Constant(value, dims));
}

Tensor Work::Values(const std::vector<float>& values, std::initializer_list<int64_t> dims) {
  return Checked(tensors_.Values(values, dims));
}

Tensor Work::Ints(const std::vector<int32_t>& values, std::initializer_list<int64_t> dims) {
  return Checked(tensors_.Ints(values, dims));
}

Tensor Work::Output(DType dtype, std::initializer_list<int64_t> dims) {
  return Checked(tensors_.Output(dtype, dims));
}

PagedKv Work::Kv(const KvShape& shape, int num_blocks) {
  void* data = tensors_.Place(device_.KvBlockBytes(shape) * num_blocks, nullptr, 0);
  FAIRLEAD_CHECK(data != nullptr);
  return {.data = data, .num_blocks = num_blocks, .shape = shape};
}

std::vector<const PackedWeight*> Work::ColdWeights(DType dtype, int64_t rows, int64_t cols,
                                                   bool embedding) {
  // One random row, repeated: values do not change the time.
  CaseRandom random(2);
  const std::vector<std::byte> row =
      RandomWeights(random, dtype, cols, 1 / std::sqrt(static_cast<float>(cols)));
  std::vector<std::byte> bytes;
  bytes.reserve(row.size() * rows);
  for (int64_t i = 0; i < rows; ++i) bytes.insert(bytes.end(), row.begin(), row.end());
  const WeightPart part{bytes.data(), rows};
  const size_t copies = std::clamp<size_t>(kColdBytes / bytes.size(), 1, max_copies);
  std::vector<const PackedWeight*> weights;
  for (size_t i = 0; i < copies; ++i) {
    auto weight = device_.PackWeight({.dtype = dtype,
                                      .cols = cols,
                                      .parts = absl::MakeConstSpan(&part, 1),
                                      .embedding = embedding});
    FAIRLEAD_CHECK(weight.ok());
    weights_.push_back(*std::move(weight));
    weights.push_back(weights_.back().get());
  }
  return weights;
}

void SetUpMatmul(Work& work, DType dtype, int64_t n, int64_t k, int rows) {
  const auto weights = work.ColdWeights(dtype, n, k);
  const Tensor x = work.Activations({rows, k}),
               out = work.Output(work.activation_dtype(), {rows, n});
  work.launch = [&work, weights, x, out, next = size_t{0}]() mutable {
    work.ops().Matmul(work.stream(), {.x = x, .weight = weights[next], .out = out});
    next = (next + 1) % weights.size();
  };
  work.operations = 2.0 * rows * static_cast<double>(n) * static_cast<double>(k);
  work.bytes = static_cast<double>(RowBytes(dtype, k)) * static_cast<double>(n) +
               work.ActivationBytes(static_cast<double>(rows) * static_cast<double>(n + k));
  work.is_integer = IsQuantized(dtype);
}

void SetUpEmbed(Work& work, const ModelShape& shape, DType dtype, int rows) {
  const auto weights = work.ColdWeights(dtype, shape.vocab, shape.hidden, /*embedding=*/true);
  std::vector<int32_t> tokens(rows);
  for (int i = 0; i < rows; ++i) tokens[i] = static_cast<int32_t>(7919LL * i % shape.vocab);
  const Tensor token = work.Ints(tokens, {rows});
  const Tensor out = work.Output(work.activation_dtype(), {rows, shape.hidden});
  work.launch = [&work, table = weights[0], token, out] {
    work.ops().Embed(work.stream(), {.token = token, .table = table, .out = out});
  };
  work.bytes = rows * (static_cast<double>(RowBytes(dtype, shape.hidden)) +
                       work.ActivationBytes(shape.hidden));
}

void SetUpRmsNorm(Work& work, const ModelShape& shape, int rows) {
  const Tensor x = work.Activations({rows, shape.hidden}),
               weight = work.Constant(1, {shape.hidden});
  const Tensor out = work.Output(work.activation_dtype(), {rows, shape.hidden});
  work.launch = [&work, x, weight, out] {
    work.ops().RmsNorm(work.stream(), {.x = x, .weight = weight, .out = out, .epsilon = 1e-5f});
  };
  work.bytes = work.ActivationBytes(2.0 * rows * shape.hidden);
}

void SetUpActivateAndMul(Work& work, const ModelShape& shape, int rows) {
  const Tensor x = work.Activations({rows, 2 * shape.ffn});
  const Tensor out = work.Output(work.activation_dtype(), {rows, shape.ffn});
  work.launch = [&work, x, out] {
    work.ops().ActivateAndMul(work.stream(), {.x = x, .out = out, .activation = Activation::kSilu});
  };
  work.bytes = work.ActivationBytes(3.0 * rows * shape.ffn);
}

void SetUpGatherRows(Work& work, const ModelShape& shape, int rows) {
  const Tensor x = work.Activations({rows, shape.hidden}), row = work.Ints(Sequence(rows), {rows});
  const Tensor out = work.Output(work.activation_dtype(), {rows, shape.hidden});
  work.launch = [&work, x, row, out] {
    work.ops().GatherRows(work.stream(), {.x = x, .row = row, .out = out});
  };
  work.bytes = work.ActivationBytes(2.0 * rows * shape.hidden);
}

void SetUpRopeAndWriteKv(Work& work, const ModelShape& shape, int rows) {
  const int columns = shape.heads + 2 * shape.kv_heads;
  const KvShape kv_shape{
      .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .block_tokens = kBlockTokens};
  const PagedKv kv = work.Kv(kv_shape, (rows + kBlockTokens - 1) / kBlockTokens);
  // Angle 0: q keeps its values however often it is rotated in place.
  std::vector<float> table(static_cast<size_t>(rows) * shape.head_dim, 0);
  for (size_t i = 0; i < table.size(); ++i) {
    if (i % shape.head_dim < static_cast<size_t>(shape.head_dim) / 2) table[i] = 1;
  }
  const Tensor cos_sin = work.Values(table, {rows, shape.head_dim});
  const Tensor qkv = work.Activations({rows, columns, shape.head_dim});
  const Tensor position = work.Ints(Sequence(rows), {rows}),
               slot = work.Ints(Sequence(rows), {rows});
  work.launch = [&work, qkv, position, slot, cos_sin, kv, heads = shape.heads] {
    work.ops().RopeAndWriteKv(work.stream(), {.qkv = qkv,
                                              .position = position,
                                              .kv_slot = slot,
                                              .cos_sin = cos_sin,
                                              .kv = kv,
                                              .heads = heads,
                                              .pairing = RopePairing::kHalves});
  };
  work.bytes = work.ActivationBytes(static_cast<double>(rows) * columns * shape.head_dim) +
               work.ActivationBytes(static_cast<double>(rows) * shape.heads * shape.head_dim) +
               static_cast<double>(rows) / kBlockTokens *
                   static_cast<double>(work.device().KvBlockBytes(kv_shape));
}

void SetUpAttention(Work& work, const ModelShape& shape, int seqs, int queries, int context) {
  const int columns = shape.heads + 2 * shape.kv_heads, tokens = seqs * queries;
  const KvShape kv_shape{
      .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .block_tokens = kBlockTokens};
  const int blocks = (context + kBlockTokens - 1) / kBlockTokens;
  const PagedKv kv = work.Kv(kv_shape, seqs * blocks);
  std::vector<int32_t> starts(seqs + 1);
  for (int i = 0; i <= seqs; ++i) starts[i] = i * queries;
  const Tensor qkv = work.Activations({tokens, columns, shape.head_dim});
  const Tensor out = work.Output(work.activation_dtype(), {tokens, shape.heads * shape.head_dim});
  const Tensor query_start = work.Ints(starts, {seqs + 1});
  const Tensor contexts = work.Ints(std::vector<int32_t>(seqs, context), {seqs});
  const Tensor table = work.Ints(Sequence(seqs * blocks), {seqs, blocks});
  const float scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  work.launch = [&work, qkv, out, kv, query_start, contexts, table, heads = shape.heads, scale] {
    work.ops().Attention(work.stream(), {.qkv = qkv,
                                         .out = out,
                                         .kv = kv,
                                         .query_start = query_start,
                                         .context_tokens = contexts,
                                         .block_table = table,
                                         .heads = heads,
                                         .scale = scale});
  };
  // Query j of a sequence sees context - queries + j + 1 keys.
  const double keys = queries * (context - queries + (queries + 1) / 2.0);
  work.operations = 4.0 * seqs * keys * shape.heads * shape.head_dim;
  work.bytes = static_cast<double>(seqs) * blocks *
                   static_cast<double>(work.device().KvBlockBytes(kv_shape)) +
               work.ActivationBytes(2.0 * tokens * shape.heads * shape.head_dim);
}

void SetUpSample(Work& work, const ModelShape& shape, int rows, float temperature) {
  const SampleArgs args = {
      .logits = work.Floats({rows, shape.vocab}),
      .temperature = work.Constant(temperature, {rows}),
      .top_k = work.Ints(std::vector<int32_t>(rows, temperature > 0 ? 40 : 0), {rows}),
      .top_p = work.Constant(temperature > 0 ? 0.95f : 1.0f, {rows}),
      .min_p = work.Constant(0, {rows}),
      .seed = work.Ints(Sequence(2 * rows), {rows, 2}),
      .position = work.Ints(Sequence(rows), {rows}),
      .out = work.Output(DType::kI32, {rows})};
  work.launch = [&work, args] { work.ops().Sample(work.stream(), args); };
  work.bytes = FloatBytes(static_cast<double>(rows) * shape.vocab);
}

void SetUpLogprobs(Work& work, const ModelShape& shape, int rows) {
  constexpr int kTop = 5;
  const LogprobsArgs args = {.logits = work.Floats({rows, shape.vocab}),
                             .target = work.Ints(Sequence(rows), {rows}),
                             .out_logprob = work.Output(DType::kF32, {rows}),
                             .out_rank = work.Output(DType::kI32, {rows}),
                             .top_token = work.Output(DType::kI32, {rows, kTop}),
                             .top_logprob = work.Output(DType::kF32, {rows, kTop})};
  work.launch = [&work, args] { work.ops().Logprobs(work.stream(), args); };
  work.bytes = FloatBytes(static_cast<double>(rows) * shape.vocab);
}

}  // namespace fairlead::bench
