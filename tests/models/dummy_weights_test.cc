// SPDX-License-Identifier: Apache-2.0
#include "models/dummy_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

std::string Folder(const std::string& config) {
  const auto path = std::filesystem::path(testing::TempDir()) / "dummy_weights_test";
  std::filesystem::create_directories(path);
  std::ofstream(path / "config.json") << config;
  return path.string();
}

constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
  "tie_word_embeddings": false, "attention_bias": true})";

TEST(DummyWeights, HasEveryTensorOfTheShape) {
  const auto weights = MakeDummyWeights(Folder(kConfig), DType::kBF16, 1);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const WeightInfo* k = (*weights)->Find("model.layers.2.self_attn.k_proj.weight");
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->dim, (std::vector<int64_t>{32, 64}));
  EXPECT_EQ(k->bytes, 32u * 64 * 2);
  EXPECT_NE((*weights)->Find("model.layers.0.self_attn.o_proj.bias"), nullptr);
  EXPECT_EQ((*weights)->Find("model.layers.0.mlp.up_proj.bias"), nullptr);
  EXPECT_NE((*weights)->Find("lm_head.weight"), nullptr);
  EXPECT_NE((*weights)->Find("model.norm.weight"), nullptr);
  // 2 norms, 7 matrices and 4 biases a layer, embedding, head and final norm.
  EXPECT_EQ((*weights)->tensors().size(), 3u * 13 + 3);
}

TEST(DummyWeights, EqualSeedsGiveEqualBytes) {
  const std::string folder = Folder(kConfig);
  const auto bytes = [&folder](uint64_t seed) {
    const auto weights = MakeDummyWeights(folder, DType::kQ4_0, seed);
    const WeightInfo* tensor = (*weights)->Find("model.layers.1.mlp.down_proj.weight");
    return std::string(reinterpret_cast<const char*>(tensor->data), tensor->bytes);
  };
  EXPECT_EQ(bytes(1), bytes(1));
  EXPECT_NE(bytes(1), bytes(2));
}

TEST(DummyWeights, EveryDtypeHasTheDeviationItPromises) {
  // Rows of whole blocks of 256.
  std::string config = kConfig;
  config.replace(config.find("64"), 2, "256");
  config.replace(config.find("128"), 3, "512");
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
        DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL,
        DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K}) {
    const auto weights = MakeDummyWeights(Folder(config), dtype, 1);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const WeightInfo* tensor = (*weights)->Find("model.layers.0.mlp.down_proj.weight");
    ASSERT_NE(tensor, nullptr);
    constexpr int kElements = 256 * 512;
    double sum = 0, squares = 0;
    for (int i = 0; i < kElements; ++i) {
      const double value = reference::DequantizeElement(dtype, tensor->data, i);
      sum += value;
      squares += value * value;
    }
    EXPECT_NEAR(sum / kElements, 0, 0.0075) << Info(dtype).name;
    EXPECT_NEAR(std::sqrt(squares / kElements), 1 / std::sqrt(512), 0.0025) << Info(dtype).name;
  }
}

TEST(DummyWeights, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(MakeDummyWeights("/no/such/folder", DType::kF32, 1).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(MakeDummyWeights(Folder("{"), DType::kF32, 1).status().message()),
              HasSubstr("config.json"));
  std::string odd = kConfig;
  odd.replace(odd.find("128"), 3, "100");
  const auto status = MakeDummyWeights(Folder(odd), DType::kQ8_0, 1).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("mlp.down_proj"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("100"));
}

}  // namespace
}  // namespace fairlead
