// SPDX-License-Identifier: Apache-2.0
#include "models/embedding_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "models/encoder.h"
#include "models/registry.h"

namespace fairlead {
namespace {

class DecoderEmbeddings final : public EmbeddingModel {
 public:
  DecoderEmbeddings(std::unique_ptr<Model> model, int max_positions)
      : model_(std::move(model)), max_positions_(max_positions) {}

  int hidden() const override { return model_->config().hidden; }
  int vocab() const override { return model_->config().vocab; }
  int max_positions() const override { return max_positions_; }
  size_t weight_bytes() const override { return model_->weight_bytes(); }
  KvShape kv_shape(int block_tokens) const override {
    const ModelConfig& config = model_->config();
    return {.kv_heads = config.kv_heads, .head_dim = config.head_dim, .block_tokens = block_tokens};
  }
  size_t ScratchBytes(int max_tokens) const override {
    return model_->ScratchBytes(max_tokens, /*max_rows=*/0);
  }
  Tensor HiddenStates(Stream& stream, const Batch& batch, const PagedKv& kv,
                      Scratch& scratch) const override {
    const std::vector<PagedKv> layers(static_cast<size_t>(model_->config().layers), kv);
    const Tensor x = model_->Forward(stream, batch, layers, scratch);
    model_->FinalNorm(stream, x, x);
    return x;
  }

 private:
  std::unique_ptr<Model> model_;
  int max_positions_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddingModel>> LoadEmbeddingModel(
    const WeightSource& source, Device& device, int max_tokens,
    std::shared_ptr<WeightCache> cache) {
  if (IsEncoder(source)) return Encoder::Load(source, device, max_tokens, std::move(cache));
  const auto config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  const int positions = std::min(config->max_positions, max_tokens);
  auto model = LoadModel(source, device, positions, std::move(cache), {}, /*with_head=*/false);
  if (!model.ok()) return model.status();
  return std::make_unique<DecoderEmbeddings>(*std::move(model), positions);
}

}  // namespace fairlead
