// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_vocabulary.h"

#include <string>

#include "kernels/strings.h"
#include "models/config_reader.h"

namespace fairlead {
namespace {

absl::Status WrongLength(std::string_view key, size_t length, size_t tokens) {
  return MalformedGguf(key, StrCat("has ", length, " entries for ", tokens, " tokens"));
}

absl::Status ReadTexts(const Json& metadata, GgufVocabulary* vocabulary) {
  absl::StatusOr<const Json*> tokens = FindGgufList(metadata, "tokens");
  if (!tokens.ok()) return tokens.status();
  if (*tokens == nullptr || (*tokens)->empty())
    return MalformedGguf("tokens", "is missing or empty");
  vocabulary->token.reserve((*tokens)->size());
  for (const Json& token : **tokens) {
    if (!token.is_string()) {
      return MalformedGguf("tokens",
                           StrCat("entry ", vocabulary->token.size(), " is not a string"));
    }
    vocabulary->token.push_back(token.get_ref<const std::string&>());
  }
  return absl::OkStatus();
}

absl::Status ReadTypes(const Json& metadata, GgufVocabulary* vocabulary) {
  absl::StatusOr<const Json*> types = FindGgufList(metadata, "token_type");
  if (!types.ok()) return types.status();
  if (*types == nullptr) return absl::OkStatus();
  if ((*types)->size() != vocabulary->token.size())
    return WrongLength("token_type", (*types)->size(), vocabulary->token.size());
  vocabulary->type.reserve((*types)->size());
  for (const Json& type : **types) {
    const size_t i = vocabulary->type.size();
    if (!type.is_number_integer())
      return MalformedGguf("token_type", StrCat("entry ", i, " is not an integer"));
    // 0 is "undefined" in old files.
    const bool known = type >= static_cast<int>(GgufTokenType::kNormal) &&
                       type <= static_cast<int>(GgufTokenType::kByte);
    vocabulary->type.push_back(known ? static_cast<GgufTokenType>(type.get<int>())
                                     : GgufTokenType::kNormal);
  }
  return absl::OkStatus();
}

absl::Status ReadScores(const Json& metadata, GgufVocabulary* vocabulary) {
  absl::StatusOr<const Json*> scores = FindGgufList(metadata, "scores");
  if (!scores.ok()) return scores.status();
  if (*scores == nullptr) return absl::OkStatus();
  if ((*scores)->size() != vocabulary->token.size())
    return WrongLength("scores", (*scores)->size(), vocabulary->token.size());
  vocabulary->score.reserve((*scores)->size());
  for (const Json& score : **scores) {
    if (!score.is_number()) {
      return MalformedGguf("scores",
                           StrCat("entry ", vocabulary->score.size(), " is not a number"));
    }
    vocabulary->score.push_back(score.get<float>());
  }
  return absl::OkStatus();
}

absl::Status ReadIds(const Json& metadata, GgufVocabulary* vocabulary) {
  ConfigReader reader(metadata);
  const auto read = [&](std::string_view name) -> std::optional<Token> {
    const std::string key = StrCat("tokenizer.ggml.", name, "_token_id");
    if (reader.Find(key) == nullptr) return std::nullopt;
    return reader.Int(key, 0, static_cast<int>(vocabulary->token.size()) - 1);
  };
  vocabulary->bos = read("bos");
  vocabulary->eos = read("eos");
  vocabulary->unknown = read("unknown");
  vocabulary->separator = read("seperator");  // as files spell it
  for (const std::optional<Token> stop : {vocabulary->eos, read("eot"), read("eom")}) {
    if (stop) vocabulary->stop.push_back(*stop);
  }
  return reader.status();
}

}  // namespace

absl::Status MalformedGguf(std::string_view key, std::string_view what) {
  return absl::InvalidArgumentError(StrCat("tokenizer.ggml.", key, " ", what));
}

absl::StatusOr<const Json*> FindGgufList(const Json& metadata, std::string_view key) {
  const auto found = metadata.find(StrCat("tokenizer.ggml.", key));
  if (found == metadata.end()) return nullptr;
  if (!found->is_array()) return MalformedGguf(key, "must be an array");
  return &*found;
}

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const Json& metadata) {
  GgufVocabulary vocabulary;
  for (const auto read : {ReadTexts, ReadTypes, ReadScores, ReadIds}) {
    if (absl::Status status = read(metadata, &vocabulary); !status.ok()) return status;
  }
  return vocabulary;
}

absl::StatusOr<PostProcessor> ReadGgufPostProcessor(const Json& metadata,
                                                    const GgufVocabulary& vocabulary, bool bos,
                                                    bool eos) {
  ConfigReader reader(metadata);
  const bool add_bos =
      reader.Bool("tokenizer.ggml.add_bos_token", bos && vocabulary.bos.has_value());
  const bool add_eos =
      reader.Bool("tokenizer.ggml.add_eos_token", eos && vocabulary.eos.has_value());
  if (!reader.ok()) return reader.status();
  if (add_bos && !vocabulary.bos)
    return MalformedGguf("add_bos_token", "is true, but there is no bos_token_id");
  if (add_eos && !vocabulary.eos)
    return MalformedGguf("add_eos_token", "is true, but there is no eos_token_id");
  return PostProcessor::Around(add_bos ? vocabulary.bos : std::nullopt,
                               add_eos ? vocabulary.eos : std::nullopt);
}

}  // namespace fairlead
