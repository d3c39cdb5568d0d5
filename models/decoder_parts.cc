// SPDX-License-Identifier: Apache-2.0
#include "models/decoder_parts.h"

#include "kernels/strings.h"

namespace fairlead {
namespace {

std::string LayerPrefix(int index) { return StrCat("model.layers.", index, "."); }

std::string ExpertsPrefix(const ModelConfig& config, int index) {
  return LayerPrefix(index) +
         (config.experts.names == ExpertNames::kMixtral ? "block_sparse_moe." : "mlp.");
}

// Projections "gate_proj", "up_proj", "down_proj" of all experts.
ParameterLoader::ExpertsSpec ExpertsOf(const ModelConfig& config, int index,
                                       std::vector<std::string> projections, int64_t rows,
                                       int64_t cols) {
  const ExpertsConfig& experts = config.experts;
  ParameterLoader::ExpertsSpec spec;
  spec.count = experts.count;
  spec.rows = rows;
  spec.cols = cols;
  spec.bias = experts.bias;
  spec.stacked = experts.names == ExpertNames::kStacked || experts.names == ExpertNames::kGptOss;
  const std::string prefix = ExpertsPrefix(config, index) + "experts.";
  for (std::string& name : projections) {
    if (experts.names == ExpertNames::kMixtral) {
      name = name == "gate_proj" ? "w1" : name == "up_proj" ? "w3" : "w2";
    }
    std::vector<std::string>& modules = spec.modules.emplace_back();
    for (int e = 0; e < (spec.stacked ? 1 : experts.count); ++e) {
      modules.push_back(spec.stacked ? prefix + name : StrCat(prefix, e, ".", name));
    }
  }
  return spec;
}

}  // namespace

LayerLinears LinearsOf(const ModelConfig& c, int index, const WeightSource& source) {
  const std::string attention = LayerPrefix(index) + "self_attn.",
                    mlp = LayerPrefix(index) + "mlp.";
  const int64_t q_rows = int64_t{c.heads} * c.head_dim, kv_rows = int64_t{c.kv_heads} * c.head_dim;
  LayerLinears linears;
  linears.qkv = {.modules = {attention + "q_proj", attention + "k_proj", attention + "v_proj"},
                 .rows = {q_rows, kv_rows, kv_rows},
                 .cols = c.hidden,
                 .bias = c.qkv_bias};
  if (source.Find(attention + "qkv_proj.weight") != nullptr) {
    linears.qkv.modules = {attention + "qkv_proj"};
    linears.qkv.rows = {q_rows + 2 * kv_rows};
  }
  linears.attention_out = {.modules = {attention + "o_proj"},
                           .rows = {c.hidden},
                           .cols = q_rows,
                           .bias = c.attention_out_bias};
  if (c.layer[index].experts) {
    const std::string router = c.experts.names == ExpertNames::kGptOss ? "router" : "gate";
    linears.router = {.modules = {ExpertsPrefix(c, index) + router},
                      .rows = {c.experts.count},
                      .cols = c.hidden,
                      .bias = c.experts.bias};
    return linears;
  }
  linears.gate_up = {.modules = {mlp + "gate_proj", mlp + "up_proj"},
                     .rows = {c.ffn, c.ffn},
                     .cols = c.hidden,
                     .bias = c.mlp_bias};
  if (source.Find(mlp + "gate_up_proj.weight") != nullptr) {
    linears.gate_up.modules = {mlp + "gate_up_proj"};
    linears.gate_up.rows = {2 * int64_t{c.ffn}};
  }
  linears.down = {
      .modules = {mlp + "down_proj"}, .rows = {c.hidden}, .cols = c.ffn, .bias = c.mlp_bias};
  return linears;
}

ParameterLoader::ExpertsSpec GateUpExpertsOf(const ModelConfig& config, int index) {
  return ExpertsOf(config, index, {"gate_proj", "up_proj"}, config.experts.ffn, config.hidden);
}
ParameterLoader::ExpertsSpec DownExpertsOf(const ModelConfig& config, int index) {
  return ExpertsOf(config, index, {"down_proj"}, config.hidden, config.experts.ffn);
}

LayerVectors VectorsOf(const ModelConfig& c, int index) {
  const auto norm = [&](const char* name, int64_t size) {
    return VectorSpec{StrCat(LayerPrefix(index), name, ".weight"), size, true};
  };
  LayerVectors vectors;
  if (c.norms != NormPlacement::kOutputs) {
    vectors.attention_norm = norm("input_layernorm", c.hidden);
    vectors.mlp_norm = norm(
        c.norms == NormPlacement::kBoth ? "pre_feedforward_layernorm" : "post_attention_layernorm",
        c.hidden);
  }
  if (c.norms != NormPlacement::kInputs) {
    vectors.attention_out_norm = norm("post_attention_layernorm", c.hidden);
    vectors.mlp_out_norm = norm("post_feedforward_layernorm", c.hidden);
  }
  if (c.qk_norm != QkNorm::kNone) {
    const bool whole = c.qk_norm == QkNorm::kProjection;
    vectors.q_norm = norm("self_attn.q_norm", int64_t{whole ? c.heads : 1} * c.head_dim);
    vectors.k_norm = norm("self_attn.k_norm", int64_t{whole ? c.kv_heads : 1} * c.head_dim);
  }
  if (c.sinks) vectors.sinks = {LayerPrefix(index) + "self_attn.sinks", c.heads};
  return vectors;
}

}  // namespace fairlead
