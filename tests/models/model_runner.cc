// SPDX-License-Identifier: Apache-2.0
#include "tests/models/model_runner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.h"

namespace fairlead {
namespace {

constexpr int kBlockTokens = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Open(const std::string& path,
                                                               std::unique_ptr<Device> device,
                                                               int max_tokens,
                                                               const CacheMaker& make_cache,
                                                               const LayerPlacement& placement) {
  auto source = OpenWeights(path);
  if (!source.ok()) return source.status();
  auto runner = std::make_unique<ModelRunner>();
  runner->device_ = std::move(device);
  auto model = LoadModel(**source, *runner->device_, max_tokens,
                         make_cache ? make_cache(**source, *runner->device_) : nullptr, placement);
  if (!model.ok()) return model.status();
  runner->model_ = *std::move(model);
  runner->max_tokens_ = max_tokens;
  runner->num_blocks_ = (max_tokens + kBlockTokens - 1) / kBlockTokens;
  runner->stream_ = runner->device_->NewStream();
  const ModelConfig& config = runner->model_->config();
  const KvShape shape{
      .kv_heads = config.kv_heads, .head_dim = config.head_dim, .block_tokens = kBlockTokens};
  for (int i = 0; i < config.layers; ++i) {
    runner->kv_buffers_.push_back(
        *runner->device_->Allocate(runner->num_blocks_ * runner->device_->KvBlockBytes(shape)));
    runner->kv_.push_back({.data = runner->kv_buffers_.back().data(),
                           .num_blocks = runner->num_blocks_,
                           .shape = shape});
  }
  runner->scratch_ = std::make_unique<Scratch>(
      *runner->device_->Allocate(runner->model_->ScratchBytes(max_tokens, max_tokens)));
  runner->inputs_ =
      *runner->device_->Allocate(sizeof(int32_t) * (4 * max_tokens + runner->num_blocks_ + 3));
  runner->logits_ = *runner->device_->Allocate(sizeof(float) * max_tokens * config.vocab);
  return runner;
}

Tensor ModelRunner::Forward(absl::Span<const Token> tokens, Batch& batch, Tensor* row, int rows) {
  const int n = static_cast<int>(tokens.size());
  FAIRLEAD_CHECK(context_tokens_ + n <= max_tokens_ && rows <= n);
  std::vector<int32_t> host;
  int32_t* device = static_cast<int32_t*>(inputs_.data());
  const auto append = [&](const std::vector<int32_t>& values, std::initializer_list<int64_t> dims) {
    Tensor view(device + host.size(), DType::kI32, dims);
    host.insert(host.end(), values.begin(), values.end());
    return view;
  };
  std::vector<int32_t> positions(n), last(rows), blocks(num_blocks_);
  std::iota(positions.begin(), positions.end(), context_tokens_);
  std::iota(last.begin(), last.end(), n - rows);
  std::iota(blocks.begin(), blocks.end(), 0);
  batch.token = append({tokens.begin(), tokens.end()}, {n});
  batch.position = append(positions, {n});
  batch.kv_slot = append(positions, {n});  // block i holds the positions from 16 i on
  batch.query_start = append({0, n}, {2});
  batch.context_tokens = append({context_tokens_ + n}, {1});
  batch.block_table = append(blocks, {1, num_blocks_});
  if (row != nullptr) *row = append(last, {rows});
  stream_->CopyToDevice(device, host.data(), host.size() * sizeof(int32_t));
  const Tensor hidden = model_->Forward(*stream_, batch, kv_, *scratch_);
  stream_->Wait();  // for the copy from `host`
  context_tokens_ += n;
  return hidden;
}

std::vector<float> ModelRunner::CopyToHost(const Tensor& tensor) {
  FAIRLEAD_CHECK(tensor.dtype == DType::kF32);
  std::vector<float> out(static_cast<size_t>(tensor.elements()));
  stream_->CopyToHost(out.data(), tensor.data, out.size() * sizeof(float));
  stream_->Wait();
  return out;
}

std::vector<float> ModelRunner::Run(absl::Span<const Token> tokens, int rows) {
  Batch batch;
  Tensor row;
  const Tensor hidden = Forward(tokens, batch, &row, rows);
  const Tensor logits(logits_.data(), DType::kF32, {rows, vocab()});
  model_->Logits(*stream_, hidden, row, logits, *scratch_);
  return CopyToHost(logits);
}

std::vector<float> ModelRunner::RunToFinalNorm(absl::Span<const Token> tokens) {
  Batch batch;
  const Tensor x = Forward(tokens, batch, nullptr, 0);
  model_->FinalNorm(*stream_, x, x);
  return CopyToHost(x);
}

std::vector<float> ModelRunner::RunToPooled(absl::Span<const Token> tokens, Pooling pooling,
                                            bool normalize) {
  Batch batch;
  const Tensor x = Forward(tokens, batch, nullptr, 0);
  model_->FinalNorm(*stream_, x, x);
  FAIRLEAD_CHECK(hidden() <= vocab() && x.dtype == DType::kF32);
  const Tensor pooled(logits_.data(), x.dtype, {1, hidden()});
  device_->ops().Pool(*stream_, {.x = x,
                                 .query_start = batch.query_start,
                                 .out = pooled,
                                 .pooling = pooling,
                                 .normalize = normalize});
  return CopyToHost(pooled);
}

std::vector<Token> ModelRunner::Greedy(absl::Span<const Token> tokens, int count) {
  Restart();
  std::vector<float> logits = Run(tokens, 1);
  std::vector<Token> out;
  while (true) {
    const Token best =
        static_cast<Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    out.push_back(best);
    if (static_cast<int>(out.size()) == count) return out;
    logits = Run(absl::MakeConstSpan(&best, 1), 1);
  }
}

}  // namespace fairlead
