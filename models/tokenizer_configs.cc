// SPDX-License-Identifier: Apache-2.0
#include "models/tokenizer_configs.h"

#include <utility>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/json_file.h"
#include "models/vocabulary.h"

namespace fairlead {

namespace fs = std::filesystem;

namespace {

// The largest that are met have some 10 MB, for they list added tokens.
constexpr size_t kMaxListBytes = size_t{64} << 20;

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

}  // namespace

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), StrCat(path, ": ", status.message()));
}

std::string_view TextOf(const MmapFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

absl::StatusOr<Json> ReadOptionalJson(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return Json();
  absl::StatusOr<MmapFile> file = MmapFile::Open(path.string(), kMaxListBytes);
  if (!file.ok()) return file.status();
  absl::StatusOr<Json> json = ParseJsonFile(TextOf(*file));
  if (!json.ok()) return InFile(path.string(), json.status());
  if (!json->is_object())
    return InFile(path.string(), absl::InvalidArgumentError("must hold an object"));
  return json;
}

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

absl::Status ReadFolderConfigs(const fs::path& folder, std::vector<TokenName>* stop,
                               std::optional<TokenName>* bos) {
  absl::StatusOr<Json> config = ReadOptionalJson(folder / "config.json");
  if (!config.ok()) return config.status();
  absl::StatusOr<Json> generation = ReadOptionalJson(folder / "generation_config.json");
  if (!generation.ok()) return generation.status();
  absl::StatusOr<Json> tokenizer = ReadOptionalJson(folder / "tokenizer_config.json");
  if (!tokenizer.ok()) return tokenizer.status();
  if (absl::Status status = AddStopIds(*config, stop); !status.ok()) {
    return InFile((folder / "config.json").string(), status);
  }
  if (absl::Status status = AddStopIds(*generation, stop); !status.ok()) {
    return InFile((folder / "generation_config.json").string(), status);
  }
  if (std::optional<TokenName> eos = FindTokenName(*tokenizer, "eos_token"))
    stop->push_back(*std::move(eos));
  if (tokenizer->contains(
          "bos_token")) {  // null: this tokenizer has none, whatever the model's config says
    *bos = FindTokenName(*tokenizer, "bos_token");
  } else if (const auto id = config->find("bos_token_id");
             id != config->end() && id->is_number_unsigned() &&
             id->get<uint64_t>() < Vocabulary::kMaxTokens) {
    *bos = TokenName{.id = id->get<Token>(), .text = ""};
  }
  return absl::OkStatus();
}

}  // namespace fairlead
