// SPDX-License-Identifier: Apache-2.0
// What the bench writes as GGUF is the model that it was made from: our reader gives the same
// tensors, and the same logits, whose rotation only a right permutation of q and k gives.
#include "bench/gguf/llama_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "bench/gguf/gguf_writer.h"
#include "kernels/strings.h"
#include "models/dummy_weights.h"
#include "models/gguf.h"
#include "tests/models/model_runner.h"

namespace fairlead::bench {
namespace {

std::vector<float> Logits(const std::string& path) {
  auto device = OpenDevice("cpu", {.numerics = Numerics::kFloat32});
  EXPECT_TRUE(device.ok()) << device.status();
  auto runner = ModelRunner::Open(path, *std::move(device), 32);
  EXPECT_TRUE(runner.ok()) << runner.status();
  const std::vector<Token> tokens = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};
  return (*runner)->Run(tokens, 4);
}

class LlamaGgufTest : public testing::TestWithParam<const char*> {};

TEST_P(LlamaGgufTest, GivesTheSameLogits) {
  const std::string folder = StrCat(FAIRLEAD_GOLDEN_DIR, "/models/", GetParam());
  const std::string file = StrCat(testing::TempDir(), "/", GetParam(), ".gguf");
  const auto source = OpenWeights(folder);
  ASSERT_TRUE(source.ok()) << source.status();
  const absl::Status status = WriteLlamaGguf(**source, GetParam(), file);
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<float> want = Logits(folder), got = Logits(file);
  ASSERT_EQ(got.size(), want.size());
  double largest = 0, range = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max<double>(largest, std::abs(got[i] - want[i]));
    range = std::max<double>(range, std::abs(want[i]));
  }
  // The same numbers summed in another order; a wrong permutation changes them by their own size.
  EXPECT_LE(largest, 1e-4 * range);
  EXPECT_GT(range, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Golden, LlamaGgufTest,
                         testing::Values("llama-gqa", "llama-rope-llama3", "llama-rope-linear",
                                         "llama-tied-mqa", "llama-bias-sharded"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(LlamaGguf, QuantisedRowsMoveWhole) {
  const std::string folder = testing::TempDir() + "/llama_gguf_test";
  const std::string file = folder + ".gguf";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/config.json")
      << R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false})";
  const auto source = MakeDummyWeights(folder, DType::kQ4_0, 7);
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE(WriteLlamaGguf(**source, "dummy", file).ok());
  const auto gguf = OpenGguf(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ((*gguf)->tensors().size(), (*source)->tensors().size());
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const WeightInfo *want = (*source)->Find(q), *got = (*gguf)->Find(q);
  ASSERT_NE(got, nullptr);
  EXPECT_EQ(got->dtype, DType::kQ4_0);
  EXPECT_EQ(got->dim, want->dim);
  // Head 1 of 16 rows, halves of 8: its file rows are 16 0, 16 + 8, 16 + 1, 16 + 9, ...
  const size_t row = RowBytes(DType::kQ4_0, 64);
  const auto same = [&](int file_row, int source_row) {
    return std::memcmp(got->data + file_row * row, want->data + source_row * row, row) == 0;
  };
  EXPECT_TRUE(same(16, 16));
  EXPECT_TRUE(same(17, 24));
  EXPECT_TRUE(same(18, 17));
  EXPECT_TRUE(same(31, 31));
  EXPECT_FALSE(same(17, 17));
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(std::memcmp((*gguf)->Find(down)->data, (*source)->Find(down)->data,
                        (*source)->Find(down)->bytes),
            0);
}

TEST(LlamaGguf, RefusesWhatIsGgufAlready) {
  const auto source = OpenWeights(StrCat(FAIRLEAD_GOLDEN_DIR, "/gguf/tiny-llama.gguf"));
  ASSERT_TRUE(source.ok()) << source.status();
  const absl::Status status = WriteLlamaGguf(**source, "x", testing::TempDir() + "/x.gguf");
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("GGUF file already"));
}

// The header by hand, from ggml's docs/gguf.md.
TEST(GgufWriter, WritesTheLayoutOfTheFormat) {
  GgufWriter writer;
  writer.AddValue("k", 5u);
  const std::vector<std::byte> data(8, std::byte{0xAB});
  writer.AddTensor("t", DType::kF32, {1, 2}, {absl::MakeConstSpan(data)});
  std::ostringstream out;
  writer.Write(out);
  const std::string bytes = out.str();
  const std::string want = std::string("GGUF\x03\0\0\0", 8) + std::string("\x01\0\0\0\0\0\0\0", 8) +
                           std::string("\x01\0\0\0\0\0\0\0", 8) +
                           std::string("\x01\0\0\0\0\0\0\0k\x04\0\0\0\x05\0\0\0", 17) +
                           std::string("\x01\0\0\0\0\0\0\0t\x02\0\0\0", 13) +
                           std::string("\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", 16) +
                           std::string("\0\0\0\0\0\0\0\0\0\0\0\0", 12);
  ASSERT_EQ(want.size(), 82u);
  EXPECT_EQ(bytes.substr(0, want.size()), want);
  // Data at the next multiple of 32, padded to one.
  ASSERT_EQ(bytes.size(), 128u);
  EXPECT_EQ(bytes.substr(96, 8), std::string(8, '\xAB'));
}

}  // namespace
}  // namespace fairlead::bench
