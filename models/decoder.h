// SPDX-License-Identifier: Apache-2.0
// The Llama-shaped decoder: attention and a gated MLP or experts, each added to the residual stream
// (Touvron et al., arXiv 2302.13971), with whatever features its config has. Forward reads top to
// bottom.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "models/decoder_parts.h"
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
  // Without weights: for its sizes alone.
  Decoder(const ModelConfig& config, const Device& device)
      : config_(config), ops_(device.ops()), activation_dtype_(device.info().activation_dtype) {}
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
  void FinalNorm(Stream& stream, const Tensor& hidden, const Tensor& out) const override;

 private:
  // A vector of values, absent where the config has none.
  struct Vector {
    size_t offset = 0;
    int64_t size = 0;
    Tensor tensor;  // f32 [size]
  };
  struct Layer {
    Linear qkv, attention_out;
    Linear gate_up, down;  // where there are no experts
    Linear router;         // else these
    Experts gate_up_experts, down_experts;
    Linear shared_gate_up, shared_down, shared_router;
    Linear q_down, kv_down, kv;  // of latent attention, whose qkv is q alone
    // In the order of LayerLinears and LayerVectors.
    auto linears() {
      return std::array{&qkv,         &attention_out, &gate_up, &down,    &router, &shared_gate_up,
                        &shared_down, &shared_router, &q_down,  &kv_down, &kv};
    }
    auto linears() const {
      return std::array{&qkv,         &attention_out, &gate_up, &down,    &router, &shared_gate_up,
                        &shared_down, &shared_router, &q_down,  &kv_down, &kv};
    }
    std::array<Experts*, 2> experts() { return {&gate_up_experts, &down_experts}; }
    std::array<const Experts*, 2> experts() const { return {&gate_up_experts, &down_experts}; }
    Vector attention_norm, attention_out_norm, mlp_norm, mlp_out_norm, q_norm, k_norm, sinks;
    Vector router_bias, q_down_norm, kv_down_norm;
    auto vectors() {
      return std::array{
          &attention_norm, &attention_out_norm, &mlp_norm,    &mlp_out_norm, &q_norm, &k_norm,
          &sinks,          &router_bias,        &q_down_norm, &kv_down_norm};
    }
  };
  // Activations of a step.
  struct Activations {
    Tensor x;         // [tokens, hidden], the residual stream
    Tensor normed;    // [tokens, hidden]
    Tensor branch;    // [tokens, hidden], before it is normed and added
    Tensor qkv;       // [tokens, columns]
    Tensor attended;  // [tokens, heads * head_dim]
    Tensor gate_up, gated;
    Tensor logits, expert, weight;  // of the router
    Tensor down;                    // [tokens * slots, hidden]
    Tensor latent_q, latent_kv;     // [tokens, q_rank], [tokens, kv_rank + rope_dim]
  };

  int CountResidentLayers(const ParameterLoader& loader, const WeightSource& source,
                          const Device& device, const LayerPlacement& placement) const;
  absl::Status LoadEmbeddings(ParameterLoader& loader);
  absl::Status LoadLayer(ParameterLoader& loader, const WeightSource& source, int index,
                         Layer& layer) const;
  absl::Status LoadVector(ParameterLoader& loader, const VectorSpec& spec, Vector& vector) const;
  absl::Status AddRopeTables(ParameterLoader& loader, const Device& device);
  void BindVectors(const ParameterLoader& loader);
  struct ActivationSpec {
    Tensor Activations::*tensor;
    DType dtype;
    int64_t rows, columns;
  };
  // Of every step, which allocates nothing.
  using ActivationSpecList = absl::InlinedVector<ActivationSpec, 16>;
  ActivationSpecList ActivationSpecs(int64_t tokens) const;
  Activations Allocate(int64_t tokens, Scratch& scratch) const;
  void Attend(Stream& stream, const Batch& batch, size_t index, const PagedKv& kv,
              const Activations& a) const;
  void ProjectLatent(Stream& stream, const Layer& layer, const Tensor& x,
                     const Activations& a) const;
  void RunMlp(Stream& stream, const Layer& layer, const Activations& a) const;
  void RunExperts(Stream& stream, const Layer& layer, const Activations& a) const;
  void RunSharedExpert(Stream& stream, const Layer& layer, const Tensor& x, const Tensor& out,
                       const Activations& a) const;
  void Norm(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& out) const;
  const Tensor& Normed(Stream& stream, const Vector& norm, const Activations& a) const;
  void AddNormed(Stream& stream, const Vector& norm, const Activations& a) const;
  // Of the norms of the residual stream, which is kept divided by residual_scale: then what is
  // added to it need not be scaled, and x / sqrt(mean(x^2) + e) is the same for x / s and e / s^2.
  float epsilon() const {
    return config_.rms_epsilon / (config_.residual_scale * config_.residual_scale);
  }
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
  Vector final_norm_;  // absent where norms have no weights
  std::vector<size_t> cos_sin_offsets_;
  int max_positions_ = 0;
  int resident_layers_ = 0;
  // f32 [max_positions, rotary_dim] of each of the config's ropes, and one of none.
  std::vector<Tensor> cos_sin_;
};

}  // namespace fairlead
