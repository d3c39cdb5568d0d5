// SPDX-License-Identifier: Apache-2.0
#include "server/commands/inspect_features.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include "absl/strings/str_format.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

using Lines = std::vector<std::string>;

std::string Number(double value) {
  constexpr double kExact = 1e15;
  if (std::abs(value) < kExact && value == std::floor(value)) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%g", value);
}

// " in all 4 layers", " in 3 of 4 layers".
std::string InLayers(int64_t count, const ModelConfig& config) {
  if (count == config.layers) return StrCat(" in all ", count, " layers");
  return StrCat(" in ", count, " of ", config.layers, " layers");
}

template <typename Has>
int64_t CountLayers(const ModelConfig& config, Has has) {
  return std::count_if(config.layer.begin(), config.layer.end(), has);
}

void NoteBiases(const ModelConfig& config, Lines& lines) {
  if (config.qkv_bias) lines.push_back("the q, k and v projections have biases");
  if (config.attention_out_bias) lines.push_back("the attention's output has a bias");
  if (config.mlp_bias) lines.push_back("the MLP has biases");
}

void NoteEmbeddings(const ModelConfig& config, Lines& lines) {
  if (config.tied_head) lines.push_back("the head is the embedding table (tied)");
  if (config.embedding_scale != 1)
    lines.push_back(StrCat("embeddings are multiplied by ", Number(config.embedding_scale)));
  if (config.residual_scale != 1) {
    lines.push_back(
        StrCat("what attention and MLP add is multiplied by ", Number(config.residual_scale)));
  }
  if (config.logit_scale != 1)
    lines.push_back(StrCat("logits are multiplied by ", Number(config.logit_scale)));
  if (config.logit_soft_cap > 0)
    lines.push_back(StrCat("logits are soft-capped at ", Number(config.logit_soft_cap)));
}

void NoteNorms(const ModelConfig& config, Lines& lines) {
  if (config.norms == NormPlacement::kOutputs)
    lines.push_back("norms after attention and MLP, none before");
  if (config.norms == NormPlacement::kBoth)
    lines.push_back("norms before and after attention and MLP");
  if (config.norm_offset != 0)
    lines.push_back(StrCat("norms multiply by their weights plus ", Number(config.norm_offset)));
  if (config.qk_norm == QkNorm::kHead) lines.push_back("q and k are normed, each head by itself");
  if (config.qk_norm == QkNorm::kProjection)
    lines.push_back("q and k are normed, all heads together");
}

void NoteAttention(const ModelConfig& config, Lines& lines) {
  if (config.head_dim * config.heads != config.hidden)
    lines.push_back("heads x head_dim is not the hidden size");
  std::map<int, int64_t> windows;
  for (const LayerConfig& layer : config.layer) {
    if (layer.window > 0) ++windows[layer.window];
  }
  for (const auto& [window, count] : windows) {
    lines.push_back(StrCat("a sliding window of ", window, " tokens", InLayers(count, config)));
  }
  const double usual = 1 / std::sqrt(static_cast<double>(config.head_dim));
  if (std::abs(config.attention_scale / usual - 1) > 1e-6) {
    lines.push_back(StrCat("attention is scaled by ", Number(config.attention_scale),
                           ", not by 1 / sqrt(head_dim)"));
  }
  if (config.attention_soft_cap > 0) {
    lines.push_back(
        StrCat("attention's logits are soft-capped at ", Number(config.attention_soft_cap)));
  }
  if (config.sinks) lines.push_back("attention has a sink, a learnt logit a head");
}

std::string Scaling(const RopeConfig& rope) {
  const std::string of = StrCat(", of a context of ", rope.original_positions);
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return rope.divisors.empty() ? "" : "divisors of each frequency";
    case RopeScaling::kLinear:
      return StrCat("linear, factor ", Number(rope.factor));
    case RopeScaling::kLlama3:
      return StrCat("llama3, factor ", Number(rope.factor), of);
    case RopeScaling::kYarn:
      return StrCat("yarn, factor ", Number(rope.factor), of);
    case RopeScaling::kLongRope:
      return StrCat("longrope, long factors if --max-model-len is above ", rope.original_positions);
  }
  return "";
}

void NoteRope(const ModelConfig& config, Lines& lines) {
  for (size_t i = 0; i < config.ropes.size(); ++i) {
    const RopeConfig& rope = config.ropes[i];
    const int64_t count = CountLayers(
        config, [&](const LayerConfig& layer) { return layer.rope == static_cast<int>(i); });
    const std::string scaling = Scaling(rope);
    if (config.ropes.size() > 1) {
      lines.push_back(StrCat("RoPE base ", Number(rope.theta), InLayers(count, config),
                             scaling.empty() ? "" : ", scaled: ", scaling));
    } else if (!scaling.empty()) {
      lines.push_back(StrCat("RoPE is scaled: ", scaling));
    }
  }
  const RopeConfig& rope = config.ropes[0];
  if (rope.rotary_dim != config.head_dim) {
    lines.push_back(
        StrCat("RoPE turns ", rope.rotary_dim, " of a head's ", config.head_dim, " dimensions"));
  }
  const int64_t without = CountLayers(
      config, [](const LayerConfig& layer) { return layer.rope == LayerConfig::kNoRope; });
  if (without > 0) lines.push_back(StrCat("no RoPE", InLayers(without, config)));
}

void NoteMlp(const ModelConfig& config, Lines& lines) {
  switch (config.activation) {
    case Activation::kSilu:
      break;
    case Activation::kGeluTanh:
      lines.push_back("the MLP's activation is gelu (tanh)");
      break;
    case Activation::kGelu:
      lines.push_back("the MLP's activation is gelu");
      break;
    case Activation::kClampedSilu:
      lines.push_back(
          StrCat("the MLP's activation is silu, clamped at ", Number(config.activation_limit)));
      break;
  }
  const ExpertsConfig& experts = config.experts;
  const int64_t sparse =
      CountLayers(config, [](const LayerConfig& layer) { return layer.experts; });
  if (sparse == 0) return;
  lines.push_back(StrCat(experts.count, " experts of ", experts.ffn, ", ", experts.slots,
                         " for a token,", InLayers(sparse, config)));
  if (!experts.normalize) lines.push_back("the weights of a token's experts do not sum to 1");
  if (experts.bias) lines.push_back("the router and the experts have biases");
}

}  // namespace

std::vector<std::string> UnusualFeatures(const ModelConfig& config) {
  Lines lines;
  NoteEmbeddings(config, lines);
  NoteNorms(config, lines);
  NoteBiases(config, lines);
  NoteAttention(config, lines);
  NoteRope(config, lines);
  NoteMlp(config, lines);
  return lines;
}

}  // namespace fairlead
