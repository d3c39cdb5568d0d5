// SPDX-License-Identifier: Apache-2.0
#include "bench/gguf/llama_gguf.h"

#include <string_view>
#include <utility>
#include <vector>

#include "bench/gguf/gguf_writer.h"
#include "kernels/strings.h"
#include "models/gguf_names.h"
#include "models/registry.h"

namespace fairlead::bench {
namespace {

using Pieces = std::vector<absl::Span<const std::byte>>;

// Row (head, i, half) of the file is row (head, half, i) of the source.
Pieces PermutedRows(const WeightInfo& tensor, int heads) {
  const int64_t rows = tensor.dim[0], half = rows / heads / 2;
  const size_t row_bytes = tensor.bytes / static_cast<size_t>(rows);
  Pieces pieces;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / (2 * half), i = row % (2 * half) / 2;
    const int64_t from = head * 2 * half + row % 2 * half + i;
    pieces.emplace_back(tensor.data + static_cast<size_t>(from) * row_bytes, row_bytes);
  }
  return pieces;
}

class LlamaExport {
 public:
  LlamaExport(const WeightSource& source, const ModelConfig& config)
      : source_(source), config_(config) {}

  void AddMetadata(const std::string& name) {
    writer_.AddValue("general.architecture", "llama");
    writer_.AddValue("general.name", name);
    writer_.AddValue("general.quantization_version", 2u);
    const auto add = [this](const char* key, int value) {
      writer_.AddValue(StrCat("llama.", key), static_cast<uint32_t>(value));
    };
    add("context_length", config_.max_positions);
    add("embedding_length", config_.hidden);
    add("block_count", config_.layers);
    add("feed_forward_length", config_.ffn);
    add("attention.head_count", config_.heads);
    add("attention.head_count_kv", config_.kv_heads);
    add("attention.key_length", config_.head_dim);
    add("attention.value_length", config_.head_dim);
    add("rope.dimension_count", config_.ropes[0].rotary_dim);
    add("vocab_size", config_.vocab);
    writer_.AddValue("llama.attention.layer_norm_rms_epsilon", config_.rms_epsilon);
    writer_.AddValue("llama.rope.freq_base", static_cast<float>(config_.ropes[0].theta));
    if (config_.ropes[0].scaling == RopeScaling::kLinear) {
      writer_.AddValue("llama.rope.scaling.type", "linear");
      writer_.AddValue("llama.rope.scaling.factor", static_cast<float>(config_.ropes[0].factor));
    }
    writer_.AddValue("tokenizer.ggml.model", "none");
  }

  void AddTensors() {
    Add("token_embd", 0);
    Add("output_norm", 0);
    if (!config_.tied_head) Add("output", 0);
    if (config_.ropes[0].scaling == RopeScaling::kLlama3) AddRopeDivisors();
    for (int i = 0; i < config_.layers; ++i) {
      const auto add = [&](std::string_view name, int permuted_heads) {
        Add(StrCat("blk.", i, ".", name), permuted_heads);
      };
      add("attn_norm", 0);
      add("attn_q", config_.heads);
      add("attn_k", config_.kv_heads);
      add("attn_v", 0);
      add("attn_output", 0);
      add("ffn_norm", 0);
      add("ffn_gate", 0);
      add("ffn_up", 0);
      add("ffn_down", 0);
    }
  }

  absl::Status Write(const std::string& path) const {
    if (!missing_.empty()) {
      return absl::InvalidArgumentError(
          StrCat(source_.path(), ": there is no tensor \"", missing_, "\""));
    }
    return writer_.Write(path);
  }

 private:
  void Add(const std::string& stem, int permuted_heads) {
    for (const char* suffix : {".weight", ".bias"}) {
      const std::string name = stem + suffix;
      const std::string source_name = HfTensorName(name);
      const WeightInfo* tensor = source_.Find(source_name);
      if (tensor == nullptr) {
        if (name.ends_with(".weight")) missing_ = source_name;
        continue;
      }
      Pieces pieces = {{tensor->data, tensor->bytes}};
      if (permuted_heads > 0) pieces = PermutedRows(*tensor, permuted_heads);
      writer_.AddTensor(name, tensor->dtype, tensor->dim, std::move(pieces));
    }
  }

  void AddRopeDivisors() {
    RopeConfig unscaled = config_.ropes[0];
    unscaled.scaling = RopeScaling::kNone;
    rope_divisors_ = RopeInverseFrequencies(unscaled);
    const std::vector<float> scaled = RopeInverseFrequencies(config_.ropes[0]);
    for (size_t i = 0; i < scaled.size(); ++i) rope_divisors_[i] /= scaled[i];
    const auto* data = reinterpret_cast<const std::byte*>(rope_divisors_.data());
    writer_.AddTensor("rope_freqs.weight", DType::kF32,
                      {static_cast<int64_t>(rope_divisors_.size())},
                      {{data, rope_divisors_.size() * sizeof(float)}});
  }

  const WeightSource& source_;
  const ModelConfig& config_;
  GgufWriter writer_;
  std::vector<float> rope_divisors_;
  std::string missing_;
};

}  // namespace

absl::Status WriteLlamaGguf(const WeightSource& source, const std::string& name,
                            const std::string& path) {
  if (source.format() != WeightFormat::kSafetensors) {
    return absl::InvalidArgumentError(
        StrCat(source.path(), ": is a GGUF file already; a model folder is needed"));
  }
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::string> architecture = ArchitectureName(source);
  if (!architecture.ok()) return architecture.status();
  if (*architecture != "LlamaForCausalLM" && *architecture != "MistralForCausalLM") {
    return absl::UnimplementedError(StrCat(source.path(), ": architecture ", *architecture,
                                           "; known: LlamaForCausalLM, MistralForCausalLM"));
  }
  const RopeConfig& rope = config->ropes[0];
  if (rope.rotary_dim != config->head_dim) {
    return absl::InvalidArgumentError(StrCat(source.path(), ": ", rope.rotary_dim, " of ",
                                             config->head_dim,
                                             " elements of a head rotate; all of them must"));
  }
  if (rope.scaling == RopeScaling::kYarn || rope.scaling == RopeScaling::kLongRope) {
    return absl::UnimplementedError(
        StrCat(source.path(), ": RoPE scaling other than linear and llama3"));
  }
  LlamaExport exporter(source, *config);
  exporter.AddMetadata(name);
  exporter.AddTensors();
  return exporter.Write(path);
}

}  // namespace fairlead::bench
