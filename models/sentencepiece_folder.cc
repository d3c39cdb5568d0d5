// SPDX-License-Identifier: Apache-2.0
#include "models/sentencepiece_folder.h"

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/sentencepiece_model.h"
#include "models/tokenizer_configs.h"
#include "models/vocabulary.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<SentencePieceFile> ReadFile(const std::string& path) {
  absl::StatusOr<MmapFile> mapped = MmapFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<SentencePieceFile> file = ParseSentencePieceModel(TextOf(*mapped));
  if (!file.ok()) return InFile(path, file.status());
  return file;
}

// The files that list added tokens.
struct Lists {
  Json tokenizer_config;
  Json special_tokens_map;
  Json added_tokens;
  bool any = false;  // there is one of them, or a config.json
};

absl::StatusOr<Lists> ReadLists(const fs::path& folder) {
  Lists lists;
  std::error_code error;
  lists.any = fs::exists(folder / "config.json", error);
  const std::pair<const char*, Json*> file[] = {
      {"tokenizer_config.json", &lists.tokenizer_config},
      {"special_tokens_map.json", &lists.special_tokens_map},
      {"added_tokens.json", &lists.added_tokens}};
  for (const auto& [name, json] : file) {
    absl::StatusOr<Json> read = ReadOptionalJson(folder / name);
    if (!read.ok()) return read.status();
    *json = *std::move(read);
    lists.any |= !json->is_null();
  }
  return lists;
}

// By text, so that a later list changes what an earlier one said.
using AddedByText = std::map<std::string, AddedToken>;

absl::Status ReadDecoderEntry(const std::string& key, const Json& json, AddedByText* added) {
  ConfigReader reader(json, "added_tokens_decoder.");
  AddedToken token;
  if (!absl::SimpleAtoi(key, &token.id) || token.id < 0 || token.id >= Vocabulary::kMaxTokens)
    return absl::InvalidArgumentError(StrCat("added_tokens_decoder: \"", key, "\" is no token id"));
  token.text = reader.String("content", "");
  token.special = reader.Bool("special", false);
  token.single_word = reader.Bool("single_word", false);
  token.lstrip = reader.Bool("lstrip", false);
  token.rstrip = reader.Bool("rstrip", false);
  if (!reader.ok()) return reader.status();
  if (!token.text.empty()) (*added)[token.text] = token;
  return absl::OkStatus();
}

// Every "..._token" and what "additional_special_tokens" lists.
void CollectSpecialNames(const Json& config, std::set<std::string>* names) {
  if (!config.is_object()) return;
  const auto add = [&](const Json& value) {
    const Json wrapped = {{"token", value}};
    if (const std::optional<TokenName> name = FindTokenName(wrapped, "token"))
      names->insert(name->text);
  };
  for (const auto& [key, value] : config.items()) {
    if (key.ends_with("_token")) add(value);
    if (key != "additional_special_tokens" || !value.is_array()) continue;
    for (const Json& item : value) add(item);
  }
}

absl::StatusOr<std::vector<AddedToken>> ListAddedTokens(const Lists& lists,
                                                        const SentencePieceParts& parts) {
  AddedByText added;
  std::map<std::string_view, Token> id_of;
  for (size_t id = 0; id < parts.piece.size(); ++id) {
    const std::string_view text = parts.piece[id].text;
    id_of.emplace(text, static_cast<Token>(id));
    const PieceType type = parts.piece[id].type;
    if (type == PieceType::kControl || type == PieceType::kUnknown)
      added[std::string(text)] = {
          .text = std::string(text), .id = static_cast<Token>(id), .special = true};
  }
  if (lists.added_tokens.is_object()) {
    for (const auto& [text, id] : lists.added_tokens.items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= Vocabulary::kMaxTokens)
        return absl::InvalidArgumentError(
            StrCat("added_tokens.json: ", ShortDump(id), " is no token id"));
      if (!text.empty()) added[text] = {.text = text, .id = id.get<Token>()};
    }
  }
  if (const auto found = lists.tokenizer_config.find("added_tokens_decoder");
      found != lists.tokenizer_config.end() && found->is_object()) {
    for (const auto& [key, value] : found->items()) {
      absl::Status status = ReadDecoderEntry(key, value, &added);
      if (!status.ok()) return status;
    }
  }
  std::set<std::string> names;
  CollectSpecialNames(lists.special_tokens_map, &names);
  CollectSpecialNames(lists.tokenizer_config, &names);
  for (const std::string& name : names) {
    if (const auto found = added.find(name); found != added.end()) {
      found->second.special = true;
    } else if (const auto piece = id_of.find(name); piece != id_of.end()) {
      added[name] = {.text = name, .id = piece->second, .special = true};
    }
  }
  std::vector<AddedToken> out;
  for (auto& [text, token] : added) out.push_back(std::move(token));
  return out;
}

std::optional<Token> Resolve(const TokenName& name, const SentencePieceParts& parts) {
  if (name.id) return name.id;
  for (const AddedToken& token : parts.added) {
    if (token.text == name.text) return token.id;
  }
  return std::nullopt;
}

// What is put around a text, what begins and what ends one.
absl::Status ReadRoles(const fs::path& folder, const Lists& lists, SentencePieceFile* file) {
  SentencePieceParts& parts = file->parts;
  std::optional<TokenName> bos = TokenName{.id = file->bos, .text = ""};
  std::vector<TokenName> stop;
  if (absl::Status status = ReadFolderConfigs(folder, &stop, &bos); !status.ok()) return status;
  if (bos) parts.bos = Resolve(*bos, parts);
  std::optional<Token> eos = file->eos;
  if (lists.tokenizer_config.is_object() && lists.tokenizer_config.contains("eos_token")) {
    const std::optional<TokenName> name = FindTokenName(lists.tokenizer_config, "eos_token");
    eos = name ? Resolve(*name, parts) : std::nullopt;
  }
  if (eos) parts.stop.push_back(*eos);
  for (const TokenName& name : stop) {
    if (const std::optional<Token> id = Resolve(name, parts)) parts.stop.push_back(*id);
  }
  static const Json kEmpty = Json::object();
  ConfigReader reader(lists.tokenizer_config.is_object() ? lists.tokenizer_config : kEmpty);
  const bool t5 = reader.String("tokenizer_class", "").starts_with("T5");
  const bool add_bos = reader.Bool("add_bos_token", !t5);
  const bool add_eos = reader.Bool("add_eos_token", t5);
  parts.dummy_prefix_at_start_only = !reader.Bool("legacy", true);
  if (!reader.ok()) return InFile((folder / "tokenizer_config.json").string(), reader.status());
  parts.post_processor =
      PostProcessor::Around(add_bos ? parts.bos : std::nullopt, add_eos ? eos : std::nullopt);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const std::string& path, SentencePieceFile file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      MakeSentencePieceTokenizer(std::move(file.parts));
  if (!tokenizer.ok()) return InFile(path, tokenizer.status());
  return tokenizer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceFile(const std::string& path) {
  absl::StatusOr<SentencePieceFile> file = ReadFile(path);
  if (!file.ok()) return file.status();
  file->parts.bos = file->bos;
  if (file->eos) file->parts.stop.push_back(*file->eos);
  return Make(path, *std::move(file));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceFolder(const fs::path& folder) {
  const std::string path = (folder / "tokenizer.model").string();
  absl::StatusOr<Lists> lists = ReadLists(folder);
  if (!lists.ok()) return lists.status();
  if (!lists->any) return LoadSentencePieceFile(path);
  absl::StatusOr<SentencePieceFile> file = ReadFile(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::vector<AddedToken>> added = ListAddedTokens(*lists, file->parts);
  if (!added.ok()) return InFile(folder.string(), added.status());
  file->parts.added = *std::move(added);
  if (absl::Status status = ReadRoles(folder, *lists, &*file); !status.ok()) return status;
  return Make(path, *std::move(file));
}

}  // namespace fairlead
