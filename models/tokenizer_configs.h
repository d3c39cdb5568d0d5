// SPDX-License-Identifier: Apache-2.0
// What stands beside a folder's tokenizer.json or tokenizer.model: config.json,
// generation_config.json, tokenizer_config.json and others, each of which may be missing.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/mmap_file.h"
#include "models/pipeline_tokenizer.h"

namespace fairlead {

// STATUS with the path before its message.
absl::Status InFile(const std::string& path, const absl::Status& status);

std::string_view TextOf(const MmapFile& file);

// An object; null if there is no such file. kInvalidArgument, with the path, for one of more than
// 64 MiB.
absl::StatusOr<Json> ReadOptionalJson(const std::filesystem::path& path);

// A special token in tokenizer_config.json: its text, or an object that holds it as "content".
std::optional<TokenName> FindTokenName(const Json& config, const char* key);

// Adds what ends a turn to `stop`; sets `bos` where a file says what it is, or that there is none.
absl::Status ReadFolderConfigs(const std::filesystem::path& folder, std::vector<TokenName>* stop,
                               std::optional<TokenName>* bos);

}  // namespace fairlead
