// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "kernels/strings.h"
#include "models/mmap_file.h"
#include "models/pipeline_tokenizer.h"
#include "models/sentencepiece_folder.h"
#include "models/tokenizer_configs.h"
#include "models/tokenizer_gguf.h"
#include "models/tokenizer_json.h"

namespace fairlead {
namespace {

namespace fs = std::filesystem;

// FOLDER is where the configs are, or empty.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(const std::string& path,
                                                             const fs::path& folder) {
  absl::StatusOr<MmapFile> mapped = MmapFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  absl::StatusOr<TokenizerFile> file = ParseTokenizerFile(TextOf(*mapped));
  if (!file.ok()) return InFile(path, file.status());
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
  if (fs::exists(model, error)) return LoadSentencePieceFolder(folder);
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
