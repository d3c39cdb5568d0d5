// SPDX-License-Identifier: Apache-2.0
#include "models/text_part.h"

#include <array>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

struct Composite {
  std::string_view name;        // architectures[0]
  std::string_view model_type;  // of its text_config
  std::string_view text_name;
};

constexpr std::array kComposites = {
    Composite{"Gemma3ForConditionalGeneration", "gemma3_text", "Gemma3ForCausalLM"},
    Composite{"Mistral3ForConditionalGeneration", "mistral", "MistralForCausalLM"},
};

// As published files have it, and as transformers names the modules since version 4.52.
constexpr std::array kPrefixes = {
    std::pair<std::string_view, std::string_view>{"language_model.model.", "model."},
    std::pair<std::string_view, std::string_view>{"language_model.lm_head.", "lm_head."},
    std::pair<std::string_view, std::string_view>{"model.language_model.", "model."},
    std::pair<std::string_view, std::string_view>{"lm_head.", "lm_head."},
};

const Composite* FindComposite(const Json& config) {
  const auto names = config.find("architectures");
  if (names == config.end() || !names->is_array() || names->empty()) return nullptr;
  for (const Composite& composite : kComposites) {
    if (names->front() == std::string(composite.name)) return &composite;
  }
  return nullptr;
}

// False for a tensor of another part.
bool Rename(std::string* name) {
  for (const auto& [prefix, plain] : kPrefixes) {
    if (!name->starts_with(prefix)) continue;
    *name = StrCat(plain, name->substr(prefix.size()));
    return true;
  }
  return false;
}

}  // namespace

absl::Status TakeTextPart(CheckpointContents& contents) {
  const Composite* composite = FindComposite(contents.config);
  if (composite == nullptr) return absl::OkStatus();
  const auto found = contents.config.find("text_config");
  if (found == contents.config.end() || !found->is_object()) {
    return absl::InvalidArgumentError(StrCat(contents.path,
                                             "/config.json: config key \"text_config\" of ",
                                             composite->name, " must be an object"));
  }
  Json text = std::move(*found);
  if (const auto type = text.find("model_type");
      type != text.end() && *type != std::string(composite->model_type)) {
    return absl::UnimplementedError(StrCat(contents.path, "/config.json: text_config's model_type ",
                                           ShortDump(*type), " in ", composite->name,
                                           " is not supported; known: ", composite->model_type));
  }
  // The whole checkpoint's, where the part does not say.
  for (const char* key : {"torch_dtype", "dtype", "quantization_config", "compression_config"}) {
    const auto whole = contents.config.find(key);
    if (whole != contents.config.end() && !text.contains(key)) text[key] = *whole;
  }
  // The head belongs to the whole, whose config classes tie it unless told otherwise.
  const auto tied = contents.config.find("tie_word_embeddings");
  text["tie_word_embeddings"] = tied == contents.config.end() ? Json(true) : *tied;
  text["architectures"] = Json::array({std::string(composite->text_name)});
  text[std::string(kTextPartOf)] = std::string(composite->name);
  contents.config = std::move(text);
  std::erase_if(contents.tensors, [](WeightInfo& tensor) { return !Rename(&tensor.name); });
  std::erase_if(contents.skipped, [](SkippedTensor& tensor) { return !Rename(&tensor.name); });
  return absl::OkStatus();
}

}  // namespace fairlead
