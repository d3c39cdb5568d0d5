// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/mapped_weights.h"

namespace fairlead {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hf;
};

constexpr std::array kModelTensors = {
    NamePair{"token_embd", "model.embed_tokens"},
    NamePair{"output_norm", "model.norm"},
    NamePair{"output", "lm_head"},
};
// Of layer N: blk.N.<gguf> and model.layers.N.<hf>.
constexpr std::array kLayerTensors = {
    NamePair{"attn_norm", "input_layernorm"},
    NamePair{"attn_q", "self_attn.q_proj"},
    NamePair{"attn_k", "self_attn.k_proj"},
    NamePair{"attn_v", "self_attn.v_proj"},
    NamePair{"attn_output", "self_attn.o_proj"},
    NamePair{"ffn_norm", "post_attention_layernorm"},
    NamePair{"ffn_gate", "mlp.gate_proj"},
    NamePair{"ffn_up", "mlp.up_proj"},
    NamePair{"ffn_down", "mlp.down_proj"},
    NamePair{"attn_qkv", "self_attn.qkv_proj"},
    NamePair{"attn_q_norm", "self_attn.q_norm"},
    NamePair{"attn_k_norm", "self_attn.k_norm"},
    NamePair{"post_attention_norm", "post_attention_layernorm"},
    NamePair{"post_ffw_norm", "post_feedforward_layernorm"},
    NamePair{"ffn_gate_inp", "mlp.gate"},
    NamePair{"ffn_gate_exps", "mlp.experts.gate_proj"},
    NamePair{"ffn_up_exps", "mlp.experts.up_proj"},
    NamePair{"ffn_down_exps", "mlp.experts.down_proj"},
    NamePair{"attn_q_a", "self_attn.q_a_proj"},
    NamePair{"attn_q_a_norm", "self_attn.q_a_layernorm"},
    NamePair{"attn_q_b", "self_attn.q_b_proj"},
    NamePair{"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    NamePair{"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    NamePair{"attn_kv_b", "self_attn.kv_b_proj"},
    NamePair{"attn_k_b", "self_attn.k_b_proj"},
    NamePair{"attn_v_b", "self_attn.v_b_proj"},
    NamePair{"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    NamePair{"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    NamePair{"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    NamePair{"ffn_down_shexp", "mlp.shared_expert.down_proj"},
};
// Encoders have other names in both formats.
constexpr std::array kBertTensors = {
    NamePair{"token_embd", "embeddings.word_embeddings"},
    NamePair{"position_embd", "embeddings.position_embeddings"},
    NamePair{"token_types", "embeddings.token_type_embeddings"},
    NamePair{"token_embd_norm", "embeddings.LayerNorm"},
};
constexpr std::array kBertLayerTensors = {
    NamePair{"attn_q", "attention.self.query"},
    NamePair{"attn_k", "attention.self.key"},
    NamePair{"attn_v", "attention.self.value"},
    NamePair{"attn_qkv", "attention.self.qkv"},
    NamePair{"attn_output", "attention.output.dense"},
    NamePair{"attn_output_norm", "attention.output.LayerNorm"},
    NamePair{"ffn_up", "intermediate.dense"},
    NamePair{"ffn_down", "output.dense"},
    NamePair{"layer_output_norm", "output.LayerNorm"},
};
constexpr std::array kNomicTensors = {
    NamePair{"token_embd", "embeddings.word_embeddings"},
    NamePair{"token_types", "embeddings.token_type_embeddings"},
    NamePair{"token_embd_norm", "emb_ln"},
};
constexpr std::array kNomicLayerTensors = {
    NamePair{"attn_qkv", "attn.Wqkv"},      NamePair{"attn_output", "attn.out_proj"},
    NamePair{"attn_output_norm", "norm1"},  NamePair{"ffn_up", "mlp.fc11"},
    NamePair{"ffn_gate", "mlp.fc12"},       NamePair{"ffn_down", "mlp.fc2"},
    NamePair{"layer_output_norm", "norm2"},
};
// What an architecture calls otherwise; the first that matches.
struct OtherName {
  std::string_view architecture, gguf, hf;
};
constexpr std::array kOtherLayerTensors = {
    OtherName{"gemma2", "ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    OtherName{"gemma3", "ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    OtherName{"phi3", "ffn_up.weight", "mlp.gate_up_proj.weight"},
    OtherName{"gpt-oss", "attn_sinks.weight", "self_attn.sinks"},
    OtherName{"deepseek2", "exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
};

// {arch}.<gguf> keys that hold one number. Those that switch on what we lack are translated too:
// ParseConfig then refuses them under the name by which they are known.
constexpr std::array kNumbers = {
    NamePair{"context_length", "max_position_embeddings"},
    NamePair{"embedding_length", "hidden_size"},
    NamePair{"block_count", "num_hidden_layers"},
    NamePair{"vocab_size", "vocab_size"},
    NamePair{"feed_forward_length", "intermediate_size"},
    NamePair{"attention.head_count", "num_attention_heads"},
    NamePair{"attention.head_count_kv", "num_key_value_heads"},
    NamePair{"attention.key_length", "head_dim"},
    NamePair{"attention.value_length", "v_head_dim"},
    NamePair{"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    NamePair{"attention.layer_norm_epsilon", "layer_norm_eps"},
    NamePair{"token_type_count", "type_vocab_size"},
    NamePair{"attention.sliding_window", "sliding_window"},
    NamePair{"rope.freq_base", "rope_theta"},
    NamePair{"rope.dimension_count", "rotary_dim"},
    NamePair{"expert_count", "num_local_experts"},
    NamePair{"expert_used_count", "num_experts_per_tok"},
    NamePair{"attn_logit_softcapping", "attn_logit_softcapping"},
    NamePair{"final_logit_softcapping", "final_logit_softcapping"},
    NamePair{"logit_scale", "logits_scaling"},
    NamePair{"expert_feed_forward_length", "moe_intermediate_size"},
    NamePair{"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    NamePair{"expert_shared_count", "n_shared_experts"},
    NamePair{"expert_group_count", "n_group"},
    NamePair{"expert_group_used_count", "topk_group"},
    NamePair{"expert_weights_scale", "routed_scaling_factor"},
    NamePair{"leading_dense_block_count", "first_k_dense_replace"},
    NamePair{"attention.q_lora_rank", "q_lora_rank"},
    NamePair{"attention.kv_lora_rank", "kv_lora_rank"},
    NamePair{"embedding_scale", "embedding_multiplier"},
    NamePair{"residual_scale", "residual_multiplier"},
    NamePair{"attention.scale", "attention_multiplier"},
    NamePair{"attention.clamp_kqv", "clip_qkv"},
};
// Read elsewhere in this file, or without influence on the arithmetic.
constexpr std::array<std::string_view, 12> kOtherKeys = {"rope.scaling.type",
                                                         "rope.scaling.factor",
                                                         "rope.scaling.original_context_length",
                                                         "rope.scaling.finetuned",
                                                         "rope.scaling.attn_factor",
                                                         "rope.scaling.yarn_beta_fast",
                                                         "rope.scaling.yarn_beta_slow",
                                                         "rope.scale_linear",
                                                         "tensor_data_layout",
                                                         "attention.sliding_window_pattern",
                                                         "attention.causal",
                                                         "pooling_type"};

// Architectures whose converter permutes q and k so that elements 2i and 2i + 1 of a head rotate
// together.
constexpr std::array<std::string_view, 8> kAdjacentPairs = {
    "llama", "mistral", "deepseek2", "command-r", "olmo", "granite", "glm4", "smollm3"};

// The parameter of `name` ("attn_q" of "attn_q.weight") translated by `table`; empty if it is not
// there.
template <size_t kSize>
std::string TranslateParameter(std::string_view name, const std::array<NamePair, kSize>& table) {
  for (const std::string_view suffix : {".weight", ".bias"}) {
    std::string_view stem = name;
    if (!stem.ends_with(suffix)) continue;
    stem.remove_suffix(suffix.size());
    for (const NamePair& pair : table) {
      if (pair.gguf == stem) return StrCat(pair.hf, suffix);
    }
  }
  return "";
}

std::string ModelParameter(std::string_view name, std::string_view architecture) {
  if (architecture == "bert") return TranslateParameter(name, kBertTensors);
  if (architecture == "nomic-bert") return TranslateParameter(name, kNomicTensors);
  return TranslateParameter(name, kModelTensors);
}

std::string LayerParameter(std::string_view name, std::string_view architecture) {
  if (architecture == "bert") return TranslateParameter(name, kBertLayerTensors);
  if (architecture == "nomic-bert") return TranslateParameter(name, kNomicLayerTensors);
  for (const OtherName& other : kOtherLayerTensors) {
    if (other.architecture == architecture && other.gguf == name) return std::string(other.hf);
  }
  return TranslateParameter(name, kLayerTensors);
}

std::string_view LayersName(std::string_view architecture) {
  if (architecture == "bert") return "encoder.layer.";
  return architecture == "nomic-bert" ? "encoder.layers." : "model.layers.";
}

absl::Status BadKey(std::string_view key, const Json& value, std::string_view allowed) {
  return absl::InvalidArgumentError(
      StrCat("metadata key ", Quoted(key), " is ", ShortDump(value), "; it must be ", allowed));
}

// One number, also where the file gives one for each layer.
absl::StatusOr<Json> OneNumber(std::string_view key, const Json& value) {
  const Json* number = &value;
  if (value.is_array() && !value.empty()) {
    number = &value.front();
    for (const Json& other : value) {
      if (other != *number) return BadKey(key, value, "the same for every layer");
    }
  }
  if (!number->is_number() || !std::isfinite(number->get<double>()) || number->get<double>() < 0) {
    return BadKey(key, value, "a finite number, not negative");
  }
  return *number;
}

class ConfigTranslator {
 public:
  ConfigTranslator(const Json& metadata, absl::Span<const WeightInfo> tensors)
      : metadata_(metadata), tensors_(tensors) {}

  absl::StatusOr<Json> Run() {
    absl::Status status = ReadArchitecture();
    for (const auto step : {&ConfigTranslator::AddNumbers, &ConfigTranslator::AddVocabulary,
                            &ConfigTranslator::AddWindowPattern, &ConfigTranslator::AddCausal,
                            &ConfigTranslator::AddLocalRope, &ConfigTranslator::AddRopeScaling,
                            &ConfigTranslator::AddRopeDivisors, &ConfigTranslator::AddGemmaScale,
                            &ConfigTranslator::AddLatent}) {
      if (!status.ok()) return status;
      status = (this->*step)();
    }
    if (!status.ok()) return status;
    AddTensorFacts();
    AddUnsupported();
    return std::move(config_);
  }

 private:
  const Json* Find(std::string_view key) const {
    const auto found = metadata_.find(key);
    return found == metadata_.end() ? nullptr : &*found;
  }
  const WeightInfo* FindTensor(std::string_view name) const {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [&](const WeightInfo& tensor) { return tensor.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }
  // A copy of what config_ has under this key, or null: a reference would not outlive the next key.
  Json Known(std::string_view key) const {
    const auto found = config_.find(key);
    return found == config_.end() ? Json() : *found;
  }
  std::string ArchKey(std::string_view suffix) const { return StrCat(arch_, ".", suffix); }

  absl::Status ReadArchitecture() {
    const Json* arch = Find("general.architecture");
    if (arch == nullptr || !arch->is_string() || arch->get_ref<const std::string&>().empty()) {
      return BadKey("general.architecture", arch == nullptr ? Json() : *arch, "a name");
    }
    arch_ = arch->get<std::string>();
    config_["model_type"] = arch_;
    if (std::find(kAdjacentPairs.begin(), kAdjacentPairs.end(), arch_) != kAdjacentPairs.end()) {
      config_["rope_pairing"] = "adjacent";
    }
    return absl::OkStatus();
  }

  absl::Status AddNumbers() {
    for (const NamePair& pair : kNumbers) {
      const std::string key = ArchKey(pair.gguf);
      const Json* value = Find(key);
      if (value == nullptr) continue;
      absl::StatusOr<Json> number = OneNumber(key, *value);
      if (!number.ok()) return number.status();
      config_[pair.hf] = *std::move(number);
    }
    return absl::OkStatus();
  }

  absl::Status AddVocabulary() {
    const Json* tokens = Find("tokenizer.ggml.tokens");
    if (tokens == nullptr || config_.contains("vocab_size")) return absl::OkStatus();
    if (!tokens->is_array()) return BadKey("tokenizer.ggml.tokens", *tokens, "an array");
    config_["vocab_size"] = tokens->size();
    return absl::OkStatus();
  }

  // A number, or whether each layer has a window.
  absl::Status AddWindowPattern() {
    const std::string key = ArchKey("attention.sliding_window_pattern");
    const Json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_array() && !value->is_number_unsigned()) {
      return BadKey(key, *value, "a number or a list");
    }
    config_["sliding_window_pattern"] = *value;
    return absl::OkStatus();
  }

  // Whoever attends otherwise refuses one of these.
  absl::Status AddCausal() {
    const std::string key = ArchKey("attention.causal");
    const Json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_boolean()) return BadKey(key, *value, "true or false");
    config_["causal"] = *value;
    config_["use_bidirectional_attention"] = !value->get<bool>();
    return absl::OkStatus();
  }

  // The softmax scale of Gemma's largest models is not in their files: by convention the number of
  // layers tells (llama.cpp's gemma2 and gemma3).
  absl::Status AddGemmaScale() {
    const int largest = arch_ == "gemma2" ? 46 : arch_ == "gemma3" ? 62 : 0;
    if (largest == 0 || Known("num_hidden_layers") != largest) return absl::OkStatus();
    const Json hidden = Known("hidden_size"), heads = Known("num_attention_heads");
    if (hidden.is_number() && heads.is_number() && heads.get<double>() > 0) {
      config_["query_pre_attn_scalar"] = hidden.get<double>() / heads.get<double>();
    }
    return absl::OkStatus();
  }

  // Gemma 3's layers with a window rotate by another base and unscaled; where other families have
  // the key, both kinds of layers must be alike.
  absl::Status AddLocalRope() {
    const std::string key = ArchKey("rope.freq_base_swa");
    const Json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    absl::StatusOr<Json> number = OneNumber(key, *value);
    if (!number.ok()) return number.status();
    if (arch_ == "gemma3") config_["rope_local_base_freq"] = *number;
    const Json base = Known("rope_theta");
    if (arch_ == "gemma3" || *number == (base.is_null() ? Json(10000) : base)) {
      known_.push_back(key);
    }
    return absl::OkStatus();
  }

  absl::Status AddRopeScaling() {
    Json scaling = Json::object();
    if (const Json* type = Find(ArchKey("rope.scaling.type")); type != nullptr) {
      if (!type->is_string()) return BadKey(ArchKey("rope.scaling.type"), *type, "a string");
      scaling["rope_type"] = *type;
    }
    // Files from before rope.scaling.* say rope.scale_linear.
    for (const auto& [gguf, hf] :
         {NamePair{"rope.scaling.factor", "factor"}, NamePair{"rope.scale_linear", "factor"},
          NamePair{"rope.scaling.original_context_length", "original_max_position_embeddings"},
          NamePair{"rope.scaling.attn_factor", "attention_factor"},
          NamePair{"rope.scaling.yarn_beta_fast", "beta_fast"},
          NamePair{"rope.scaling.yarn_beta_slow", "beta_slow"}}) {
      const std::string key = ArchKey(gguf);
      const Json* value = Find(key);
      if (value == nullptr || scaling.contains(hf)) continue;
      absl::StatusOr<Json> number = OneNumber(key, *value);
      if (!number.ok()) return number.status();
      scaling[hf] = *std::move(number);
    }
    if (arch_ == "deepseek2") {
      if (absl::Status status = AddYarnLog(scaling); !status.ok()) return status;
    }
    if (FindTensor("rope_factors_long.weight") != nullptr) return AddLongRope(std::move(scaling));
    if (absl::Status status = AddAttentionFactor(scaling); !status.ok()) return status;
    const std::string type = scaling.value("rope_type", "linear");
    scaling["rope_type"] = type;
    // A factor of 0 or 1 stands for none.
    const double factor = scaling.value("factor", 1.0);
    const bool linear = type == "linear" && factor != 0 && factor != 1;
    if (type == "none" || (type == "linear" && !linear)) return absl::OkStatus();
    // No key says it, and its authors' config does.
    if (arch_ == "gpt-oss") scaling["truncate"] = false;
    config_["rope_scaling"] = std::move(scaling);
    return absl::OkStatus();
  }

  // llama.cpp multiplies cosines and sines by attn_factor besides what YaRN does; a config's
  // attention_factor stands in the place of both.
  absl::Status AddAttentionFactor(Json& scaling) const {
    const double extra = scaling.value("attention_factor", 1.0);
    scaling.erase("attention_factor");
    if (extra == 1) return absl::OkStatus();
    if (scaling.value("rope_type", "") != "yarn" || scaling.contains("mscale")) {
      return absl::UnimplementedError(StrCat("metadata key ",
                                             Quoted(ArchKey("rope.scaling.attn_factor")), " is ",
                                             extra, "; without YaRN or LongRoPE it must be 1"));
    }
    const double factor = std::max(scaling.value("factor", 1.0), 1.0);
    scaling["attention_factor"] = extra * (0.1 * std::log(factor) + 1);
    return absl::OkStatus();
  }

  // A tenth of DeepSeek's mscale_all_dim. That mscale is the same is implied.
  absl::Status AddYarnLog(Json& scaling) {
    const std::string key = ArchKey("rope.scaling.yarn_log_multiplier");
    const Json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    absl::StatusOr<Json> number = OneNumber(key, *value);
    if (!number.ok()) return number.status();
    const double all_dim = 10 * number->get<double>();
    scaling["mscale"] = all_dim;
    scaling["mscale_all_dim"] = all_dim;
    known_.push_back(key);
    return absl::OkStatus();
  }

  // The sizes of latent attention's heads, of which today's files say twice how long they are: as
  // cached compressed, and in the keys that end in _mla; and the router that comes with it.
  absl::Status AddLatent() {
    if (!config_.contains("kv_lora_rank")) return absl::OkStatus();
    for (const auto& [gguf, hf] : {NamePair{"attention.key_length_mla", "head_dim"},
                                   NamePair{"attention.value_length_mla", "v_head_dim"}}) {
      const std::string key = ArchKey(gguf);
      const Json* value = Find(key);
      if (value == nullptr) continue;
      absl::StatusOr<Json> number = OneNumber(key, *value);
      if (!number.ok()) return number.status();
      config_[hf] = *std::move(number);
      config_.erase("num_key_value_heads");
      known_.push_back(key);
    }
    const Json head = Known("head_dim"), rope = Known("rotary_dim");
    if (!head.is_number_unsigned() || !rope.is_number_unsigned() || head <= rope) {
      return BadKey(ArchKey("attention.key_length_mla"), head,
                    StrCat("a whole number above rope.dimension_count (", ShortDump(rope), ")"));
    }
    config_["qk_rope_head_dim"] = rope;
    config_["qk_nope_head_dim"] = head.get<uint64_t>() - rope.get<uint64_t>();
    return AddLatentRouter();
  }

  absl::Status AddLatentRouter() {
    const std::string gating = ArchKey("expert_gating_func"), norm = ArchKey("expert_weights_norm");
    known_.insert(known_.end(), {gating, norm});
    const Json* function = Find(gating);
    if (function != nullptr && *function != 1 && *function != 2) {
      return BadKey(gating, *function, "1 (softmax) or 2 (sigmoid)");
    }
    const bool sigmoid = function != nullptr && *function == 2;
    config_["scoring_func"] = sigmoid ? "sigmoid" : "softmax";
    const bool groups = config_.contains("n_group") && config_["n_group"] > 1;
    config_["topk_method"] = sigmoid ? "noaux_tc" : groups ? "group_limited_greedy" : "greedy";
    if (const Json* value = Find(norm); value != nullptr) config_["norm_topk_prob"] = *value;
    return absl::OkStatus();
  }

  absl::Status AddLongRope(Json scaling) {
    scaling["rope_type"] = "longrope";
    scaling.erase("factor");
    for (const auto& [gguf, hf] : {NamePair{"rope_factors_long.weight", "long_factor"},
                                   NamePair{"rope_factors_short.weight", "short_factor"}}) {
      absl::StatusOr<Json> factors = Divisors(gguf);
      if (!factors.ok()) return factors.status();
      scaling[hf] = *std::move(factors);
    }
    config_["rope_scaling"] = std::move(scaling);
    return absl::OkStatus();
  }

  absl::Status AddRopeDivisors() {
    if (FindTensor("rope_freqs.weight") == nullptr) return absl::OkStatus();
    absl::StatusOr<Json> divisors = Divisors("rope_freqs.weight");
    if (!divisors.ok()) return divisors.status();
    config_["rope_frequency_divisors"] = *std::move(divisors);
    return absl::OkStatus();
  }

  // The tensors whose bytes are read at opening: a page each.
  absl::StatusOr<Json> Divisors(std::string_view name) const {
    const WeightInfo* tensor = FindTensor(name);
    constexpr int64_t kMaxDivisors = 4096;
    if (tensor == nullptr || tensor->dtype != DType::kF32 || tensor->dim.size() != 1 ||
        tensor->dim[0] > kMaxDivisors) {
      return absl::InvalidArgumentError(StrCat(
          "tensor ", Quoted(name), " is not a vector of at most ", kMaxDivisors, " f32 values"));
    }
    Json divisors = Json::array();
    for (int64_t i = 0; i < tensor->dim[0]; ++i) {
      float value;
      std::memcpy(&value, tensor->data + i * sizeof(float), sizeof(float));
      if (!std::isfinite(value) || value <= 0) {
        return absl::InvalidArgumentError(StrCat("tensor ", Quoted(name), ": element ", i, " is ",
                                                 value, "; it must be finite and positive"));
      }
      divisors.push_back(value);
    }
    return divisors;
  }

  void AddTensorFacts() {
    config_["tie_word_embeddings"] = FindTensor("lm_head.weight") == nullptr;
    for (const NamePair& pair : {NamePair{"blk.0.attn_q.bias", "attention_qkv_bias"},
                                 NamePair{"blk.0.attn_qkv.bias", "attention_qkv_bias"},
                                 NamePair{"blk.0.attn_output.bias", "attention_out_bias"},
                                 NamePair{"blk.0.ffn_down.bias", "mlp_bias"}}) {
      if (FindTensor(HfTensorName(pair.gguf, arch_)) != nullptr) config_[pair.hf] = true;
    }
  }

  void AddUnsupported() {
    Json unknown = Json::array();
    const std::string prefix = ArchKey("");
    for (const auto& [key, value] : metadata_.items()) {
      if (!key.starts_with(prefix)) continue;
      const std::string_view suffix = std::string_view(key).substr(prefix.size());
      const bool is_number = std::any_of(kNumbers.begin(), kNumbers.end(),
                                         [&](const NamePair& pair) { return pair.gguf == suffix; });
      const bool is_other =
          std::find(kOtherKeys.begin(), kOtherKeys.end(), suffix) != kOtherKeys.end();
      const bool is_known = std::find(known_.begin(), known_.end(), key) != known_.end();
      if (!is_number && !is_other && !is_known) unknown.push_back(key);
    }
    if (!unknown.empty()) config_["unsupported_metadata"] = std::move(unknown);
  }

  const Json& metadata_;
  const absl::Span<const WeightInfo> tensors_;
  std::string arch_;
  std::vector<std::string> known_;  // keys of this architecture that have been read
  Json config_ = Json::object();
};

}  // namespace

std::string HfTensorName(std::string_view gguf_name, std::string_view architecture) {
  std::string_view rest = gguf_name;
  std::string translated;
  if (constexpr std::string_view kLayer = "blk."; rest.starts_with(kLayer)) {
    rest.remove_prefix(kLayer.size());
    const size_t digits = std::min(rest.find('.'), rest.size());
    const std::string_view layer = rest.substr(0, digits);
    const bool is_number =
        !layer.empty() && layer.find_first_not_of("0123456789") == std::string_view::npos;
    if (is_number && digits < rest.size()) {
      rest.remove_prefix(digits + 1);
      translated = LayerParameter(rest, architecture);
    }
    if (!translated.empty()) return StrCat(LayersName(architecture), layer, ".", translated);
  } else {
    translated = ModelParameter(rest, architecture);
  }
  return translated.empty() ? std::string(gguf_name) : translated;
}

absl::StatusOr<Json> HfConfig(const Json& metadata, absl::Span<const WeightInfo> tensors) {
  return ConfigTranslator(metadata, tensors).Run();
}

}  // namespace fairlead
