// SPDX-License-Identifier: Apache-2.0
#include "models/registry.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

std::string KnownNames(WeightFormat format) {
  std::string names;
  for (const Architecture& row : Architectures()) {
    if (row.format == format) StrAppend(&names, names.empty() ? "" : ", ", row.name);
  }
  return names;
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), StrCat(path, ": ", status.message()));
}

Json WithDefaults(const Json& config, const Architecture& row) {
  const absl::StatusOr<Json> defaults = ParseJson(row.defaults);
  FAIRLEAD_CHECK(defaults.ok() && defaults->is_object());
  Json merged = config;
  for (const auto& [key, value] : defaults->items()) {
    // Newer configs have the scaling under another name.
    if (key == "rope_scaling" && config.contains("rope_parameters")) continue;
    if (!merged.contains(key)) merged[key] = value;  // an explicit null stays: it switches off
  }
  return merged;
}

absl::Status CheckAllowed(const ModelConfig& config, const Architecture& row) {
  std::string_view refused;
  if ((config.qkv_bias || config.attention_out_bias) && !row.allows_attention_bias) {
    refused = "attention biases";
  } else if (config.mlp_bias && !row.allows_mlp_bias) {
    refused = "MLP biases";
  } else if (config.ropes[0].rotary_dim != config.rope_dim() &&
             !HasFeature(row.family, "partial_rotary_factor")) {
    refused = "RoPE over a part of each head";
  }
  if (refused.empty()) return absl::OkStatus();
  return absl::UnimplementedError(
      StrCat("architecture ", row.name, " with ", refused, " is not supported"));
}

constexpr int64_t kComparedRows = 128;  // at once

// A head that differs from the embedding table counts even where the config says that they are one
// (transformers 5, tie_weights); the same values twice are no such head.
bool HasHeadOfItsOwn(const WeightSource& source) {
  const WeightInfo* head = source.Find("lm_head.weight");
  const WeightInfo* table = source.Find("model.embed_tokens.weight");
  if (head == nullptr || table == nullptr) return false;
  if (head->dtype != table->dtype || head->dim != table->dim) return true;
  // Without elements there are no rows to compare, or more of them than anybody could.
  if (head->bytes == 0 || head->dim.empty()) return false;
  // The first rows say it, where the two differ.
  const int64_t rows = head->rows();
  const size_t row_bytes = RowBytes(head->dtype, head->dim.back());
  for (int64_t row = 0; row < rows; row += kComparedRows) {
    const int64_t count = std::min(kComparedRows, rows - row);
    const size_t bytes = static_cast<size_t>(count) * row_bytes;
    for (const WeightInfo* info : {head, table}) {
      if (!info->make) ReadSoon(info->data + static_cast<size_t>(row) * row_bytes, bytes);
    }
    const WeightBytes head_bytes(*head, row, count), table_bytes(*table, row, count);
    if (std::memcmp(head_bytes.data(), table_bytes.data(), bytes) != 0) return true;
  }
  return false;
}

}  // namespace

std::string ConfigPath(const WeightSource& source) {
  return source.format() == WeightFormat::kGguf ? source.path()
                                                : StrCat(source.path(), "/config.json");
}

absl::StatusOr<std::string> ArchitectureName(const WeightSource& source) {
  const Json& config = source.config();
  const bool is_gguf = source.format() == WeightFormat::kGguf;
  const char* key = is_gguf ? "model_type" : "architectures";
  const Json* name = nullptr;
  if (const auto found = config.find(key); found != config.end()) name = &*found;
  if (name != nullptr && !is_gguf) {
    name = name->is_array() && !name->empty() ? &name->front() : nullptr;
  }
  if (name == nullptr || !name->is_string()) {
    return absl::InvalidArgumentError(
        StrCat(ConfigPath(source), ": the config names no architecture (",
               is_gguf ? "GGUF key general.architecture" : "\"architectures\": [\"...\"]", ")"));
  }
  return name->get<std::string>();
}

namespace {

// A folder that was saved without its head names the class without one ("Qwen3Model").
const Architecture* FindArchitecture(std::string_view name, WeightFormat format) {
  constexpr std::string_view kBase = "Model";
  const std::string with_head =
      name.ends_with(kBase) && format == WeightFormat::kSafetensors
          ? StrCat(name.substr(0, name.size() - kBase.size()), "ForCausalLM")
          : "";
  for (const Architecture& row : Architectures()) {
    if (row.format == format && (row.name == name || row.name == with_head)) return &row;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const WeightSource& source) {
  const absl::StatusOr<std::string> name = ArchitectureName(source);
  if (!name.ok()) return name.status();
  const Architecture* row = FindArchitecture(*name, source.format());
  if (row == nullptr) {
    return absl::UnimplementedError(
        StrCat(ConfigPath(source), ": architecture ", ShortDump(Json(*name)),
               " is not supported; known: ", KnownNames(source.format())));
  }
  absl::StatusOr<ModelConfig> config =
      ParseConfig(WithDefaults(source.config(), *row), row->family);
  if (!config.ok()) return WithPath(config.status(), ConfigPath(source));
  if (absl::Status allowed = CheckAllowed(*config, *row); !allowed.ok()) {
    return WithPath(allowed, ConfigPath(source));
  }
  if (config->tied_head && HasHeadOfItsOwn(source)) config->tied_head = false;
  return config;
}

}  // namespace fairlead
