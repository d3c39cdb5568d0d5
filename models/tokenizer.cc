// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/bpe_tokenizer.h"
#include "models/config_reader.h"
#include "models/json.h"
#include "models/mmap_file.h"
#include "models/tokenizer_gguf.h"
#include "models/tokenizer_json.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), StrCat(path, ": ", status.message()));
}

std::string_view TextOf(const MmapFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// Null if there is no such file.
absl::StatusOr<Json> ReadOptionalJson(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return Json();
  absl::StatusOr<MmapFile> file = MmapFile::Open(path.string());
  if (!file.ok()) return file.status();
  absl::StatusOr<Json> json = ParseJson(TextOf(*file));
  if (!json.ok()) return InFile(path.string(), json.status());
  if (!json->is_object())
    return InFile(path.string(), absl::InvalidArgumentError("must hold an object"));
  return json;
}

// "eos_token_id": an id or a list of ids; a negative one means none.
absl::Status AddStopIds(const Json& config, std::vector<TokenName>* stop) {
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return absl::OkStatus();
  const Json list = found->is_array() ? *found : Json::array({*found});
  for (const Json& item : list) {
    const bool fits = item.is_number_integer() && item.get<int64_t>() < Vocabulary::kMaxTokens;
    if (!fits)
      return absl::InvalidArgumentError(
          StrCat("eos_token_id ", ShortDump(item), " is not a token id"));
    if (item.get<int64_t>() >= 0) stop->push_back({.id = item.get<Token>(), .text = ""});
  }
  return absl::OkStatus();
}

// A special token in tokenizer_config.json: its text, or an object that holds it as "content".
std::optional<TokenName> FindTokenName(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return std::nullopt;
  const Json* text = &*found;
  if (found->is_object()) {
    const auto content = found->find("content");
    if (content == found->end()) return std::nullopt;
    text = &*content;
  }
  if (!text->is_string()) return std::nullopt;
  return TokenName{.id = std::nullopt, .text = text->get<std::string>()};
}

// What stands beside a folder's tokenizer.json.
absl::Status ReadFolderConfigs(const fs::path& folder, BpeTokenizerParts* parts) {
  absl::StatusOr<Json> config = ReadOptionalJson(folder / "config.json");
  if (!config.ok()) return config.status();
  absl::StatusOr<Json> generation = ReadOptionalJson(folder / "generation_config.json");
  if (!generation.ok()) return generation.status();
  absl::StatusOr<Json> tokenizer = ReadOptionalJson(folder / "tokenizer_config.json");
  if (!tokenizer.ok()) return tokenizer.status();
  if (absl::Status status = AddStopIds(*config, &parts->stop); !status.ok()) {
    return InFile((folder / "config.json").string(), status);
  }
  if (absl::Status status = AddStopIds(*generation, &parts->stop); !status.ok()) {
    return InFile((folder / "generation_config.json").string(), status);
  }
  if (std::optional<TokenName> eos = FindTokenName(*tokenizer, "eos_token"))
    parts->stop.push_back(*std::move(eos));
  if (tokenizer->contains(
          "bos_token")) {  // null: this tokenizer has none, whatever the model's config says
    parts->bos = FindTokenName(*tokenizer, "bos_token");
  } else if (const auto id = config->find("bos_token_id");
             id != config->end() && id->is_number_unsigned() &&
             id->get<uint64_t>() < Vocabulary::kMaxTokens) {
    parts->bos = TokenName{.id = id->get<Token>(), .text = ""};
  }
  return absl::OkStatus();
}

// FOLDER is where the configs are, or empty.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(const std::string& path,
                                                             const fs::path& folder) {
  absl::StatusOr<MmapFile> mapped = MmapFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<TokenizerFile> file = ParseTokenizerFile(TextOf(*mapped));
  if (!file.ok()) return InFile(path, file.status());
  absl::StatusOr<BpeTokenizerParts> parts = DescribeTokenizerFile(*file);
  if (!parts.ok()) return InFile(path, parts.status());
  if (!folder.empty()) {
    if (absl::Status status = ReadFolderConfigs(folder, &*parts); !status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeBpeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return InFile(path, tokenizer.status());
  return tokenizer;
}

absl::Status SentencePieceUnknown(const std::string& path) {
  return absl::UnimplementedError(StrCat(path,
                                         ": a SentencePiece model; known: tokenizer.json, a "
                                         "GGUF file with tokenizer.ggml.model gpt2"));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadFolder(const fs::path& folder) {
  std::error_code error;
  const fs::path file = folder / "tokenizer.json";
  if (fs::exists(file, error)) return LoadTokenizerJson(file.string(), folder);
  const fs::path model = folder / "tokenizer.model";
  if (fs::exists(model, error)) return SentencePieceUnknown(model.string());
  return absl::NotFoundError(StrCat(folder.string(), ": holds no tokenizer.json"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const WeightSource& source) {
  if (source.format() == WeightFormat::kSafetensors) return LoadFolder(source.path());
  absl::StatusOr<BpeTokenizerParts> parts = DescribeGgufTokenizer(source.metadata());
  if (!parts.ok()) return InFile(source.path(), parts.status());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeBpeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return InFile(source.path(), tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromPath(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return LoadFolder(path);
  absl::StatusOr<MmapFile> file = MmapFile::Open(path);
  if (!file.ok()) return file.status();
  if (TextOf(*file).starts_with("GGUF")) {
    absl::StatusOr<std::unique_ptr<WeightSource>> source = OpenWeights(path);
    if (!source.ok()) return source.status();
    return LoadTokenizer(**source);
  }
  if (path.ends_with(".model")) return SentencePieceUnknown(path);
  return LoadTokenizerJson(path, {});
}

}  // namespace fairlead
