// SPDX-License-Identifier: Apache-2.0
#include "models/encoder_config.h"

#include <array>
#include <string>
#include <string_view>

#include "kernels/device.h"
#include "kernels/strings.h"
#include "models/config_parts.h"
#include "models/config_reader.h"
#include "models/json.h"
#include "models/registry.h"

namespace fairlead {
namespace {

constexpr int kMaxTypes = 1 << 16;

struct EncoderArchitecture {
  std::string_view name;
  WeightFormat format;
  EncoderNames names;
  bool counts_from_padding = false;  // positions begin behind the padding token's id
};
// Heads beside the encoder (masked words, next sentence) are not read.
constexpr std::array kArchitectures = {
    EncoderArchitecture{"BertModel", WeightFormat::kSafetensors, EncoderNames::kBert},
    EncoderArchitecture{"BertForMaskedLM", WeightFormat::kSafetensors, EncoderNames::kBert},
    EncoderArchitecture{"BertForPreTraining", WeightFormat::kSafetensors, EncoderNames::kBert},
    EncoderArchitecture{"RobertaModel", WeightFormat::kSafetensors, EncoderNames::kBert, true},
    EncoderArchitecture{"RobertaForMaskedLM", WeightFormat::kSafetensors, EncoderNames::kBert,
                        true},
    EncoderArchitecture{"XLMRobertaModel", WeightFormat::kSafetensors, EncoderNames::kBert, true},
    EncoderArchitecture{"XLMRobertaForMaskedLM", WeightFormat::kSafetensors, EncoderNames::kBert,
                        true},
    EncoderArchitecture{"CamembertModel", WeightFormat::kSafetensors, EncoderNames::kBert, true},
    EncoderArchitecture{"CamembertForMaskedLM", WeightFormat::kSafetensors, EncoderNames::kBert,
                        true},
    EncoderArchitecture{"NomicBertModel", WeightFormat::kSafetensors, EncoderNames::kNomic},
    EncoderArchitecture{"bert", WeightFormat::kGguf, EncoderNames::kBert},
    EncoderArchitecture{"nomic-bert", WeightFormat::kGguf, EncoderNames::kNomic},
};

// Keys that change what an encoder computes, unless they hold a value that switches the feature
// off.
struct FeatureKey {
  std::string_view key, what;
  double neutral = 0;
};
constexpr std::array kFeatureKeys = {
    FeatureKey{"is_decoder", "causal attention"},
    FeatureKey{"causal", "causal attention"},
    FeatureKey{"add_cross_attention", "cross-attention"},
    FeatureKey{"is_encoder_decoder", "encoder-decoder models"},
    FeatureKey{"pruned_heads", "pruned heads"},
    FeatureKey{"prenorm", "norms of the inputs"},
    FeatureKey{"parallel_block", "parallel residuals"},
    FeatureKey{"use_rms_norm", "RMS norms"},
    FeatureKey{"rotary_emb_interleaved", "interleaved RoPE"},
    FeatureKey{"rotary_emb_scale_base", "xPos"},
    FeatureKey{"rotary_scaling_factor", "RoPE that depends on the length (dynamic NTK)"},
    FeatureKey{"scale_attn_by_inverse_layer_idx", "attention scaled by layer"},
    FeatureKey{"num_experts", "mixture of experts"},
    FeatureKey{"num_local_experts", "mixture of experts"},
    FeatureKey{"moe_every_n_layers", "mixture of experts"},
    FeatureKey{"sliding_window", "sliding windows"},
    FeatureKey{"attn_logit_softcapping", "soft-capped attention logits"},
    FeatureKey{"attention_multiplier", "a different attention scale"},
    FeatureKey{"embedding_multiplier", "scaled embeddings", 1},
    FeatureKey{"residual_multiplier", "scaled residuals", 1},
    FeatureKey{"clip_qkv", "clipped q, k and v"},
    FeatureKey{"unsupported_metadata", "GGUF keys of unknown meaning"},
};

void RefuseUnsupported(ConfigReader& reader) {
  for (const FeatureKey& entry : kFeatureKeys) {
    const Json* value = reader.Find(entry.key);
    if (value == nullptr || IsNeutral(*value, entry.neutral)) continue;
    reader.Fail(
        absl::UnimplementedError(StrCat("config key \"", entry.key, "\" is ", ShortDump(*value),
                                        ": not supported (", entry.what, ")")));
  }
  const std::string positions = reader.String("position_embedding_type", "absolute");
  if (positions != "absolute") {
    reader.Fail(absl::UnimplementedError(StrCat("config key \"position_embedding_type\" is ",
                                                ShortDump(Json(positions)),
                                                ": not supported; known: absolute")));
  }
  if (!reader.Bool("scale_attn_weights", true)) {
    reader.Fail(absl::UnimplementedError(
        "config key \"scale_attn_weights\" is false: not supported (unscaled attention)"));
  }
}

struct ActivationName {
  std::string_view name;
  Activation activation;
};
constexpr std::array kPlainActivations = {
    ActivationName{"gelu", Activation::kGelu},
    ActivationName{"gelu_new", Activation::kGeluTanh},
    ActivationName{"gelu_pytorch_tanh", Activation::kGeluTanh},
    ActivationName{"silu", Activation::kSilu},
    ActivationName{"swish", Activation::kSilu},
};

void ReadActivation(EncoderConfig& config, ConfigReader& reader) {
  const std::string name = reader.String("hidden_act", config.gated ? "silu" : "gelu");
  std::string known;
  for (const ActivationName& each : kPlainActivations) {
    config.activation = each.activation;
    if (each.name == name) return;
    StrAppend(&known, known.empty() ? "" : ", ", each.name);
  }
  reader.Fail(
      absl::UnimplementedError(StrCat("config key \"hidden_act\": activation ",
                                      ShortDump(Json(name)), " is not supported; known: ", known)));
}

// nomic-bert's config.json has GPT-2's keys (nomic-ai/nomic-bert-2048); transformers' own class has
// BERT's, no biases, and another default.
absl::StatusOr<Json> WithBertKeys(const Json& config, WeightFormat format) {
  Json result = config;
  if (!config.contains("n_embd")) {
    if (format == WeightFormat::kSafetensors && !config.contains("rope_theta") &&
        !config.contains("rope_parameters")) {
      result["rope_theta"] = 1000;
    }
    return result;
  }
  for (const auto& [from, to] :
       {std::pair{"n_embd", "hidden_size"}, std::pair{"n_head", "num_attention_heads"},
        std::pair{"n_inner", "intermediate_size"}, std::pair{"n_layer", "num_hidden_layers"},
        std::pair{"n_positions", "max_position_embeddings"},
        std::pair{"layer_norm_epsilon", "layer_norm_eps"},
        std::pair{"rotary_emb_base", "rope_theta"},
        std::pair{"rotary_emb_fraction", "partial_rotary_factor"},
        std::pair{"qkv_proj_bias", "qkv_bias"}, std::pair{"mlp_fc1_bias", "up_bias"},
        std::pair{"mlp_fc2_bias", "down_bias"}}) {
    if (const auto found = config.find(from); found != config.end()) result[to] = *found;
  }
  for (const char* bias : {"qkv_bias", "up_bias", "down_bias"}) {
    if (!result.contains(bias)) result[bias] = true;
  }
  ConfigReader reader(config);
  const std::string activation = reader.String("activation_function", "gelu");
  if (activation != "swiglu") {
    reader.Fail(absl::UnimplementedError(StrCat("config key \"activation_function\" is ",
                                                ShortDump(Json(activation)),
                                                ": not supported; known: swiglu")));
  }
  result["hidden_act"] = "silu";
  // The table's rows are padded to a multiple.
  const int multiple = reader.Int("pad_vocab_size_multiple", 1, kMaxVocab, 1);
  const int vocab = reader.Int("vocab_size", 1, kMaxVocab);
  result["vocab_size"] = (vocab + multiple - 1) / multiple * multiple;
  if (!reader.ok()) return reader.status();
  return result;
}

void ReadShape(EncoderConfig& config, ConfigReader& reader) {
  config.hidden = reader.Int("hidden_size", 1, kMaxHidden);
  config.layers = reader.Int("num_hidden_layers", 1, kMaxLayers);
  config.ffn = reader.Int("intermediate_size", 1, kMaxFfn);
  config.vocab = reader.Int("vocab_size", 1, kMaxVocab);
  config.token_types = reader.Int("type_vocab_size", 0, kMaxTypes, 2);
  config.heads = reader.Int("num_attention_heads", 1, kMaxHeads);
  config.max_positions = reader.Int("max_position_embeddings", 1, kMaxPositions,
                                    config.names == EncoderNames::kNomic ? 2048 : 512);
  if (!reader.ok()) return;
  if (reader.Find("head_dim") == nullptr && config.hidden % config.heads != 0) {
    reader.Fail(absl::InvalidArgumentError(
        StrCat("config key \"hidden_size\" is ", config.hidden, "; without head_dim it must be a ",
               "multiple of num_attention_heads (", config.heads, ")")));
  }
  config.head_dim = reader.Int("head_dim", 1, kMaxHidden, config.hidden / config.heads);
  if (config.head_dim > KvShape::kMaxHeadDim) {
    reader.Fail(
        absl::UnimplementedError(StrCat("head_dim ", config.head_dim, " is not supported; at most ",
                                        KvShape::kMaxHeadDim, " are")));
  }
  for (const auto& [key, same] :
       {std::pair{"num_key_value_heads", config.heads}, std::pair{"v_head_dim", config.head_dim}}) {
    const int value = reader.Int(key, 1, kMaxHidden, same);
    if (value == same) continue;
    reader.Fail(absl::UnimplementedError(
        StrCat("config key \"", key, "\" is ", value, ": not supported; an encoder needs ", same)));
  }
}

// What a GGUF file says by its tensors.
void ReadTensorFacts(const WeightSource& source, EncoderConfig& config, ConfigReader& reader) {
  const bool nomic = config.names == EncoderNames::kNomic;
  const std::string layer = nomic ? "encoder.layers.0." : "encoder.layer.0.";
  const auto has_bias = [&](const char* module) {
    return source.Find(StrCat(layer, module, ".bias")) != nullptr;
  };
  config.qkv_bias =
      has_bias(nomic ? "attn.Wqkv" : "attention.self.query") || has_bias("attention.self.qkv");
  config.attention_out_bias = has_bias(nomic ? "attn.out_proj" : "attention.output.dense");
  config.up_bias = has_bias(nomic ? "mlp.fc11" : "intermediate.dense");
  config.down_bias = has_bias(nomic ? "mlp.fc2" : "output.dense");
  if (reader.Find("type_vocab_size") != nullptr) return;
  const WeightInfo* types = source.Find("embeddings.token_type_embeddings.weight");
  config.token_types = 0;
  if (types != nullptr && types->dim.size() == 2 && types->dim[0] <= kMaxTypes) {
    config.token_types = static_cast<int>(types->dim[0]);
  }
}

void ReadPadding(EncoderConfig& config, ConfigReader& reader) {
  const int rows = config.max_positions;
  config.padding = reader.Int("pad_token_id", 0, config.vocab - 1, 1);
  config.max_positions -= config.first_position();
  if (config.max_positions >= 1) return;
  reader.Fail(absl::InvalidArgumentError(
      StrCat("config key \"max_position_embeddings\" is ", rows,
             "; a text's positions begin behind pad_token_id, which is ", *config.padding)));
}

absl::StatusOr<EncoderConfig> Parse(const WeightSource& source, const EncoderArchitecture& row) {
  const EncoderNames names = row.names;
  if (!source.config().is_object()) return absl::InvalidArgumentError("the config is no object");
  const absl::StatusOr<Json> json = names == EncoderNames::kNomic
                                        ? WithBertKeys(source.config(), source.format())
                                        : source.config();
  if (!json.ok()) return json.status();
  ConfigReader reader(*json);
  RefuseUnsupported(reader);
  EncoderConfig config;
  config.names = names;
  config.gated = names == EncoderNames::kNomic;
  ReadShape(config, reader);
  if (row.counts_from_padding && reader.ok()) ReadPadding(config, reader);
  ReadActivation(config, reader);
  config.epsilon = static_cast<float>(reader.Real("layer_norm_eps", 1e-30, 1, 1e-12));
  const bool bert = names == EncoderNames::kBert;
  config.qkv_bias = reader.Bool("qkv_bias", bert);
  config.attention_out_bias = config.qkv_bias;
  config.up_bias = reader.Bool("up_bias", bert);
  config.down_bias = reader.Bool("down_bias", bert);
  if (source.format() == WeightFormat::kGguf) ReadTensorFacts(source, config, reader);
  if (!reader.ok()) return reader.status();
  if (bert) return config;
  absl::StatusOr<RopeConfig> rope = ParseRope(*json, config.head_dim);
  if (!rope.ok()) return rope.status();
  config.rope = *std::move(rope);
  return config;
}

const EncoderArchitecture* FindArchitecture(const WeightSource& source, std::string_view name) {
  for (const EncoderArchitecture& row : kArchitectures) {
    if (row.name == name && row.format == source.format()) return &row;
  }
  return nullptr;
}

}  // namespace

bool IsEncoder(const WeightSource& source) {
  const absl::StatusOr<std::string> name = ArchitectureName(source);
  return name.ok() && FindArchitecture(source, *name) != nullptr;
}

absl::StatusOr<EncoderConfig> LoadEncoderConfig(const WeightSource& source) {
  const absl::StatusOr<std::string> name = ArchitectureName(source);
  if (!name.ok()) return name.status();
  const EncoderArchitecture* row = FindArchitecture(source, *name);
  if (row == nullptr) {
    std::string known;
    for (const EncoderArchitecture& each : kArchitectures) {
      if (each.format == source.format()) StrAppend(&known, known.empty() ? "" : ", ", each.name);
    }
    return absl::UnimplementedError(StrCat(ConfigPath(source), ": architecture ",
                                           ShortDump(Json(*name)),
                                           " is no encoder that is supported; known: ", known));
  }
  absl::StatusOr<EncoderConfig> config = Parse(source, *row);
  if (!config.ok()) {
    return absl::Status(config.status().code(),
                        StrCat(ConfigPath(source), ": ", config.status().message()));
  }
  return config;
}

}  // namespace fairlead
