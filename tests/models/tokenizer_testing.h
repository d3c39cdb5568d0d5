// SPDX-License-Identifier: Apache-2.0
// Golden files and tokenizers for the tokenizer tests. One thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "models/json.h"
#include "models/tokenizer.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {

inline std::string GoldenPath(const std::string& name) {
  return std::string(FAIRLEAD_GOLDEN_DIR) + "/" + name;
}

// A golden JSON file; an empty list, with a failure, if it cannot be read.
inline Json ReadGolden(const std::string& name) {
  absl::StatusOr<Json> json = ParseJson(ReadWholeFile(GoldenPath(name)));
  EXPECT_TRUE(json.ok()) << name << ": " << json.status();
  return json.ok() ? *std::move(json) : Json::array();
}

// The tokenizer that this tokenizer.json describes.
inline absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerText(const std::string& json) {
  const TemporaryFolder folder;
  return LoadTokenizerFromPath(folder.Write("tokenizer.json", json));
}

inline std::vector<Token> Tokens(const Json& json) { return json.get<std::vector<Token>>(); }

inline std::string Text(const Json& json) { return json.get<std::string>(); }

inline EncodeOptions WithoutSpecial() {
  return {.add_special_tokens = false, .parse_special = true};
}

}  // namespace fairlead
