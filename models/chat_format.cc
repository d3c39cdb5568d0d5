// SPDX-License-Identifier: Apache-2.0
// Finds a model's chat template and its special tokens: GGUF metadata, or the files of a Hugging
// Face folder.
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "kernels/strings.h"
#include "models/chat_template.h"
#include "models/jinja/status_macros.h"
#include "models/mmap_file.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

// The whole file, or nothing if there is none.
absl::StatusOr<std::optional<std::string>> ReadIfThere(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  absl::StatusOr<MmapFile> file = MmapFile::Open(path.string());
  if (!file.ok()) return file.status();
  return std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
}

const Json* FindMember(const Json& object, const std::string& name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Malformed(std::string_view where, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(where, ": ", what));
}

// "chat_template": a string, or a list of {name, template} of which `default` counts.
absl::StatusOr<std::string> TemplateFrom(const Json& value, std::string_view where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return Malformed(where, "chat_template is neither a string nor a list");
  std::vector<std::string> names;
  for (const Json& entry : value) {
    const Json* name = FindMember(entry, "name");
    const Json* source = FindMember(entry, "template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return Malformed(where, "an entry of chat_template lacks a string name or template");
    }
    if (*name == "default") return source->get<std::string>();
    names.push_back(name->get<std::string>());
  }
  return Malformed(where, StrCat("chat_template has no entry named default, only: ",
                                 absl::StrJoin(names, ", ")));
}

// A special token: a string, or an object that holds it as "content".
absl::StatusOr<std::string> SpecialToken(const Json& config, const std::string& key,
                                         std::string_view where) {
  const Json* token = FindMember(config, key);
  if (token != nullptr && token->is_object()) token = FindMember(*token, "content");
  if (token == nullptr) return std::string();
  if (!token->is_string()) return Malformed(where, StrCat(key, " is not a string"));
  return token->get<std::string>();
}

absl::StatusOr<ChatFormat> Finish(ChatFormat format, bool has_template) {
  if (has_template) {
    JINJA_ASSIGN_OR_RETURN(format.chat_template, ParseChatTemplate(format.source));
  }
  return format;
}

absl::StatusOr<ChatFormat> LoadFromFolder(const fs::path& folder) {
  ChatFormat format;
  bool has_template = false;
  const fs::path config_path = folder / "tokenizer_config.json";
  JINJA_ASSIGN_OR_RETURN(const std::optional<std::string> config_text, ReadIfThere(config_path));
  if (config_text) {
    const std::string where = config_path.string();
    absl::StatusOr<Json> config = ParseJson(*config_text);
    if (!config.ok()) return Malformed(where, std::string(config.status().message()));
    JINJA_ASSIGN_OR_RETURN(format.bos_token, SpecialToken(*config, "bos_token", where));
    JINJA_ASSIGN_OR_RETURN(format.eos_token, SpecialToken(*config, "eos_token", where));
    if (const Json* source = FindMember(*config, "chat_template")) {
      JINJA_ASSIGN_OR_RETURN(format.source, TemplateFrom(*source, where));
      has_template = true;
    }
  }
  JINJA_ASSIGN_OR_RETURN(std::optional<std::string> own_file,
                         ReadIfThere(folder / "chat_template.jinja"));
  if (own_file) {
    format.source = *std::move(own_file);
    has_template = true;
  }
  return Finish(std::move(format), has_template);
}

// The text of the token whose id is metadata[key]; "" if there is none.
absl::StatusOr<std::string> GgufToken(const Json& metadata, const std::string& key,
                                      std::string_view where) {
  const Json* id = FindMember(metadata, key);
  const Json* tokens = FindMember(metadata, "tokenizer.ggml.tokens");
  if (id == nullptr || tokens == nullptr) return std::string();
  if (!id->is_number_integer() || id->get<int64_t>() < 0 || !tokens->is_array() ||
      id->get<uint64_t>() >= tokens->size()) {
    return Malformed(where, StrCat(key, " is ", id->dump(), ", not the id of a token"));
  }
  const Json& token = (*tokens)[id->get<size_t>()];
  if (!token.is_string())
    return Malformed(where, "tokenizer.ggml.tokens holds what is not a string");
  return token.get<std::string>();
}

absl::StatusOr<ChatFormat> LoadFromGguf(const Json& metadata, const std::string& where) {
  ChatFormat format;
  JINJA_ASSIGN_OR_RETURN(format.bos_token,
                         GgufToken(metadata, "tokenizer.ggml.bos_token_id", where));
  JINJA_ASSIGN_OR_RETURN(format.eos_token,
                         GgufToken(metadata, "tokenizer.ggml.eos_token_id", where));
  const Json* source = FindMember(metadata, "tokenizer.chat_template");
  if (source != nullptr) {
    if (!source->is_string()) return Malformed(where, "tokenizer.chat_template is not a string");
    format.source = source->get<std::string>();
  }
  return Finish(std::move(format), source != nullptr);
}

}  // namespace

absl::StatusOr<ChatFormat> LoadChatFormat(const WeightSource& source) {
  if (source.format() == WeightFormat::kGguf) {
    return LoadFromGguf(source.metadata(), source.path());
  }
  return LoadFromFolder(source.path());
}

absl::StatusOr<ChatFormat> LoadChatFormatFromPath(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return absl::NotFoundError(StrCat("no such file: ", path));
  if (fs::is_directory(status)) return LoadFromFolder(path);
  if (fs::path(path).filename() == "tokenizer.json") {
    return LoadFromFolder(fs::path(path).parent_path());
  }
  JINJA_ASSIGN_OR_RETURN(const std::unique_ptr<WeightSource> source, OpenWeights(path));
  return LoadChatFormat(*source);
}

}  // namespace fairlead
