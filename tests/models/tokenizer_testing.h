// SPDX-License-Identifier: Apache-2.0
// Golden files and tokenizers for the tokenizer tests. One thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/json.h"
#include "models/tokenizer.h"
#include "models/weights.h"
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

// A GGUF file of metadata alone.
class FakeGguf : public WeightSource {
 public:
  explicit FakeGguf(Json metadata) : metadata_(std::move(metadata)) {}
  WeightFormat format() const override { return WeightFormat::kGguf; }
  const std::string& path() const override { return path_; }
  const WeightInfo* Find(std::string_view) const override { return nullptr; }
  absl::Span<const WeightInfo> tensors() const override { return {}; }
  const Json& config() const override { return metadata_; }
  const Json& metadata() const override { return metadata_; }

 private:
  const std::string path_ = "model.gguf";
  const Json metadata_;
};

inline absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGguf(const Json& metadata) {
  return LoadTokenizer(FakeGguf(metadata));
}

inline std::vector<Token> Tokens(const Json& json) { return json.get<std::vector<Token>>(); }

inline std::string Text(const Json& json) { return json.get<std::string>(); }

inline EncodeOptions WithoutSpecial() {
  return {.add_special_tokens = false, .parse_special = true};
}

}  // namespace fairlead
