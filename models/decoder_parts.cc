// SPDX-License-Identifier: Apache-2.0
#include "models/decoder_parts.h"

#include <numeric>

#include "kernels/strings.h"
#include "models/latent_attention.h"

namespace fairlead {
namespace {

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

// gate_proj and up_proj, or the two in one, and down_proj.
void SetMlp(const std::string& prefix, int ffn, const ModelConfig& c, const WeightSource& source,
            ParameterLoader::LinearSpec& gate_up, ParameterLoader::LinearSpec& down) {
  gate_up = {.modules = {prefix + "gate_proj", prefix + "up_proj"},
             .rows = {ffn, ffn},
             .cols = c.hidden,
             .bias = c.mlp_bias};
  if (source.Find(prefix + "gate_up_proj.weight") != nullptr) {
    gate_up.modules = {prefix + "gate_up_proj"};
    gate_up.rows = {2 * int64_t{ffn}};
  }
  down = {.modules = {prefix + "down_proj"}, .rows = {c.hidden}, .cols = ffn, .bias = c.mlp_bias};
}

void SetExperts(const ModelConfig& c, int index, const WeightSource& source,
                LayerLinears& linears) {
  const ExpertsConfig& experts = c.experts;
  const std::string prefix = ExpertsPrefix(c, index);
  linears.router = {
      .modules = {prefix + (experts.names == ExpertNames::kGptOss ? "router" : "gate")},
      .rows = {experts.count},
      .cols = c.hidden,
      .bias = experts.bias};
  if (experts.shared_ffn == 0) return;
  const std::string shared =
      prefix + (experts.names == ExpertNames::kDeepSeek ? "shared_experts" : "shared_expert");
  SetMlp(shared + ".", experts.shared_ffn, c, source, linears.shared_gate_up, linears.shared_down);
  if (!experts.shared_gate) return;
  linears.shared_router = {.modules = {shared + "_gate"}, .rows = {1}, .cols = c.hidden};
}

}  // namespace

std::string LayerPrefix(int index) { return StrCat("model.layers.", index, "."); }

LayerLinears LinearsOf(const ModelConfig& c, int index, const WeightSource& source) {
  const std::string attention = LayerPrefix(index) + "self_attn.";
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
  if (c.is_latent()) SetLatentLinears(c, index, linears);
  if (c.layer[index].experts) {
    SetExperts(c, index, source, linears);
  } else {
    SetMlp(LayerPrefix(index) + "mlp.", c.ffn, c, source, linears.gate_up, linears.down);
  }
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
  if (c.norm_kind == NormKind::kPlainLayer) return vectors;
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
  if (c.layer[index].experts && c.experts.choice_bias) {
    vectors.router_bias = {ExpertsPrefix(c, index) + "gate.e_score_correction_bias",
                           c.experts.count};
  }
  if (c.is_latent()) {
    vectors.kv_down_norm = norm("self_attn.kv_a_layernorm", c.latent.kv_rank);
    if (c.latent.q_rank > 0) {
      vectors.q_down_norm = norm("self_attn.q_a_layernorm", c.latent.q_rank);
    }
  }
  return vectors;
}

VectorSpec FinalNormOf(const ModelConfig& config) {
  if (config.norm_kind == NormKind::kPlainLayer) return {};
  return {.name = "model.norm.weight",
          .size = config.hidden,
          .norm = true,
          .factor = config.logit_scale};
}

int64_t VectorValuesOf(const ModelConfig& c, int index, const WeightSource& source) {
  int64_t values = 0;
  const LayerVectors vectors = VectorsOf(c, index);
  for (const VectorSpec* spec : vectors.all()) values += spec->size;
  const LayerLinears linears = LinearsOf(c, index, source);
  for (const ParameterLoader::LinearSpec* spec : linears.all()) {
    if (spec->bias) values += std::accumulate(spec->rows.begin(), spec->rows.end(), int64_t{0});
  }
  if (!c.layer[index].experts) return values;
  for (const auto& spec : {GateUpExpertsOf(c, index), DownExpertsOf(c, index)}) {
    if (spec.bias) values += static_cast<int64_t>(spec.modules.size()) * spec.count * spec.rows;
  }
  return values;
}

}  // namespace fairlead
