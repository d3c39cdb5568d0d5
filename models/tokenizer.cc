// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/mmap_file.h"
#include "models/pipeline_tokenizer.h"
#include "models/sentencepiece_folder.h"
#include "models/tokenizer_configs.h"
#include "models/tokenizer_gguf.h"
#include "models/tokenizer_json.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSentenceConfig = "sentence_bert_config.json";

absl::StatusOr<bool> AsksForLowerCase(const fs::path& folder) {
  const fs::path path = folder / kSentenceConfig;
  const absl::StatusOr<Json> config = ReadOptionalJson(path);
  if (!config.ok()) return config.status();
  if (config->is_null()) return false;
  ConfigReader reader(*config);
  const bool asks = reader.Bool("do_lower_case", false);
  if (!reader.ok()) return InFile(path.string(), reader.status());
  return asks;
}

bool IsLowercase(const Json& normalizer) {
  return normalizer.is_object() && normalizer.contains("type") && normalizer["type"] == "Lowercase";
}

// Puts a Lowercase before a tokenizer.json's normalizer, unless it has one: as Sentence
// Transformers 5.7 does.
void LowerFirst(Json& normalizer) {
  Json steps = Json::array({{{"type", "Lowercase"}}});
  if (normalizer.is_object() && normalizer.contains("normalizers") &&
      normalizer["normalizers"].is_array()) {
    for (const Json& step : normalizer["normalizers"]) {
      if (IsLowercase(step)) return;
    }
  }
  if (IsLowercase(normalizer)) return;
  if (!normalizer.is_null()) steps.push_back(std::move(normalizer));
  normalizer = {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

// FOLDER is where the configs are, or empty.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(const std::string& path,
                                                             const fs::path& folder) {
  absl::StatusOr<MmapFile> mapped = MmapFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<TokenizerFile> file = ParseTokenizerFile(TextOf(*mapped));
  if (!file.ok()) return InFile(path, file.status());
  if (!folder.empty()) {
    const absl::StatusOr<bool> lower = AsksForLowerCase(folder);
    if (!lower.ok()) return lower.status();
    if (*lower) LowerFirst(file->rest["normalizer"]);
  }
  absl::StatusOr<TokenizerParts> parts = DescribeTokenizerFile(*file);
  if (!parts.ok()) return InFile(path, parts.status());
  if (!folder.empty()) {
    absl::Status status = ReadFolderConfigs(folder, &parts->stop, &parts->bos);
    if (!status.ok()) return status;
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return InFile(path, tokenizer.status());
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadFolder(const fs::path& folder) {
  std::error_code error;
  const fs::path file = folder / "tokenizer.json";
  if (fs::exists(file, error)) return LoadTokenizerJson(file.string(), folder);
  const fs::path model = folder / "tokenizer.model";
  if (fs::exists(model, error)) {
    const absl::StatusOr<bool> lower = AsksForLowerCase(folder);
    if (!lower.ok()) return lower.status();
    if (!*lower) return LoadSentencePieceFolder(folder);
    return absl::UnimplementedError(
        StrCat((folder / kSentenceConfig).string(),
               ": do_lower_case is not supported with tokenizer.model"));
  }
  return absl::NotFoundError(
      StrCat(folder.string(), ": holds no tokenizer.json and no tokenizer.model"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const WeightSource& source) {
  if (source.format() == WeightFormat::kSafetensors) return LoadFolder(source.path());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadGgufTokenizer(source.metadata());
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
  if (path.ends_with(".model")) return LoadSentencePieceFile(path);
  return LoadTokenizerJson(path, {});
}

}  // namespace fairlead
