// SPDX-License-Identifier: Apache-2.0
#include "models/post_processor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/vocabulary.h"

namespace fairlead {
namespace {

constexpr size_t kMaxTemplates = 16;
constexpr size_t kMaxTemplateTokens = 256;
constexpr int kLastToken = static_cast<int>(Vocabulary::kMaxTokens) - 1;

absl::Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("post_processor: ", what));
}

std::optional<Token> ParseToken(const Json& json) {
  if (!json.is_number_integer()) return std::nullopt;
  const auto id = json.get<int64_t>();
  if (id < 0 || id > kLastToken) return std::nullopt;
  return static_cast<Token>(id);
}

// special_tokens: {"<s>": {"ids": [0], ...}, ...}
absl::StatusOr<std::vector<Token>> FindSpecial(const Json& special_tokens,
                                               const std::string& name) {
  const auto found = special_tokens.find(name);
  if (found == special_tokens.end() || !found->is_object() || !found->contains("ids") ||
      !(*found)["ids"].is_array()) {
    return Malformed(
        StrCat("the template names \"", name, "\", which has no ids in special_tokens"));
  }
  std::vector<Token> ids;
  for (const Json& item : (*found)["ids"]) {
    const std::optional<Token> id = ParseToken(item);
    if (!id) return Malformed(StrCat("id ", DumpJson(item), " of \"", name, "\""));
    ids.push_back(*id);
  }
  return ids;
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const Json& json) {
  PostProcessor out;
  if (json.is_null()) return out;
  absl::Status status = out.Add(json);
  if (!status.ok()) return status;
  return out;
}

PostProcessor PostProcessor::Around(std::optional<Token> first, std::optional<Token> last) {
  PostProcessor out;
  Template around;
  if (first) around.push_back(first);
  around.push_back(std::nullopt);
  if (last) around.push_back(last);
  if (around.size() > 1) out.template_.push_back(std::move(around));
  return out;
}

absl::Status PostProcessor::Add(const Json& json) {
  ConfigReader reader(json, "post_processor.");
  const std::string type = reader.String("type", "");
  if (!reader.ok()) return reader.status();
  if (template_.size() >= kMaxTemplates) return Malformed("more than 16 templates");
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only
  if (type == "Sequence") {
    const Json* list = reader.Find("processors");
    if (list == nullptr || !list->is_array())
      return Malformed("Sequence needs a list \"processors\"");
    for (const Json& item : *list) {
      absl::Status status = Add(item);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (type != "TemplateProcessing" && type != "RobertaProcessing" && type != "BertProcessing") {
    return absl::UnimplementedError(
        StrCat("post_processor type \"", type,
               "\" is unknown; known: Sequence, ByteLevel, TemplateProcessing, "
               "RobertaProcessing, BertProcessing"));
  }
  absl::StatusOr<Template> parsed =
      type == "TemplateProcessing" ? ParseTemplate(json) : ParseClsSep(json);
  if (!parsed.ok()) return parsed.status();
  template_.push_back(*std::move(parsed));
  return absl::OkStatus();
}

absl::StatusOr<PostProcessor::Template> PostProcessor::ParseTemplate(const Json& json) {
  ConfigReader reader(json, "post_processor.");
  const Json* single = reader.Find("single");
  const Json* special_tokens = reader.Find("special_tokens");
  if (single == nullptr || !single->is_array())
    return Malformed("TemplateProcessing needs a list \"single\"");
  if (special_tokens == nullptr || !special_tokens->is_object()) {
    return Malformed("TemplateProcessing needs an object \"special_tokens\"");
  }
  Template out;
  for (const Json& piece : *single) {
    if (!piece.is_object() || piece.size() != 1 || !piece.begin()->is_object() ||
        !piece.begin()->contains("id") || !(*piece.begin())["id"].is_string()) {
      return Malformed(StrCat("template piece ", DumpJson(piece).substr(0, 80)));
    }
    const auto& id = (*piece.begin())["id"].get_ref<const std::string&>();
    if (piece.begin().key() == "Sequence" && id == "A") {
      out.push_back(std::nullopt);
    } else if (piece.begin().key() == "SpecialToken") {
      absl::StatusOr<std::vector<Token>> ids = FindSpecial(*special_tokens, id);
      if (!ids.ok()) return ids.status();
      out.insert(out.end(), ids->begin(), ids->end());
    } else {
      return Malformed(StrCat("template piece ", DumpJson(piece).substr(0, 80)));
    }
    if (out.size() > kMaxTemplateTokens) return Malformed("a template of more than 256 tokens");
  }
  // Each would double the text.
  if (std::count(out.begin(), out.end(), std::nullopt) != 1)
    return Malformed("a template must hold the text once");
  return out;
}

absl::StatusOr<PostProcessor::Template> PostProcessor::ParseClsSep(const Json& json) {
  Template out;
  for (const char* key : {"cls", "sep"}) {  // ["<s>", 0]
    const auto pair = json.find(key);
    const bool is_pair = pair != json.end() && pair->is_array() && pair->size() == 2;
    const std::optional<Token> id = is_pair ? ParseToken((*pair)[1]) : std::nullopt;
    if (!id) return Malformed(StrCat("\"", key, "\" must be [text, id]"));
    out.push_back(id);
  }
  out.insert(out.begin() + 1, std::nullopt);
  return out;
}

std::vector<Token> PostProcessor::Apply(std::vector<Token> tokens, bool add_special_tokens) const {
  if (!add_special_tokens) return tokens;
  for (const Template& pieces : template_) {
    std::vector<Token> out;
    out.reserve(tokens.size() + pieces.size());
    for (const std::optional<Token>& piece : pieces) {
      if (piece) {
        out.push_back(*piece);
      } else {
        out.insert(out.end(), tokens.begin(), tokens.end());
      }
    }
    tokens = std::move(out);
  }
  return tokens;
}

}  // namespace fairlead
