// SPDX-License-Identifier: Apache-2.0
#include "models/encoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/rope.h"

namespace fairlead {
namespace {

// What checkpoints call the parts of an encoder, and, after layers and a number, of a layer.
struct PartNames {
  const char *embedding_norm, *layers;
  const char *query, *key, *value, *qkv;  // qkv: the three as one tensor
  const char *attention_out, *attention_norm, *gate, *up, *down, *output_norm;
};
constexpr PartNames kBertParts = {.embedding_norm = "embeddings.LayerNorm",
                                  .layers = "encoder.layer.",
                                  .query = "attention.self.query",
                                  .key = "attention.self.key",
                                  .value = "attention.self.value",
                                  .qkv = "attention.self.qkv",
                                  .attention_out = "attention.output.dense",
                                  .attention_norm = "attention.output.LayerNorm",
                                  .gate = "",
                                  .up = "intermediate.dense",
                                  .down = "output.dense",
                                  .output_norm = "output.LayerNorm"};
constexpr PartNames kNomicParts = {.embedding_norm = "emb_ln",
                                   .layers = "encoder.layers.",
                                   .query = "",
                                   .key = "",
                                   .value = "",
                                   .qkv = "attn.Wqkv",
                                   .attention_out = "attn.out_proj",
                                   .attention_norm = "norm1",
                                   .gate = "mlp.fc12",
                                   .up = "mlp.fc11",
                                   .down = "mlp.fc2",
                                   .output_norm = "norm2"};

const PartNames& PartsOf(const EncoderConfig& config) {
  return config.names == EncoderNames::kBert ? kBertParts : kNomicParts;
}

constexpr std::string_view kWords = "embeddings.word_embeddings.weight";
constexpr std::string_view kPositions = "embeddings.position_embeddings.weight";
constexpr std::string_view kTypes = "embeddings.token_type_embeddings.weight";

// A checkpoint with heads has the encoder under a name.
std::string PrefixOf(const WeightSource& source) {
  for (const char* prefix : {"bert.", "roberta."}) {
    if (source.Find(StrCat(prefix, kWords)) != nullptr) return prefix;
  }
  return "";
}

}  // namespace

absl::Status Encoder::LoadNorm(ParameterLoader& loader, const WeightSource& source,
                               const std::string& name, Norm& norm) const {
  // Checkpoints from TensorFlow's days.
  const bool older = source.Find(name + ".gamma") != nullptr;
  auto weight = loader.AddVector(name + (older ? ".gamma" : ".weight"), config_.hidden);
  if (!weight.ok()) return weight.status();
  auto bias = loader.AddVector(name + (older ? ".beta" : ".bias"), config_.hidden);
  if (!bias.ok()) return bias.status();
  norm.weight_offset = *weight;
  norm.bias_offset = *bias;
  return absl::OkStatus();
}

absl::Status Encoder::LoadTables(ParameterLoader& loader, const std::string& prefix) {
  const auto load = [&](std::string_view name, int rows, std::unique_ptr<PackedWeight>& table) {
    auto loaded = loader.LoadMatrix(StrCat(prefix, name), rows, config_.hidden, /*embedding=*/true);
    if (loaded.ok()) table = *std::move(loaded);
    return loaded.status();
  };
  absl::Status status = load(kWords, config_.vocab, words_);
  if (config_.token_types > 0) status.Update(load(kTypes, config_.token_types, types_));
  if (!config_.rope) {
    const int rows = config_.max_positions + config_.first_position();
    status.Update(load(kPositions, rows, positions_));
  }
  return status;
}

absl::Status Encoder::LoadLayer(ParameterLoader& loader, const WeightSource& source,
                                const std::string& prefix, int index, Layer& layer) const {
  const EncoderConfig& c = config_;
  const PartNames& parts = PartsOf(c);
  const auto name = [&](const char* part) {
    return StrCat(prefix, parts.layers, index, ".", part);
  };
  const int64_t rows = attended_columns();
  ParameterLoader::LinearSpec qkv = {
      .modules = {name(parts.qkv)}, .rows = {3 * rows}, .cols = c.hidden, .bias = c.qkv_bias};
  if (c.names == EncoderNames::kBert && source.Find(qkv.modules[0] + ".weight") == nullptr) {
    qkv.modules = {name(parts.query), name(parts.key), name(parts.value)};
    qkv.rows = {rows, rows, rows};
  }
  ParameterLoader::LinearSpec up = {
      .modules = {name(parts.up)}, .rows = {c.ffn}, .cols = c.hidden, .bias = c.up_bias};
  if (c.gated) {
    up.modules.insert(up.modules.begin(), name(parts.gate));
    up.rows.push_back(c.ffn);
  }
  absl::Status status;
  const auto load = [&](const ParameterLoader::LinearSpec& spec, Linear& linear) {
    if (!status.ok()) return;
    auto loaded = loader.LoadLinear(spec);
    if (loaded.ok()) linear = *std::move(loaded);
    status = loaded.status();
  };
  load(qkv, layer.qkv);
  load({.modules = {name(parts.attention_out)},
        .rows = {c.hidden},
        .cols = rows,
        .bias = c.attention_out_bias},
       layer.attention_out);
  load(up, layer.up);
  load({.modules = {name(parts.down)}, .rows = {c.hidden}, .cols = c.ffn, .bias = c.down_bias},
       layer.down);
  status.Update(LoadNorm(loader, source, name(parts.attention_norm), layer.attention_norm));
  status.Update(LoadNorm(loader, source, name(parts.output_norm), layer.output_norm));
  return status;
}

void Encoder::BindVectors(const ParameterLoader& loader) {
  const auto bind = [&](Norm& norm) {
    norm.weight = loader.VectorAt(norm.weight_offset, {config_.hidden});
    norm.bias = loader.VectorAt(norm.bias_offset, {config_.hidden});
  };
  bind(embedding_norm_);
  for (Layer& layer : layers_) {
    bind(layer.attention_norm);
    bind(layer.output_norm);
    for (Linear* linear : layer.linears()) loader.Bind(*linear);
  }
  if (config_.rope) {
    cos_sin_ = loader.VectorAt(cos_sin_offset_, {cos_sin_.dim[0], cos_sin_.dim[1]});
  }
}

absl::StatusOr<std::unique_ptr<Encoder>> Encoder::Load(const WeightSource& source, Device& device,
                                                       int max_tokens,
                                                       std::shared_ptr<WeightCache> cache) {
  auto config = LoadEncoderConfig(source);
  if (!config.ok()) return config.status();
  std::unique_ptr<Encoder> encoder(
      new Encoder(*config, device.ops(), device.info().activation_dtype));
  ParameterLoader loader(source, device, cache.get());
  encoder->cache_ = std::move(cache);
  const std::string prefix = PrefixOf(source);
  absl::Status status = encoder->LoadTables(loader, prefix);
  if (!status.ok()) return status;
  status = encoder->LoadNorm(loader, source, StrCat(prefix, PartsOf(*config).embedding_norm),
                             encoder->embedding_norm_);
  if (!status.ok()) return status;
  encoder->layers_.resize(static_cast<size_t>(config->layers));
  for (int i = 0; i < config->layers; ++i) {
    status = encoder->LoadLayer(loader, source, prefix, i, encoder->layers_[i]);
    if (!status.ok()) return status;
  }
  const int positions = std::min(config->max_positions, max_tokens) + config->first_position();
  const int rotary_dim = config->rope ? config->rope->rotary_dim : 0;
  encoder->cos_sin_ = Tensor(nullptr, DType::kF32, {positions, rotary_dim});
  if (config->rope)
    encoder->cos_sin_offset_ = loader.AddValues(RopeTable(*config->rope, positions));
  auto vectors = loader.Upload();
  if (!vectors.ok()) return vectors.status();
  encoder->vectors_ = *std::move(vectors);
  encoder->BindVectors(loader);
  auto zeros = device.Allocate(sizeof(int32_t) * static_cast<size_t>(max_tokens));
  if (!zeros.ok()) return zeros.status();
  encoder->zeros_ = *std::move(zeros);
  return encoder;
}

void Encoder::AppendPositions(absl::Span<const Token> text, std::vector<int32_t>& positions) const {
  if (!config_.padding) return EmbeddingModel::AppendPositions(text, positions);
  // As transformers' create_position_ids_from_input_ids.
  int next = config_.first_position();
  for (const Token token : text) {
    positions.push_back(token == *config_.padding ? *config_.padding : next++);
  }
}

size_t Encoder::weight_bytes() const {
  size_t total = vectors_.bytes();
  for (const auto* table : {&words_, &positions_, &types_}) {
    if (*table != nullptr) total += (*table)->bytes();
  }
  for (const Layer& layer : layers_) {
    for (const Linear* linear : layer.linears()) total += linear->bytes();
  }
  return total;
}

size_t Encoder::ScratchBytes(int max_tokens) const {
  size_t bytes = 0;
  for (const int64_t columns : {int64_t{config_.hidden}, 3 * attended_columns(), attended_columns(),
                                up_columns(), int64_t{config_.gated ? config_.ffn : 0}}) {
    bytes += Scratch::Bytes(activation_dtype_, max_tokens * columns);
  }
  return bytes;
}

Encoder::Activations Encoder::Allocate(int64_t tokens, Scratch& scratch) const {
  scratch.Reset();
  const auto allocate = [&](int64_t columns) {
    return scratch.Allocate(activation_dtype_, {tokens, columns});
  };
  Activations a;
  a.x = allocate(config_.hidden);
  a.qkv = allocate(3 * attended_columns());
  a.attended = allocate(attended_columns());
  a.up = allocate(up_columns());
  a.gated = config_.gated ? allocate(config_.ffn) : a.up;
  return a;
}

void Encoder::Normalize(Stream& stream, const Norm& norm, const Tensor& x) const {
  ops_.LayerNorm(
      stream,
      {.x = x, .weight = norm.weight, .bias = norm.bias, .out = x, .epsilon = config_.epsilon});
}

void Encoder::Embed(Stream& stream, const Batch& batch, const Tensor& x) const {
  ops_.Embed(stream, {.token = batch.token, .table = words_.get(), .out = x});
  if (types_ != nullptr) {
    // Of a text on its own, all tokens have the type 0.
    FAIRLEAD_CHECK(batch.token.bytes() <= zeros_.bytes());
    const Tensor zeros(zeros_.data(), DType::kI32, {batch.token.dim[0]});
    ops_.Embed(stream, {.token = zeros, .table = types_.get(), .out = x, .accumulate = true});
  }
  if (positions_ != nullptr) {
    ops_.Embed(stream,
               {.token = batch.position, .table = positions_.get(), .out = x, .accumulate = true});
  }
  Normalize(stream, embedding_norm_, x);
}

void Encoder::Attend(Stream& stream, const Batch& batch, const Layer& layer, const PagedKv& kv,
                     const Activations& a) const {
  const EncoderConfig& c = config_;
  layer.qkv.Apply(stream, ops_, a.x, a.qkv);
  const Tensor qkv(a.qkv.data, a.qkv.dtype, {a.qkv.dim[0], 3 * c.heads, c.head_dim});
  ops_.RopeAndWriteKv(stream, {.qkv = qkv,
                               .position = batch.position,
                               .kv_slot = batch.kv_slot,
                               .cos_sin = cos_sin_,
                               .kv = kv,
                               .heads = c.heads,
                               .pairing = c.rope ? c.rope->pairing : RopePairing::kHalves});
  ops_.Attention(stream, {.qkv = qkv,
                          .out = a.attended,
                          .kv = kv,
                          .query_start = batch.query_start,
                          .context_tokens = batch.context_tokens,
                          .block_table = batch.block_table,
                          .heads = c.heads,
                          .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                          .causal = false});
  layer.attention_out.Apply(stream, ops_, a.attended, a.x, /*accumulate=*/true);
  Normalize(stream, layer.attention_norm, a.x);
}

void Encoder::RunMlp(Stream& stream, const Layer& layer, const Activations& a) const {
  layer.up.Apply(stream, ops_, a.x, a.up);
  ops_.ActivateAndMul(
      stream,
      {.x = a.up, .out = a.gated, .activation = config_.activation, .gated = config_.gated});
  layer.down.Apply(stream, ops_, a.gated, a.x, /*accumulate=*/true);
  Normalize(stream, layer.output_norm, a.x);
}

Tensor Encoder::HiddenStates(Stream& stream, const Batch& batch, const PagedKv& kv,
                             Scratch& scratch) const {
  const Activations a = Allocate(batch.token.dim[0], scratch);
  Embed(stream, batch, a.x);
  for (const Layer& layer : layers_) {
    Attend(stream, batch, layer, kv, a);
    RunMlp(stream, layer, a);
  }
  return a.x;
}

}  // namespace fairlead
