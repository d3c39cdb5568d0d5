// SPDX-License-Identifier: Apache-2.0
// What becomes of token vectors where a model's files do not say it.
#include "server/embedding_setup.h"

#include <gtest/gtest.h>

#include <optional>

#include "models/gguf.h"
#include "tests/models/checkpoint_bytes.h"

namespace fairlead {
namespace {

RuntimeConfig ForTask(const std::string& task) {
  RuntimeConfig config;
  config.task = task;
  return config;
}

std::optional<PoolingConfig> PoolingOfGguf(const std::string& task, std::optional<uint32_t> type) {
  GgufWriter writer = TinyLlama();
  if (type) writer.AddU32("llama.pooling_type", *type);
  const Bytes bytes = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(bytes, "x.gguf");
  EXPECT_TRUE(source.ok()) << source.status();
  const auto pooling = PoolingOf(ForTask(task), **source);
  EXPECT_TRUE(pooling.ok()) << pooling.status();
  return pooling.ok() ? *pooling : std::nullopt;
}

// llama.cpp normalizes whatever the file says.
TEST(EmbeddingSetupTest, VectorsOfGgufFilesAreNormalized) {
  for (const std::optional<uint32_t> type : {std::optional<uint32_t>(), {0u}, {1u}, {2u}, {3u}}) {
    const auto pooling = PoolingOfGguf("embed", type);
    ASSERT_TRUE(pooling.has_value()) << type.value_or(99);
    EXPECT_TRUE(pooling->normalize) << type.value_or(99);
  }
  EXPECT_FALSE(PoolingOfGguf("auto", 0).has_value());
}

std::optional<PoolingConfig> PoolingOfFolder(const std::string& tokenizer_config) {
  const TemporaryFolder folder;
  folder.Write("config.json", R"({"architectures":["BertModel"]})");
  folder.Write("model.safetensors", SafetensorsFile("{}", ""));
  folder.Write("tokenizer_config.json", tokenizer_config);
  const auto source = OpenWeights(folder.path());
  EXPECT_TRUE(source.ok()) << source.status();
  const auto pooling = PoolingOf(ForTask("auto"), **source);
  EXPECT_TRUE(pooling.ok()) << pooling.status();
  return pooling.ok() ? *pooling : std::nullopt;
}

TEST(EmbeddingSetupTest, ABareEncoderTakesTheMeanOfWhatItsTokenizerAllows) {
  const auto pooling = PoolingOfFolder(R"({"model_max_length":77})");
  ASSERT_TRUE(pooling.has_value());
  EXPECT_EQ(pooling->pooling, Pooling::kMean);
  EXPECT_FALSE(pooling->normalize);
  EXPECT_EQ(pooling->max_tokens, 77);
}

}  // namespace
}  // namespace fairlead
