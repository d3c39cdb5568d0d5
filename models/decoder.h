// SPDX-License-Identifier: Apache-2.0
// The Llama-shaped decoder: pre-norm attention and a gated MLP, each added to the residual stream
// (Touvron et al., arXiv 2302.13971). Forward reads top to bottom.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "models/model.h"
#include "models/parameters.h"

namespace fairlead {

class Decoder : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const WeightSource& source,
                                                       const ModelConfig& config, Device& device,
                                                       int max_positions,
                                                       std::shared_ptr<WeightCache> cache,
                                                       const LayerPlacement& placement);
  ~Decoder() override {
    if (cache_ != nullptr) cache_->StopStoring();
  }

  const ModelConfig& config() const override { return config_; }
  size_t weight_bytes() const override;
  size_t host_weight_bytes() const override;
  int resident_layers() const override { return resident_layers_; }
  size_t ScratchBytes(int max_tokens, int max_rows) const override;
  Tensor Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                 Scratch& scratch) const override;
  void Logits(Stream& stream, const Tensor& hidden, const Tensor& row, const Tensor& logits,
              Scratch& scratch) const override;

 private:
  struct Layer {
    Linear qkv, attention_out, gate_up, down;
    std::array<Linear*, 4> linears() { return {&qkv, &attention_out, &gate_up, &down}; }
    std::array<const Linear*, 4> linears() const { return {&qkv, &attention_out, &gate_up, &down}; }
    size_t attention_norm_offset = 0, mlp_norm_offset = 0;
    Tensor attention_norm, mlp_norm;  // f32 [hidden]
  };

  Decoder(const ModelConfig& config, const Ops& ops, DType activation_dtype)
      : config_(config), ops_(ops), activation_dtype_(activation_dtype) {}
  std::array<ParameterLoader::LinearSpec, 4> LayerSpecs(int index) const;  // of linears()
  int CountResidentLayers(const ParameterLoader& loader, const Device& device,
                          const LayerPlacement& placement) const;
  absl::Status LoadLayer(ParameterLoader& loader, int index, Layer& layer) const;
  void BindVectors(const ParameterLoader& loader);
  int64_t qkv_columns() const {
    return int64_t{config_.heads + 2 * config_.kv_heads} * config_.head_dim;
  }

  std::shared_ptr<WeightCache> cache_;  // what the weights may be mapped from; may be null
  ModelConfig config_;
  const Ops& ops_;
  DType activation_dtype_;
  Buffer vectors_;
  std::unique_ptr<PackedWeight> embedding_;
  std::unique_ptr<PackedWeight> head_;  // null: the embedding table
  std::vector<Layer> layers_;
  size_t final_norm_offset_ = 0, cos_sin_offset_ = 0;
  int max_positions_ = 0;
  int resident_layers_ = 0;
  Tensor final_norm_;  // f32 [hidden]
  Tensor cos_sin_;     // f32 [max_positions, rotary_dim]
};

}  // namespace fairlead
