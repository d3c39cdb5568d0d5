// SPDX-License-Identifier: Apache-2.0
// Encoders of BERT's shape: every token sees the whole sequence, and each layer norms the sums of
// its input and attention, and of that and the MLP. HiddenStates reads top to bottom.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "models/embedding_model.h"
#include "models/encoder_config.h"
#include "models/parameters.h"

namespace fairlead {

class Encoder : public EmbeddingModel {
 public:
  // `source` may be dropped afterwards. max_tokens: of the largest batch. `cache`: packed weights
  // from an earlier start; null packs them all. Errors: LoadEncoderConfig's; missing or misshapen
  // tensors by name.
  static absl::StatusOr<std::unique_ptr<Encoder>> Load(
      const WeightSource& source, Device& device, int max_tokens,
      std::shared_ptr<WeightCache> cache = nullptr);
  ~Encoder() override {
    if (cache_ != nullptr) cache_->StopStoring();
  }

  const EncoderConfig& config() const { return config_; }
  int hidden() const override { return config_.hidden; }
  int vocab() const override { return config_.vocab; }
  int max_positions() const override { return config_.max_positions; }
  size_t weight_bytes() const override;
  KvShape kv_shape(int block_tokens) const override {
    return {.kv_heads = config_.heads, .head_dim = config_.head_dim, .block_tokens = block_tokens};
  }
  size_t ScratchBytes(int max_tokens) const override;
  void AppendPositions(absl::Span<const Token> text,
                       std::vector<int32_t>& positions) const override;
  Tensor HiddenStates(Stream& stream, const Batch& batch, const PagedKv& kv,
                      Scratch& scratch) const override;

 private:
  struct Norm {
    size_t weight_offset = 0, bias_offset = 0;
    Tensor weight, bias;  // f32 [hidden]
  };
  struct Layer {
    Linear qkv, attention_out, up, down;  // up: the gate's rows first, where there is one
    Norm attention_norm, output_norm;
    std::array<Linear*, 4> linears() { return {&qkv, &attention_out, &up, &down}; }
    std::array<const Linear*, 4> linears() const { return {&qkv, &attention_out, &up, &down}; }
  };
  struct Activations {
    Tensor x;         // [tokens, hidden]
    Tensor qkv;       // [tokens, 3 * heads * head_dim]
    Tensor attended;  // [tokens, heads * head_dim]
    Tensor up;        // [tokens, ffn], or gate and up beside each other
    Tensor gated;     // [tokens, ffn]; without a gate, up
  };

  Encoder(const EncoderConfig& config, const Ops& ops, DType activation_dtype)
      : config_(config), ops_(ops), activation_dtype_(activation_dtype) {}
  absl::Status LoadTables(ParameterLoader& loader, const std::string& prefix);
  absl::Status LoadLayer(ParameterLoader& loader, const WeightSource& source,
                         const std::string& prefix, int index, Layer& layer) const;
  absl::Status LoadNorm(ParameterLoader& loader, const WeightSource& source,
                        const std::string& name, Norm& norm) const;
  void BindVectors(const ParameterLoader& loader);
  Activations Allocate(int64_t tokens, Scratch& scratch) const;
  void Embed(Stream& stream, const Batch& batch, const Tensor& x) const;
  void Attend(Stream& stream, const Batch& batch, const Layer& layer, const PagedKv& kv,
              const Activations& a) const;
  void RunMlp(Stream& stream, const Layer& layer, const Activations& a) const;
  void Normalize(Stream& stream, const Norm& norm, const Tensor& x) const;
  int64_t attended_columns() const { return int64_t{config_.heads} * config_.head_dim; }
  int64_t up_columns() const { return int64_t{config_.ffn} * (config_.gated ? 2 : 1); }

  std::shared_ptr<WeightCache> cache_;  // what the weights may be mapped from; may be null
  EncoderConfig config_;
  const Ops& ops_;
  DType activation_dtype_;
  Buffer vectors_;
  Buffer zeros_;                                             // i32, a batch's token types
  std::unique_ptr<PackedWeight> words_, positions_, types_;  // null: none
  Norm embedding_norm_;
  std::vector<Layer> layers_;
  size_t cos_sin_offset_ = 0;
  Tensor cos_sin_;  // f32 [positions, rotary_dim], or of no columns
};

}  // namespace fairlead
