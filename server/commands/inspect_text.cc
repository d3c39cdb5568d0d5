// SPDX-License-Identifier: Apache-2.0
#include "server/commands/inspect_text.h"

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/strings.h"
#include "models/chat_template.h"
#include "models/mmap_file.h"
#include "models/tokenizer.h"
#include "models/tokenizer_configs.h"
#include "models/tokenizer_json.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// The string at `key` of an object, else null.
Json StringAt(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? *found : Json(nullptr);
}

// "type" of tokenizer.json's model; null where the file has none or cannot be read.
Json ModelType(const fs::path& path) {
  const absl::StatusOr<MmapFile> file = MmapFile::Open(path.string());
  if (!file.ok()) return nullptr;
  const absl::StatusOr<TokenizerFile> parsed = ParseTokenizerFile(TextOf(*file));
  if (!parsed.ok() || !parsed->rest.is_object()) return nullptr;
  const auto model = parsed->rest.find("model");
  return model == parsed->rest.end() ? Json(nullptr) : StringAt(*model, "type");
}

Json TokenizerClass(const fs::path& path) {
  const absl::StatusOr<Json> parsed = ReadOptionalJson(path);
  return parsed.ok() ? StringAt(*parsed, "tokenizer_class") : Json(nullptr);
}

// {"model", "name"}, both null where there is no tokenizer.
Json TokenizerNames(const WeightSource& source) {
  if (source.format() == WeightFormat::kGguf) {
    return {{"model", StringAt(source.metadata(), "tokenizer.ggml.model")},
            {"name", StringAt(source.metadata(), "tokenizer.ggml.pre")}};
  }
  const fs::path folder = source.path();
  Json model;
  if (Exists(folder / "tokenizer.json")) {
    model = ModelType(folder / "tokenizer.json");
  } else if (Exists(folder / "tokenizer.model")) {
    model = "SentencePiece";
  }
  return {{"model", std::move(model)}, {"name", TokenizerClass(folder / "tokenizer_config.json")}};
}

// What a template writes around messages, and what that markup is commonly called; the first that
// is found counts.
struct Markup {
  std::string_view text;
  const char* name;
};
constexpr std::array kMarkups = {
    Markup{"<|channel|>", "harmony"},
    Markup{"<|im_start|>", "chatml"},
    Markup{"<|start_header_id|>", "llama3"},
    Markup{"<start_of_turn>", "gemma"},
    Markup{"<|start_of_role|>", "granite"},
    Markup{"<｜User｜>", "deepseek"},
    Markup{"[INST]", "mistral"},
    Markup{"<|end|>", "phi3"},
};

Json MarkupName(std::string_view source) {
  for (const Markup& markup : kMarkups) {
    if (source.find(markup.text) != std::string_view::npos) return markup.name;
  }
  return nullptr;
}

std::string TemplatePlace(const WeightSource& source) {
  if (source.format() == WeightFormat::kGguf) return "tokenizer.chat_template";
  const char* own_file = "chat_template.jinja";
  return Exists(fs::path(source.path()) / own_file) ? own_file : "tokenizer_config.json";
}

}  // namespace

Json TokenizerInfo(const WeightSource& source, Json& unusual) {
  Json info = TokenizerNames(source);
  const auto tokenizer = LoadTokenizer(source);
  if (!tokenizer.ok()) {
    unusual.push_back(StrCat("tokenizer: ", std::string(tokenizer.status().message())));
    return info["model"].is_null() ? Json(nullptr) : info;
  }
  Json stops = Json::array();
  for (const Token token : (*tokenizer)->stop_tokens())
    stops.push_back({{"id", token}, {"text", (*tokenizer)->Spelling(token)}});
  const std::optional<Token> bos = (*tokenizer)->bos();
  info["vocabulary"] = (*tokenizer)->vocab_size();
  info["bos"] = bos ? Json(*bos) : Json(nullptr);
  info["stop_tokens"] = std::move(stops);
  return info;
}

Json TemplateInfo(const WeightSource& source, Json& unusual) {
  const absl::StatusOr<ChatFormat> format = LoadChatFormat(source);
  if (!format.ok()) {
    unusual.push_back(StrCat("chat template: ", std::string(format.status().message())));
    return nullptr;
  }
  if (!format->has_template()) {
    unusual.push_back("there is no chat template");
    return nullptr;
  }
  return {{"name", MarkupName(format->source)},
          {"source", TemplatePlace(source)},
          {"characters", format->source.size()},
          {"bos_token", format->bos_token},
          {"eos_token", format->eos_token}};
}

}  // namespace fairlead
