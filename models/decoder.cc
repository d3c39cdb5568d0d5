// SPDX-License-Identifier: Apache-2.0
#include "models/decoder.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "models/registry.h"

namespace fairlead {
namespace {

constexpr size_t kAlignment = 64;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// cos and sin of position * frequency, the product rounded to f32 as transformers does
// (modeling_llama.py, LlamaRotaryEmbedding.forward).
std::vector<float> CosSinTable(const ModelConfig& config, int max_positions) {
  const std::vector<float> frequency = RopeInverseFrequencies(config);
  const size_t half = frequency.size();
  std::vector<float> table(static_cast<size_t>(max_positions) * 2 * half);
  for (int position = 0; position < max_positions; ++position) {
    float* row = table.data() + static_cast<size_t>(position) * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequency[i];
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

std::string LayerPrefix(int index) { return absl::StrCat("model.layers.", index, "."); }

}  // namespace

Tensor Scratch::Allocate(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(static_cast<std::byte*>(buffer_.data()) + used_, dtype, dims);
  used_ += Aligned(tensor.bytes());
  FAIRLEAD_CHECK(used_ <= buffer_.bytes());
  return tensor;
}

std::array<ParameterLoader::LinearSpec, 4> Decoder::LayerSpecs(int index) const {
  const ModelConfig& c = config_;
  const std::string prefix = LayerPrefix(index);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int64_t q_rows = int64_t{c.heads} * c.head_dim, kv_rows = int64_t{c.kv_heads} * c.head_dim;
  return {
      {{.modules = {attention + "q_proj", attention + "k_proj", attention + "v_proj"},
        .rows = {q_rows, kv_rows, kv_rows},
        .cols = c.hidden,
        .bias = c.qkv_bias},
       {.modules = {attention + "o_proj"},
        .rows = {c.hidden},
        .cols = q_rows,
        .bias = c.attention_out_bias},
       {.modules = {mlp + "gate_proj", mlp + "up_proj"},
        .rows = {c.ffn, c.ffn},
        .cols = c.hidden,
        .bias = c.mlp_bias},
       {.modules = {mlp + "down_proj"}, .rows = {c.hidden}, .cols = c.ffn, .bias = c.mlp_bias}}};
}

absl::Status Decoder::LoadLayer(ParameterLoader& loader, int index, Layer& layer) const {
  const auto load_norm = [&](size_t& offset, const std::string& name) {
    auto loaded = loader.AddVector(LayerPrefix(index) + name, config_.hidden);
    if (loaded.ok()) offset = *loaded;
    return loaded.status();
  };
  absl::Status status = load_norm(layer.attention_norm_offset, "input_layernorm.weight");
  status.Update(load_norm(layer.mlp_norm_offset, "post_attention_layernorm.weight"));
  const auto specs = LayerSpecs(index);
  const std::array<Linear*, 4> linears = layer.linears();
  for (size_t i = 0; i < specs.size(); ++i) {
    auto loaded = loader.LoadLinear(specs[i], /*streamed=*/index >= resident_layers_);
    if (loaded.ok()) *linears[i] = *std::move(loaded);
    status.Update(loaded.status());
  }
  return status;
}

// Of a device that has memory of its own: the first layers, until what they leave is needed for
// what every step takes.
int Decoder::CountResidentLayers(const ParameterLoader& loader, const Device& device,
                                 const LayerPlacement& placement) const {
  if (!device.info().streams_weights) return config_.layers;
  if (placement.resident) return std::min(*placement.resident, config_.layers);
  std::vector<size_t> bytes;
  size_t total = 0, largest = 0;
  for (int i = 0; i < config_.layers; ++i) {
    bytes.push_back(0);
    for (const auto& spec : LayerSpecs(i)) {
      const size_t linear = loader.LinearBytes(spec);
      bytes.back() += linear;
      largest = std::max(largest, linear);
    }
    total += bytes.back();
  }
  const size_t vectors = sizeof(float) * (static_cast<size_t>(max_positions_) *
                                              static_cast<size_t>(config_.rope.rotary_dim) +
                                          static_cast<size_t>(config_.layers) * 2 * config_.hidden);
  const size_t kept =
      placement.kept_bytes + vectors +
      (placement.max_tokens > 0 ? ScratchBytes(placement.max_tokens, placement.max_rows) : 0);
  const size_t free = device.FreeMemory();
  size_t left = free - std::min(free, kept);
  if (total <= left) return config_.layers;
  left -= std::min(left, 2 * largest);  // two at a time pass through
  int resident = 0;
  while (resident < config_.layers && bytes[resident] <= left) left -= bytes[resident++];
  return resident;
}

void Decoder::BindVectors(const ParameterLoader& loader) {
  for (Layer& layer : layers_) {
    layer.attention_norm = loader.VectorAt(layer.attention_norm_offset, {config_.hidden});
    layer.mlp_norm = loader.VectorAt(layer.mlp_norm_offset, {config_.hidden});
    for (Linear* linear : layer.linears()) loader.Bind(*linear);
  }
  final_norm_ = loader.VectorAt(final_norm_offset_, {config_.hidden});
  cos_sin_ = loader.VectorAt(cos_sin_offset_, {max_positions_, config_.rope.rotary_dim});
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const WeightSource& source,
                                                       const ModelConfig& config, Device& device,
                                                       int max_positions,
                                                       std::shared_ptr<WeightCache> cache,
                                                       const LayerPlacement& placement) {
  std::unique_ptr<Decoder> decoder(
      new Decoder(config, device.ops(), device.info().activation_dtype));
  ParameterLoader loader(source, device, cache.get());
  decoder->cache_ = std::move(cache);
  auto embedding = loader.LoadMatrix("model.embed_tokens.weight", config.vocab, config.hidden,
                                     /*embedding=*/true);
  if (!embedding.ok()) return embedding.status();
  decoder->embedding_ = *std::move(embedding);
  if (!config.tied_head) {
    auto head =
        loader.LoadMatrix("lm_head.weight", config.vocab, config.hidden, /*embedding=*/false);
    if (!head.ok()) return head.status();
    decoder->head_ = *std::move(head);
  }
  const size_t table_bytes =
      sizeof(float) * max_positions * static_cast<size_t>(config.rope.rotary_dim);
  if (table_bytes > device.FreeMemory() / 4) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the RoPE table of ", max_positions, " positions needs ", table_bytes,
                     " bytes, more than a quarter of what is free; use a smaller --max-model-len"));
  }
  decoder->layers_.resize(static_cast<size_t>(config.layers));
  decoder->max_positions_ = max_positions;
  decoder->resident_layers_ = decoder->CountResidentLayers(loader, device, placement);
  for (int i = 0; i < config.layers; ++i) {
    if (absl::Status status = decoder->LoadLayer(loader, i, decoder->layers_[i]); !status.ok())
      return status;
  }
  auto final_norm = loader.AddVector("model.norm.weight", config.hidden);
  if (!final_norm.ok()) return final_norm.status();
  decoder->final_norm_offset_ = *final_norm;
  decoder->cos_sin_offset_ = loader.AddValues(CosSinTable(config, max_positions));
  auto vectors = loader.Upload();
  if (!vectors.ok()) return vectors.status();
  decoder->vectors_ = *std::move(vectors);
  decoder->BindVectors(loader);
  return decoder;
}

size_t Decoder::weight_bytes() const {
  size_t total = vectors_.bytes() + embedding_->bytes() + (head_ ? head_->bytes() : 0);
  for (const Layer& layer : layers_) {
    for (const Linear* linear : layer.linears()) total += linear->bytes();
  }
  return total;
}

size_t Decoder::host_weight_bytes() const {
  size_t total = 0;
  for (const Layer& layer : layers_) {
    for (const Linear* linear : layer.linears()) total += linear->host_bytes();
  }
  return total;
}

size_t Decoder::ScratchBytes(int max_tokens, int max_rows) const {
  const auto bytes = [&](int64_t rows, int64_t columns) {
    return Aligned(RowBytes(activation_dtype_, rows * columns));
  };
  const int64_t tokens = max_tokens;
  return 2 * bytes(tokens, config_.hidden) + bytes(tokens, qkv_columns()) +
         bytes(tokens, int64_t{config_.heads} * config_.head_dim) +
         bytes(tokens, 2 * int64_t{config_.ffn}) + bytes(tokens, config_.ffn) +
         bytes(max_rows, config_.hidden);
}

Tensor Decoder::Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                        Scratch& scratch) const {
  FAIRLEAD_CHECK(layers.size() == layers_.size());
  const ModelConfig& c = config_;
  const int64_t tokens = batch.token.dim[0];
  const int64_t qkv_heads = c.heads + 2 * c.kv_heads;
  scratch.Reset();
  const Tensor x = scratch.Allocate(activation_dtype_, {tokens, c.hidden});  // the residual stream
  const Tensor normed = scratch.Allocate(activation_dtype_, {tokens, c.hidden});
  const Tensor qkv = scratch.Allocate(activation_dtype_, {tokens, qkv_columns()});
  const Tensor attended =
      scratch.Allocate(activation_dtype_, {tokens, int64_t{c.heads} * c.head_dim});
  const Tensor gate_up = scratch.Allocate(activation_dtype_, {tokens, 2 * int64_t{c.ffn}});
  const Tensor gated = scratch.Allocate(activation_dtype_, {tokens, c.ffn});
  const Tensor qkv_by_head(qkv.data, qkv.dtype, {tokens, qkv_heads, c.head_dim});
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));

  ops_.Embed(stream, {.token = batch.token, .table = embedding_.get(), .out = x});
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    ops_.RmsNorm(stream,
                 {.x = x, .weight = layer.attention_norm, .out = normed, .epsilon = c.rms_epsilon});
    layer.qkv.Apply(stream, ops_, normed, qkv);
    ops_.RopeAndWriteKv(stream, {.qkv = qkv_by_head,
                                 .position = batch.position,
                                 .kv_slot = batch.kv_slot,
                                 .cos_sin = cos_sin_,
                                 .kv = layers[i],
                                 .heads = c.heads,
                                 .pairing = c.rope.pairing});
    ops_.Attention(stream, {.qkv = qkv_by_head,
                            .out = attended,
                            .kv = layers[i],
                            .query_start = batch.query_start,
                            .context_tokens = batch.context_tokens,
                            .block_table = batch.block_table,
                            .heads = c.heads,
                            .scale = scale});
    layer.attention_out.Apply(stream, ops_, attended, x, /*accumulate=*/true);
    ops_.RmsNorm(stream,
                 {.x = x, .weight = layer.mlp_norm, .out = normed, .epsilon = c.rms_epsilon});
    layer.gate_up.Apply(stream, ops_, normed, gate_up);
    ops_.ActivateAndMul(stream, {.x = gate_up, .out = gated, .activation = c.activation});
    layer.down.Apply(stream, ops_, gated, x, /*accumulate=*/true);
  }
  return x;
}

void Decoder::Logits(Stream& stream, const Tensor& hidden, const Tensor& row, const Tensor& logits,
                     Scratch& scratch) const {
  const Scratch::Mark mark = scratch.mark();
  const Tensor gathered = scratch.Allocate(activation_dtype_, {row.dim[0], config_.hidden});
  ops_.GatherRows(stream, {.x = hidden, .row = row, .out = gathered});
  ops_.RmsNorm(
      stream,
      {.x = gathered, .weight = final_norm_, .out = gathered, .epsilon = config_.rms_epsilon});
  ops_.Matmul(stream,
              {.x = gathered, .weight = head_ ? head_.get() : embedding_.get(), .out = logits});
  scratch.Rewind(mark);
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const WeightSource& source, Device& device,
                                                 int max_positions,
                                                 std::shared_ptr<WeightCache> cache,
                                                 const LayerPlacement& placement) {
  auto config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  return Decoder::Load(source, *config, device, max_positions, std::move(cache), placement);
}

}  // namespace fairlead
