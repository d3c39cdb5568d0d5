// SPDX-License-Identifier: Apache-2.0
#include "models/pooling.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/json.h"
#include "models/mmap_file.h"
#include "models/registry.h"
#include "models/tokenizer_configs.h"

namespace fairlead {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr int kMaxTokens = 1 << 28;

// Null where there is no such file.
absl::StatusOr<Json> ReadJson(const std::string& path) {
  const absl::StatusOr<MmapFile> file = MmapFile::Open(path, kMaxFileBytes);
  if (file.status().code() == absl::StatusCode::kNotFound) return Json();
  if (!file.ok()) return file.status();
  const auto bytes = file->bytes();
  absl::StatusOr<Json> json =
      ParseJson({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!json.ok()) return InFile(path, json.status());
  return json;
}

struct Modules {
  std::string pooling_folder = "1_Pooling";
  bool normalize = false;
};

// The last part of "sentence_transformers.models.Pooling".
std::string_view ModuleName(std::string_view type) {
  const size_t dot = type.rfind('.');
  return dot == std::string_view::npos ? type : type.substr(dot + 1);
}

// A transformer, a pooling, and perhaps a normalization, in this order.
absl::StatusOr<Modules> ParseModules(const Json& list) {
  constexpr std::array<std::string_view, 3> kOrder = {"Transformer", "Pooling", "Normalize"};
  if (!list.is_array()) return absl::InvalidArgumentError("not a list of modules");
  Modules modules;
  for (size_t i = 0; i < list.size(); ++i) {
    ConfigReader module(list[i], StrCat("module ", i, "."));
    const std::string type = module.String("type", ""), path = module.String("path", "");
    if (!module.ok()) return module.status();
    if (i >= kOrder.size() || ModuleName(type) != kOrder[i]) {
      return absl::UnimplementedError(
          StrCat("module ", i, " is ", ShortDump(Json(type)),
                 "; supported: a Transformer, a Pooling, and then no more or a Normalize"));
    }
    if (i == 0 && !path.empty()) {
      return absl::UnimplementedError(
          StrCat("the Transformer is in ", ShortDump(Json(path)), "; only \"\" is supported"));
    }
    if (i == 1) modules.pooling_folder = path;
    if (i == 2) modules.normalize = true;
  }
  const std::string& folder = modules.pooling_folder;
  if (list.size() < 2) {
    return absl::UnimplementedError("there is no module that pools");
  }
  const bool is_plain = !folder.empty() && folder != "." && folder != ".." &&
                        folder.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (!is_plain) {
    return absl::InvalidArgumentError(StrCat("the Pooling is in ", ShortDump(Json(folder)),
                                             "; that must be the name of a folder"));
  }
  return modules;
}

struct Mode {
  std::string_view key;   // pooling_mode_<key>
  std::string_view name;  // as the newer "pooling_mode" says
  Pooling pooling;
};
constexpr std::array kModes = {Mode{"mean_tokens", "mean", Pooling::kMean},
                               Mode{"cls_token", "cls", Pooling::kFirst},
                               Mode{"lasttoken", "lasttoken", Pooling::kLast}};

// Exactly one mode. A file that leaves mean_tokens out asks for it, as Sentence Transformers'
// default does.
absl::StatusOr<Pooling> ParsePoolingModule(const Json& json) {
  constexpr std::string_view kPrefix = "pooling_mode_";
  ConfigReader reader(json);
  std::vector<std::string> chosen;
  if (const Json* name = reader.Find("pooling_mode"); name != nullptr) {
    chosen.push_back(reader.String("pooling_mode", ""));
  } else if (json.is_object()) {
    for (const auto& [key, value] : json.items()) {
      if (!key.starts_with(kPrefix)) continue;
      if (reader.Bool(key, false)) chosen.push_back(key.substr(kPrefix.size()));
    }
    if (!json.contains("pooling_mode_mean_tokens")) chosen.emplace_back("mean_tokens");
  }
  if (!reader.ok()) return reader.status();
  if (chosen.size() != 1) {
    return absl::UnimplementedError(
        StrCat("pools in ", chosen.size(), " ways",
               chosen.empty() ? "" : StrCat(" (", chosen[0], ", ", chosen[1], ")"),
               "; exactly one of mean, cls and lasttoken is supported"));
  }
  for (const Mode& mode : kModes) {
    if (chosen[0] == mode.key || chosen[0] == mode.name) return mode.pooling;
  }
  return absl::UnimplementedError(StrCat("pooling ", ShortDump(Json(chosen[0])),
                                         " is not supported; known: mean, cls, lasttoken"));
}

// The name of the prompt that Sentence Transformers puts before a text unless it is told another.
absl::StatusOr<std::string> ReadPrompt(const std::string& folder) {
  const std::string path = StrCat(folder, "/config_sentence_transformers.json");
  const absl::StatusOr<Json> config = ReadJson(path);
  if (!config.ok()) return config.status();
  if (config->is_null()) return "";
  ConfigReader reader(*config);
  std::string name = reader.String("default_prompt_name", "");
  if (!reader.ok()) return InFile(path, reader.status());
  const Json* prompts = reader.Find("prompts");
  if (prompts == nullptr || !prompts->is_object()) return "";
  const auto found = prompts->find(name);
  return found == prompts->end() || *found == "" ? "" : name;
}

absl::StatusOr<std::optional<PoolingConfig>> ReadFolder(const WeightSource& source) {
  const std::string& path = source.path();
  const std::string modules_path = StrCat(path, "/modules.json");
  const absl::StatusOr<Json> list = ReadJson(modules_path);
  if (!list.ok()) return list.status();
  Modules modules;
  if (!list->is_null()) {
    absl::StatusOr<Modules> parsed = ParseModules(*list);
    if (!parsed.ok()) return InFile(modules_path, parsed.status());
    modules = *std::move(parsed);
  }
  const std::string pooling_path = StrCat(path, "/", modules.pooling_folder, "/config.json");
  const absl::StatusOr<Json> module = ReadJson(pooling_path);
  if (!module.ok()) return module.status();
  if (module->is_null()) {
    if (list->is_null()) return std::nullopt;
    return absl::NotFoundError(StrCat(pooling_path, " is missing; modules.json names it"));
  }
  const absl::StatusOr<Pooling> pooling = ParsePoolingModule(*module);
  if (!pooling.ok()) return InFile(pooling_path, pooling.status());
  PoolingConfig config = {.pooling = *pooling, .normalize = modules.normalize};
  const absl::StatusOr<int> max_tokens = MaxTextTokens(source);
  if (!max_tokens.ok()) return max_tokens.status();
  config.max_tokens = *max_tokens;
  absl::StatusOr<std::string> prompt = ReadPrompt(path);
  if (!prompt.ok()) return prompt.status();
  config.prompt = *std::move(prompt);
  return config;
}

// enum llama_pooling_type: 0 none, 1 mean, 2 cls, 3 last, 4 rank.
absl::StatusOr<std::optional<PoolingConfig>> ReadGguf(const WeightSource& source) {
  const absl::StatusOr<std::string> architecture = ArchitectureName(source);
  if (!architecture.ok()) return architecture.status();
  const std::string key = StrCat(*architecture, ".pooling_type");
  constexpr std::array kTypes = {Pooling::kMean, Pooling::kFirst, Pooling::kLast};
  ConfigReader reader(source.metadata());
  const int type = reader.Int(key, 0, 1 << 20, 0);
  if (!reader.ok()) return InFile(source.path(), reader.status());
  if (type == 0) return std::nullopt;
  if (type > static_cast<int>(kTypes.size())) {
    return absl::UnimplementedError(StrCat(source.path(), ": metadata key ", ShortDump(Json(key)),
                                           " is ", type, "; known: 0 none, 1 mean, 2 cls, 3 last"));
  }
  return PoolingConfig{.pooling = kTypes[type - 1], .normalize = true};
}

}  // namespace

absl::StatusOr<int> MaxTextTokens(const WeightSource& source) {
  if (source.format() == WeightFormat::kGguf) return 0;
  const std::string path = StrCat(source.path(), "/sentence_bert_config.json");
  const absl::StatusOr<Json> config = ReadJson(path);
  if (!config.ok()) return config.status();
  if (!config->is_null()) {
    ConfigReader reader(*config);
    const int tokens = reader.Int("max_seq_length", 1, kMaxTokens, 0);
    if (!reader.ok()) return InFile(path, reader.status());
    if (tokens > 0) return tokens;
  }
  const absl::StatusOr<Json> tokenizer =
      ReadOptionalJson(StrCat(source.path(), "/tokenizer_config.json"));
  if (!tokenizer.ok()) return tokenizer.status();
  const auto found = tokenizer->find("model_max_length");
  if (found == tokenizer->end() || !found->is_number()) return 0;
  const double tokens = found->get<double>();  // 1e30 is usual
  return tokens >= 1 && tokens <= kMaxTokens ? static_cast<int>(tokens) : 0;
}

absl::StatusOr<std::optional<PoolingConfig>> ReadPooling(const WeightSource& source) {
  return source.format() == WeightFormat::kGguf ? ReadGguf(source) : ReadFolder(source);
}

}  // namespace fairlead
