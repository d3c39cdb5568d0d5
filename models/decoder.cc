// SPDX-License-Identifier: Apache-2.0
#include "models/decoder.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "models/latent_attention.h"
#include "models/registry.h"

namespace fairlead {
namespace {

constexpr size_t kAlignment = 64;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The beginning of `t` as rows by columns.
Tensor First(const Tensor& t, int64_t rows, int64_t columns) {
  return Tensor(t.data, t.dtype, {rows, columns});
}

size_t RopeTableBytes(const ModelConfig& config, int max_positions) {
  size_t bytes = 0;
  for (const RopeConfig& rope : config.ropes) {
    bytes += sizeof(float) * max_positions * static_cast<size_t>(rope.rotary_dim);
  }
  return bytes;
}

}  // namespace

size_t Scratch::Bytes(DType dtype, int64_t elements) { return Aligned(RowBytes(dtype, elements)); }

Tensor Scratch::Allocate(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(static_cast<std::byte*>(buffer_.data()) + used_, dtype, dims);
  used_ += Aligned(tensor.bytes());
  FAIRLEAD_CHECK(used_ <= buffer_.bytes());
  return tensor;
}

absl::Status Decoder::LoadVector(ParameterLoader& loader, const VectorSpec& spec,
                                 Vector& vector) const {
  if (spec.name.empty()) return absl::OkStatus();
  auto loaded =
      loader.AddVector(spec.name, spec.size, spec.norm ? config_.norm_offset : 0, spec.factor);
  if (loaded.ok()) vector = {.offset = *loaded, .size = spec.size, .tensor = {}};
  return loaded.status();
}

absl::Status Decoder::LoadLayer(ParameterLoader& loader, const WeightSource& source, int index,
                                Layer& layer) const {
  const bool streamed = index >= resident_layers_;
  absl::Status status;
  const LayerVectors vectors = VectorsOf(config_, index);
  const auto vector_specs = vectors.all();
  const auto targets = layer.vectors();
  static_assert(vector_specs.size() == targets.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    status.Update(LoadVector(loader, *vector_specs[i], *targets[i]));
  }
  const LayerLinears linears = LinearsOf(config_, index, source);
  const auto specs = linears.all();
  const auto loaded_to = layer.linears();
  static_assert(specs.size() == loaded_to.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i]->modules.empty()) continue;
    auto loaded = loader.LoadLinear(*specs[i], streamed);
    if (loaded.ok()) *loaded_to[i] = *std::move(loaded);
    status.Update(loaded.status());
  }
  if (!config_.layer[index].experts) return status;
  auto gate_up = loader.LoadExperts(GateUpExpertsOf(config_, index), streamed);
  if (!gate_up.ok()) return gate_up.status();
  layer.gate_up_experts = *std::move(gate_up);
  auto down = loader.LoadExperts(DownExpertsOf(config_, index), streamed);
  if (!down.ok()) return down.status();
  layer.down_experts = *std::move(down);
  return status;
}

// Of a device that has memory of its own: the first layers, until what they leave is needed for
// what every step takes.
int Decoder::CountResidentLayers(const ParameterLoader& loader, const WeightSource& source,
                                 const Device& device, const LayerPlacement& placement) const {
  if (!device.info().streams_weights) return config_.layers;
  if (placement.resident) return std::min(*placement.resident, config_.layers);
  std::vector<size_t> bytes;
  size_t total = 0, largest = 0;
  int64_t vector_values = FinalNormOf(config_).size;
  for (int i = 0; i < config_.layers; ++i) {
    bytes.push_back(0);
    const auto add = [&](size_t matrix) {
      bytes.back() += matrix;
      largest = std::max(largest, matrix);
    };
    const LayerLinears linears = LinearsOf(config_, i, source);
    for (const auto* spec : linears.all()) add(loader.LinearBytes(*spec));
    if (config_.layer[i].experts) {
      add(loader.ExpertsBytes(GateUpExpertsOf(config_, i)));
      add(loader.ExpertsBytes(DownExpertsOf(config_, i)));
    }
    total += bytes.back();
    vector_values += VectorValuesOf(config_, i, source);
  }
  const size_t vectors =
      RopeTableBytes(config_, max_positions_) + sizeof(float) * static_cast<size_t>(vector_values);
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
  const auto bind = [&](Vector& vector) {
    if (vector.size > 0) vector.tensor = loader.VectorAt(vector.offset, {vector.size});
  };
  bind(final_norm_);
  for (Layer& layer : layers_) {
    for (Vector* vector : layer.vectors()) bind(*vector);
    for (Linear* linear : layer.linears()) loader.Bind(*linear);
    for (Experts* experts : layer.experts()) loader.Bind(*experts);
  }
  for (size_t i = 0; i < config_.ropes.size(); ++i) {
    cos_sin_.push_back(
        loader.VectorAt(cos_sin_offsets_[i], {max_positions_, config_.ropes[i].rotary_dim}));
  }
  cos_sin_.emplace_back(nullptr, DType::kF32, std::initializer_list<int64_t>{max_positions_, 0});
}

absl::Status Decoder::LoadEmbeddings(ParameterLoader& loader) {
  auto embedding = loader.LoadMatrix("model.embed_tokens.weight", config_.vocab, config_.hidden,
                                     /*embedding=*/true);
  if (!embedding.ok()) return embedding.status();
  embedding_ = *std::move(embedding);
  if (config_.tied_head) return absl::OkStatus();
  auto head =
      loader.LoadMatrix("lm_head.weight", config_.vocab, config_.hidden, /*embedding=*/false);
  if (!head.ok()) return head.status();
  head_ = *std::move(head);
  return absl::OkStatus();
}

absl::Status Decoder::AddRopeTables(ParameterLoader& loader, const Device& device) {
  const size_t bytes = RopeTableBytes(config_, max_positions_);
  if (bytes > device.FreeMemory() / 4) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the RoPE table of ", max_positions_, " positions needs ", bytes,
                     " bytes, more than a quarter of what is free; use a smaller --max-model-len"));
  }
  for (const RopeConfig& rope : config_.ropes) {
    cos_sin_offsets_.push_back(loader.AddValues(RopeTable(rope, max_positions_)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const WeightSource& source,
                                                       const ModelConfig& config, Device& device,
                                                       int max_positions,
                                                       std::shared_ptr<WeightCache> cache,
                                                       const LayerPlacement& placement) {
  auto decoder = std::make_unique<Decoder>(config, device);
  ParameterLoader loader(source, device, cache.get());
  decoder->cache_ = std::move(cache);
  // Beside packed weights, small vectors are all that is read.
  const bool packed = decoder->cache_ != nullptr && decoder->cache_->status().ok();
  for (const MmapFile& file : source.files()) file.ReadAhead(!packed);
  decoder->max_positions_ = max_positions;
  absl::Status status = decoder->LoadEmbeddings(loader);
  if (!status.ok()) return status;
  decoder->layers_.resize(static_cast<size_t>(config.layers));
  decoder->resident_layers_ = decoder->CountResidentLayers(loader, source, device, placement);
  for (int i = 0; i < config.layers; ++i) {
    status = decoder->LoadLayer(loader, source, i, decoder->layers_[i]);
    if (!status.ok()) return status;
  }
  status = decoder->LoadVector(loader, FinalNormOf(config), decoder->final_norm_);
  if (!status.ok()) return status;
  status = decoder->AddRopeTables(loader, device);
  if (!status.ok()) return status;
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
    for (const Experts* experts : layer.experts()) total += experts->bytes();
  }
  return total;
}

size_t Decoder::host_weight_bytes() const {
  size_t total = 0;
  for (const Layer& layer : layers_) {
    for (const Linear* linear : layer.linears()) total += linear->host_bytes();
    for (const Experts* experts : layer.experts()) total += experts->host_bytes();
  }
  return total;
}

Decoder::ActivationSpecList Decoder::ActivationSpecs(int64_t tokens) const {
  const ModelConfig& c = config_;
  const DType dtype = activation_dtype_;
  ActivationSpecList specs = {
      {&Activations::x, dtype, tokens, c.hidden},
      {&Activations::normed, dtype, tokens, c.hidden},
      {&Activations::qkv, dtype, tokens, qkv_columns()},
      {&Activations::attended, dtype, tokens, int64_t{c.heads} * c.head_dim}};
  if (c.norms != NormPlacement::kInputs) {
    specs.push_back({&Activations::branch, dtype, tokens, c.hidden});
  }
  const int64_t slots = c.experts.slots;
  int64_t columns = 0;  // a token's, of the widest MLP
  for (const LayerConfig& layer : c.layer) {
    columns = std::max<int64_t>(columns, layer.experts ? slots * c.experts.ffn : c.ffn);
  }
  columns = std::max<int64_t>(columns, c.experts.shared_ffn);
  specs.push_back({&Activations::gate_up, dtype, tokens, 2 * columns});
  specs.push_back({&Activations::gated, dtype, tokens, columns});
  if (c.is_latent()) {
    specs.push_back({&Activations::latent_q, dtype, tokens, c.latent.q_rank});
    specs.push_back({&Activations::latent_kv, dtype, tokens, c.latent.kv_rank + c.latent.rope_dim});
  }
  if (c.experts.count == 0) return specs;
  specs.push_back({&Activations::logits, dtype, tokens, c.experts.count});
  specs.push_back({&Activations::expert, DType::kI32, tokens, slots});
  specs.push_back({&Activations::weight, DType::kF32, tokens, slots});
  specs.push_back({&Activations::down, dtype, tokens * slots, c.hidden});
  return specs;
}

size_t Decoder::ScratchBytes(int max_tokens, int max_rows) const {
  size_t bytes = Aligned(RowBytes(activation_dtype_, int64_t{max_rows} * config_.hidden));
  for (const ActivationSpec& spec : ActivationSpecs(max_tokens)) {
    bytes += Aligned(RowBytes(spec.dtype, spec.rows * spec.columns));
  }
  return bytes;
}

Decoder::Activations Decoder::Allocate(int64_t tokens, Scratch& scratch) const {
  scratch.Reset();
  Activations activations;
  for (const ActivationSpec& spec : ActivationSpecs(tokens)) {
    activations.*spec.tensor = scratch.Allocate(spec.dtype, {spec.rows, spec.columns});
  }
  return activations;
}

// Of the residual stream.
void Decoder::Norm(Stream& stream, const Tensor& x, const Tensor& weight, const Tensor& out) const {
  if (config_.norm_kind == NormKind::kPlainLayer) {
    return ops_.LayerNorm(stream, {.x = x, .out = out, .epsilon = epsilon()});
  }
  ops_.RmsNorm(stream, {.x = x, .weight = weight, .out = out, .epsilon = epsilon()});
}

// What a branch reads: the residual stream, normed where the config norms inputs.
const Tensor& Decoder::Normed(Stream& stream, const Vector& norm, const Activations& a) const {
  if (config_.norms == NormPlacement::kOutputs) return a.x;
  Norm(stream, a.x, norm.tensor, a.normed);
  return a.normed;
}

void Decoder::AddNormed(Stream& stream, const Vector& norm, const Activations& a) const {
  if (norm.size == 0) return;  // the branch has added itself
  ops_.RmsNorm(stream, {.x = a.branch,
                        .weight = norm.tensor,
                        .out = a.x,
                        .epsilon = config_.rms_epsilon,
                        .accumulate = true});
}

void Decoder::Attend(Stream& stream, const Batch& batch, size_t index, const PagedKv& kv,
                     const Activations& a) const {
  const ModelConfig& c = config_;
  const Layer& layer = layers_[index];
  const LayerConfig& features = c.layer[index];
  const Tensor& input = Normed(stream, layer.attention_norm, a);
  if (c.is_latent()) {
    ProjectLatent(stream, layer, input, a);
  } else {
    layer.qkv.Apply(stream, ops_, input, a.qkv);
  }
  const bool each_head = c.qk_norm == QkNorm::kHead;
  if (c.qk_norm == QkNorm::kProjection) {
    RmsNormArgs norm = {
        .x = a.qkv, .weight = layer.q_norm.tensor, .out = a.qkv, .epsilon = c.rms_epsilon};
    ops_.RmsNorm(stream, norm);
    norm.weight = layer.k_norm.tensor;
    norm.column = int64_t{c.heads} * c.head_dim;
    ops_.RmsNorm(stream, norm);
  }
  const Tensor qkv(a.qkv.data, a.qkv.dtype, {a.qkv.dim[0], c.heads + 2 * c.kv_heads, c.head_dim});
  const bool rotates = features.rope != LayerConfig::kNoRope;
  ops_.RopeAndWriteKv(stream, {.qkv = qkv,
                               .position = batch.position,
                               .kv_slot = batch.kv_slot,
                               .cos_sin = rotates ? cos_sin_[features.rope] : cos_sin_.back(),
                               .kv = kv,
                               .heads = c.heads,
                               .pairing = c.ropes[0].pairing,
                               .q_norm = each_head ? layer.q_norm.tensor : Tensor(),
                               .k_norm = each_head ? layer.k_norm.tensor : Tensor(),
                               .norm_epsilon = each_head ? c.rms_epsilon : 0});
  ops_.Attention(stream, {.qkv = qkv,
                          .out = a.attended,
                          .kv = kv,
                          .query_start = batch.query_start,
                          .context_tokens = batch.context_tokens,
                          .block_table = batch.block_table,
                          .heads = c.heads,
                          .scale = c.attention_scale,
                          .window = features.window,
                          .soft_cap = c.attention_soft_cap,
                          .sinks = layer.sinks.tensor});
  const bool normed = layer.attention_out_norm.size > 0;
  layer.attention_out.Apply(stream, ops_, a.attended, normed ? a.branch : a.x, !normed);
  AddNormed(stream, layer.attention_out_norm, a);
}

// The latent vectors of q, where it has one, and of k and v; then all heads.
void Decoder::ProjectLatent(Stream& stream, const Layer& layer, const Tensor& x,
                            const Activations& a) const {
  const LatentConfig& latent = config_.latent;
  const auto norm = [&](const Tensor& t, const Vector& weight) {
    ops_.RmsNorm(
        stream, {.x = t, .weight = weight.tensor, .out = t, .epsilon = LatentConfig::kNormEpsilon});
  };
  if (latent.q_rank > 0) {
    layer.q_down.Apply(stream, ops_, x, a.latent_q);
    norm(a.latent_q, layer.q_down_norm);
  }
  layer.qkv.Apply(stream, ops_, latent.q_rank > 0 ? a.latent_q : x, a.qkv);
  layer.kv_down.Apply(stream, ops_, x, a.latent_kv);
  norm(a.latent_kv, layer.kv_down_norm);  // of the first kv_rank columns, as many as it has weights
  layer.kv.Apply(stream, ops_, a.latent_kv, a.qkv, /*accumulate=*/false,
                 int64_t{config_.heads} * config_.head_dim);
}

void Decoder::RunMlp(Stream& stream, const Layer& layer, const Activations& a) const {
  const Tensor gate_up = First(a.gate_up, a.x.dim[0], 2 * int64_t{config_.ffn});
  const Tensor gated = First(a.gated, a.x.dim[0], config_.ffn);
  layer.gate_up.Apply(stream, ops_, Normed(stream, layer.mlp_norm, a), gate_up);
  ops_.ActivateAndMul(stream, {.x = gate_up,
                               .out = gated,
                               .activation = config_.activation,
                               .limit = config_.activation_limit});
  const bool normed = layer.mlp_out_norm.size > 0;
  layer.down.Apply(stream, ops_, gated, normed ? a.branch : a.x, !normed);
  AddNormed(stream, layer.mlp_out_norm, a);
}

void Decoder::RunExperts(Stream& stream, const Layer& layer, const Activations& a) const {
  const ExpertsConfig& experts = config_.experts;
  const int64_t rows = a.x.dim[0] * experts.slots;
  const Tensor gate_up = First(a.gate_up, rows, 2 * int64_t{experts.ffn});
  const Tensor gated = First(a.gated, rows, experts.ffn);
  const Tensor& input = Normed(stream, layer.mlp_norm, a);
  layer.router.Apply(stream, ops_, input, a.logits);
  ops_.Route(stream, {.logits = a.logits,
                      .expert = a.expert,
                      .weight = a.weight,
                      .normalize = experts.normalize,
                      .scores = experts.scores,
                      .bias = layer.router_bias.tensor,
                      .groups = experts.groups,
                      .chosen_groups = experts.chosen_groups,
                      .group_scores = experts.group_scores,
                      .scale = experts.scale});
  layer.gate_up_experts.Apply(stream, ops_, input, a.expert, gate_up);
  ops_.ActivateAndMul(stream, {.x = gate_up,
                               .out = gated,
                               .activation = config_.activation,
                               .limit = config_.activation_limit});
  layer.down_experts.Apply(stream, ops_, gated, a.expert, a.down);
  const bool normed = layer.mlp_out_norm.size > 0;
  const Tensor& out = normed ? a.branch : a.x;
  ops_.CombineExperts(stream, {.x = a.down, .weight = a.weight, .out = out, .accumulate = !normed});
  if (experts.shared_ffn > 0) RunSharedExpert(stream, layer, input, out, a);
  AddNormed(stream, layer.mlp_out_norm, a);
}

// Added to `out`. With a gate it is a mixture of one expert, whose weight is the gate's sigmoid.
void Decoder::RunSharedExpert(Stream& stream, const Layer& layer, const Tensor& x,
                              const Tensor& out, const Activations& a) const {
  const ExpertsConfig& experts = config_.experts;
  const int64_t tokens = x.dim[0];
  const Tensor gate_up = First(a.gate_up, tokens, 2 * int64_t{experts.shared_ffn});
  const Tensor gated = First(a.gated, tokens, experts.shared_ffn);
  layer.shared_gate_up.Apply(stream, ops_, x, gate_up);
  ops_.ActivateAndMul(stream, {.x = gate_up,
                               .out = gated,
                               .activation = config_.activation,
                               .limit = config_.activation_limit});
  if (!experts.shared_gate) {
    return layer.shared_down.Apply(stream, ops_, gated, out, /*accumulate=*/true);
  }
  const Tensor logit = First(a.logits, tokens, 1), weight = First(a.weight, tokens, 1);
  const Tensor down = First(a.down, tokens, config_.hidden);
  layer.shared_router.Apply(stream, ops_, x, logit);
  ops_.Route(stream, {.logits = logit,
                      .expert = First(a.expert, tokens, 1),
                      .weight = weight,
                      .normalize = false,
                      .scores = RouteArgs::Scores::kSigmoid});
  layer.shared_down.Apply(stream, ops_, gated, down);
  ops_.CombineExperts(stream, {.x = down, .weight = weight, .out = out, .accumulate = true});
}

Tensor Decoder::Forward(Stream& stream, const Batch& batch, absl::Span<const PagedKv> layers,
                        Scratch& scratch) const {
  FAIRLEAD_CHECK(layers.size() == layers_.size());
  const Activations a = Allocate(batch.token.dim[0], scratch);
  ops_.Embed(stream, {.token = batch.token, .table = embedding_.get(), .out = a.x});
  if (const float scale = config_.embedding_scale / config_.residual_scale; scale != 1) {
    ops_.Scale(stream, {.x = a.x, .factor = scale});
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    Attend(stream, batch, i, layers[i], a);
    if (config_.layer[i].experts) {
      RunExperts(stream, layers_[i], a);
    } else {
      RunMlp(stream, layers_[i], a);
    }
  }
  return a.x;
}

void Decoder::Logits(Stream& stream, const Tensor& hidden, const Tensor& row, const Tensor& logits,
                     Scratch& scratch) const {
  const Scratch::Mark mark = scratch.mark();
  const Tensor gathered = scratch.Allocate(activation_dtype_, {row.dim[0], config_.hidden});
  ops_.GatherRows(stream, {.x = hidden, .row = row, .out = gathered});
  FinalNorm(stream, gathered, gathered);
  ops_.Matmul(stream,
              {.x = gathered, .weight = head_ ? head_.get() : embedding_.get(), .out = logits});
  if (config_.logit_soft_cap > 0) {
    ops_.Scale(stream, {.x = logits, .soft_cap = config_.logit_soft_cap});
  }
  scratch.Rewind(mark);
}

void Decoder::FinalNorm(Stream& stream, const Tensor& hidden, const Tensor& out) const {
  Norm(stream, hidden, final_norm_.tensor, out);
}

size_t ScratchBytesOf(const ModelConfig& config, const Device& device, int max_tokens,
                      int max_rows) {
  return Decoder(config, device).ScratchBytes(max_tokens, max_rows);
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const WeightSource& source, Device& device,
                                                 int max_positions,
                                                 std::shared_ptr<WeightCache> cache,
                                                 const LayerPlacement& placement, bool with_head) {
  auto config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  if (!with_head) config->tied_head = true;  // nothing is read for it
  if (!config->is_latent()) {
    return Decoder::Load(source, *config, device, max_positions, std::move(cache), placement);
  }
  const auto made = ExpandLatentWeights(source, *config);
  if (!made.ok()) return made.status();
  return Decoder::Load(**made, *config, device, max_positions, std::move(cache), placement);
}

}  // namespace fairlead
