// SPDX-License-Identifier: Apache-2.0
// Finds a model's chat template and its special tokens: GGUF metadata, or the files of a Hugging
// Face folder.
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "kernels/strings.h"
#include "models/chat_template.h"
#include "models/config_reader.h"
#include "models/jinja/status_macros.h"
#include "models/mmap_file.h"
#include "models/tokenizer_configs.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

// The whole file, or nothing if there is none.
absl::StatusOr<std::optional<std::string>> ReadTemplate(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  absl::StatusOr<MmapFile> file = MmapFile::Open(path.string(), kMaxTemplateBytes);
  if (!file.ok()) return file.status();
  return std::string(TextOf(*file));
}

const Json* FindMember(const Json& object, const std::string& name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Malformed(std::string_view where, std::string_view what) {
  return absl::InvalidArgumentError(StrCat(where, ": ", what));
}

constexpr std::string_view kDefault = "default";
constexpr std::string_view kToolUse = "tool_use";
constexpr size_t kMostTemplates = 64;
constexpr size_t kLongestName = 64;                    // that an error repeats
using Templates = std::map<std::string, std::string>;  // name -> text

// "chat_template": a string, or a list of {name, template}.
absl::StatusOr<Templates> TemplatesFrom(const Json& value, std::string_view where) {
  Templates templates;
  if (value.is_string()) {
    templates.emplace(kDefault, value.get<std::string>());
    return templates;
  }
  if (!value.is_array()) return Malformed(where, "chat_template is neither a string nor a list");
  for (const Json& entry : value) {
    const Json* name = FindMember(entry, "name");
    const Json* source = FindMember(entry, "template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return Malformed(where, "an entry of chat_template lacks a string name or template");
    }
    // Of two with one name the later counts, as in Python's dict.
    templates.insert_or_assign(name->get<std::string>(), source->get<std::string>());
  }
  return templates;
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

// `where`: the file that has the templates, or their folder.
absl::StatusOr<ChatFormat> Finish(ChatFormat format, const Templates& templates,
                                  std::string_view where) {
  if (templates.size() > kMostTemplates) {
    return Malformed(where, StrCat("there are ", templates.size(), " chat templates; at most ",
                                   kMostTemplates, " are allowed"));
  }
  for (const auto& [name, source] : templates) {
    if (name != kDefault) {
      format.named_templates.emplace(name, ParseChatTemplate(source));
      continue;
    }
    format.source = source;
    absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ParseChatTemplate(source);
    if (!parsed.ok()) return Malformed(where, std::string(parsed.status().message()));
    format.chat_template = *std::move(parsed);
  }
  return format;
}

// additional_chat_templates/NAME.jinja.
absl::Status ReadAdditional(const fs::path& folder, Templates& templates) {
  std::error_code error;
  size_t seen = 0;
  for (fs::directory_iterator entry(folder / "additional_chat_templates", error), end;
       !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() != ".jinja") continue;
    if (++seen > kMostTemplates)
      return Malformed((folder / "additional_chat_templates").string(),
                       StrCat("has more than ", kMostTemplates, " templates"));
    JINJA_ASSIGN_OR_RETURN(std::optional<std::string> text, ReadTemplate(entry->path()));
    if (text) templates.insert_or_assign(entry->path().stem().string(), *std::move(text));
  }
  return absl::OkStatus();
}

void AddToken(std::string_view name, std::string token, ChatFormat& format) {
  if (token.empty()) return;
  if (name == "bos_token") {
    format.bos_token = std::move(token);
  } else if (name == "eos_token") {
    format.eos_token = std::move(token);
  } else {
    format.more_tokens.emplace(name, std::move(token));
  }
}

absl::StatusOr<ChatFormat> LoadFromFolder(const fs::path& folder) {
  ChatFormat format;
  Templates templates;
  const fs::path config_path = folder / "tokenizer_config.json";
  const std::string where = config_path.string();
  JINJA_ASSIGN_OR_RETURN(const Json config, ReadOptionalJson(config_path));
  for (const std::string_view key : kSpecialTokenNames) {
    JINJA_ASSIGN_OR_RETURN(std::string token, SpecialToken(config, std::string(key), where));
    AddToken(key, std::move(token), format);
  }
  if (const Json* source = FindMember(config, "chat_template")) {
    JINJA_ASSIGN_OR_RETURN(templates, TemplatesFrom(*source, where));
  }
  // Files of their own take the place of all that the config has.
  Templates files;
  JINJA_ASSIGN_OR_RETURN(std::optional<std::string> own_file,
                         ReadTemplate(folder / "chat_template.jinja"));
  if (own_file) files.emplace(kDefault, *std::move(own_file));
  JINJA_RETURN_IF_ERROR(ReadAdditional(folder, files));
  if (files.empty()) return Finish(std::move(format), templates, where);
  return Finish(std::move(format), files, folder.string());
}

// The text of the token whose id is metadata[key]; "" if there is none.
absl::StatusOr<std::string> GgufToken(const Json& metadata, const std::string& key,
                                      std::string_view where) {
  const Json* id = FindMember(metadata, key);
  const Json* tokens = FindMember(metadata, "tokenizer.ggml.tokens");
  if (id == nullptr || tokens == nullptr) return std::string();
  if (!id->is_number_integer() || id->get<int64_t>() < 0 || !tokens->is_array() ||
      id->get<uint64_t>() >= tokens->size()) {
    return Malformed(where, StrCat(key, " is ", ShortDump(*id), ", not the id of a token"));
  }
  const Json& token = (*tokens)[id->get<size_t>()];
  if (!token.is_string())
    return Malformed(where, "tokenizer.ggml.tokens holds what is not a string");
  return token.get<std::string>();
}

absl::StatusOr<ChatFormat> LoadFromGguf(const Json& metadata, const std::string& where) {
  ChatFormat format;
  constexpr std::pair<std::string_view, std::string_view> kTokens[] = {
      {"bos_token", "bos"},       {"eos_token", "eos"}, {"unk_token", "unknown"},
      {"sep_token", "seperator"},  // as the format spells it
      {"pad_token", "padding"},   {"cls_token", "cls"}, {"mask_token", "mask"}};
  for (const auto& [name, key] : kTokens) {
    JINJA_ASSIGN_OR_RETURN(
        std::string token,
        GgufToken(metadata, StrCat("tokenizer.ggml.", std::string(key), "_token_id"), where));
    AddToken(name, std::move(token), format);
  }
  // The default one, and others as tokenizer.chat_template.NAME.
  constexpr std::string_view kKey = "tokenizer.chat_template";
  Templates templates;
  for (const auto& [key, value] : metadata.items()) {
    if (!key.starts_with(kKey)) continue;
    const std::string_view rest = std::string_view(key).substr(kKey.size());
    if (!rest.empty() && rest.front() != '.') continue;
    if (!value.is_string()) return Malformed(where, StrCat(key, " is not a string"));
    templates.insert_or_assign(std::string(rest.empty() ? kDefault : rest.substr(1)),
                               value.get<std::string>());
  }
  return Finish(std::move(format), templates, where);
}

}  // namespace

absl::StatusOr<const ChatTemplate*> ChatFormat::Choose(const std::string& name,
                                                       bool has_tools) const {
  std::string wanted = name;
  if (wanted.empty())
    wanted = has_tools && named_templates.contains(std::string(kToolUse)) ? kToolUse : kDefault;
  if (wanted == kDefault && chat_template != nullptr) return chat_template.get();
  const auto found = named_templates.find(wanted);
  if (found != named_templates.end()) {
    if (!found->second.ok()) return found->second.status();
    return found->second->get();
  }
  std::vector<std::string> names;
  if (chat_template != nullptr) names.emplace_back(kDefault);
  for (const auto& [other, unused] : named_templates) names.push_back(other);
  return absl::InvalidArgumentError(
      StrCat("the model has no chat template named '", wanted.substr(0, kLongestName),
             wanted.size() > kLongestName ? "...'" : "'", ", only: ", absl::StrJoin(names, ", ")));
}

void ChatFormat::SetSpecialTokens(Json& variables) const {
  for (const std::string_view name : kSpecialTokenNames) variables.erase(std::string(name));
  variables["bos_token"] = bos_token;
  variables["eos_token"] = eos_token;
  for (const auto& [name, token] : more_tokens) variables[name] = token;
}

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
