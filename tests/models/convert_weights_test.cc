// SPDX-License-Identifier: Apache-2.0
// --weight-dtype: the same bytes as gguf's own quantiser makes, and what is converted at all.
#include "models/convert_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <tuple>

#include "kernels/half.h"
#include "models/json.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/weight_rows.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kRows = 16, kCols = 128;  // of golden/converted

std::string Golden(const std::string& name) {
  return ReadWholeFile(std::string(FAIRLEAD_GOLDEN_DIR) + "/" + name);
}

struct TestTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string data;
};

std::unique_ptr<WeightSource> Folder(const TemporaryFolder& folder,
                                     const std::vector<TestTensor>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const TestTensor& t : tensors) {
    const size_t begin = data.size();
    data += t.data;
    header[t.name] = {
        {"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {begin, data.size()}}};
  }
  folder.Write("config.json", "{}");
  folder.Write("model.safetensors", SafetensorsFile(DumpJson(header), data));
  auto source = OpenWeights(folder.path());
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

std::string BytesOf(const WeightInfo& info) {
  const std::vector<std::byte> bytes = BytesByRows(info);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Zeros(size_t bytes) { return std::string(bytes, '\0'); }

class ConvertTo : public testing::TestWithParam<const char*> {};

TEST_P(ConvertTo, SameBytesAsGguf) {
  std::string name = GetParam();
  std::transform(name.begin(), name.end(), name.begin(), ::tolower);
  const DType dtype = *ParseDType(name);
  const TemporaryFolder folder;
  auto source = ConvertWeights(
      Folder(folder, {{"a.weight", "F32", {kRows, kCols}, Golden("converted/values.f32")}}), dtype);
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightInfo* info = (*source)->Find("a.weight");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->dtype, dtype);
  EXPECT_EQ(info->file_dtype, "f32");
  EXPECT_EQ(info->dim, (std::vector<int64_t>{kRows, kCols}));
  EXPECT_TRUE(BytesOf(*info) == Golden(std::string("converted/") + GetParam() + ".bin"));
}

INSTANTIATE_TEST_SUITE_P(All, ConvertTo,
                         testing::Values("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ConvertWeightsTest, HalvesAreConvertedByTheirValues) {
  const TemporaryFolder folder, other;
  const std::string values = Golden("converted/BF16.bin");
  std::string same;  // the same values as f32
  for (size_t i = 0; i < values.size(); i += 2) same += Zeros(2) + values.substr(i, 2);
  auto a =
      ConvertWeights(Folder(folder, {{"a.weight", "BF16", {kRows, kCols}, values}}), DType::kQ8_0);
  auto b = ConvertWeights(Folder(other, {{"a.weight", "F32", {kRows, kCols}, same}}), DType::kQ8_0);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_TRUE(BytesOf((*a)->tensors()[0]) == BytesOf((*b)->tensors()[0]));
}

TEST(ConvertWeightsTest, VectorsRoutersAndStacksStayAsTheyAre) {
  const TemporaryFolder folder;
  const std::vector<TestTensor> tensors = {
      {"model.norm.weight", "BF16", {32}, Zeros(64)},
      {"model.layers.0.mlp.gate.weight", "BF16", {2, 32}, Zeros(128)},
      {"model.layers.0.mlp.experts.down_proj", "BF16", {2, 2, 32}, Zeros(256)},
      {"model.layers.0.mlp.gate_proj.bias", "BF16", {2}, Zeros(4)}};
  auto source = ConvertWeights(Folder(folder, tensors), DType::kQ4_0);
  ASSERT_TRUE(source.ok()) << source.status();
  for (const WeightInfo& info : (*source)->tensors()) {
    EXPECT_EQ(info.dtype, DType::kBF16) << info.name;
    EXPECT_FALSE(info.make) << info.name;
  }
  EXPECT_EQ((*source)->tensors().size(), tensors.size());
  EXPECT_FALSE((*source)->files().empty());  // the weight cache wants them
}

TEST(ConvertWeightsTest, StackedExpertsAreMatrices) {
  const TemporaryFolder folder;
  auto source = ConvertWeights(
      Folder(folder, {{"model.layers.0.mlp.experts.up_proj.weight", "F32", {2, 2, 32}, Zeros(512)},
                      {"model.conv.weight", "F32", {2, 2, 32}, Zeros(512)}}),
      DType::kQ8_0);
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightInfo* experts = (*source)->Find("model.layers.0.mlp.experts.up_proj.weight");
  EXPECT_EQ(experts->dtype, DType::kQ8_0);
  EXPECT_EQ(experts->bytes, 2 * 2 * RowBytes(DType::kQ8_0, 32));
  EXPECT_EQ((*source)->Find("model.conv.weight")->dtype, DType::kF32);
}

TEST(ConvertWeightsTest, RowsThatAreNoBlocksAreRefusedByName) {
  const TemporaryFolder folder;
  const auto source =
      ConvertWeights(Folder(folder, {{"a.weight", "F32", {1, 48}, Zeros(192)}}), DType::kQ8_0);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(source.status().message()),
              AllOf(HasSubstr("tensor a.weight"), HasSubstr("rows of 48"), HasSubstr("32")));
}

absl::StatusOr<std::unique_ptr<WeightSource>> Converted(const std::string& golden, DType dtype) {
  auto source = OpenWeights(std::string(FAIRLEAD_GOLDEN_DIR) + "/" + golden);
  EXPECT_TRUE(source.ok()) << source.status();
  return ConvertWeights(*std::move(source), dtype);
}

TEST(ConvertWeightsTest, QuantisedWeightsOnlyBecomeWider) {
  for (const auto& [golden, dtype, form] :
       {std::tuple{"models/gptq-int8", DType::kQ4_0, "gptq int8 g32"},
        {"models/gptq-int4-asym", DType::kQ4_1, "gptq int4 g64"},
        {"models/fp8-block", DType::kQ5_0, "fp8 e4m3 128x128"},
        {"models/gptq-int4-act-order", DType::kQ4_0, "gptq int4 g32 act-order"}}) {
    const auto source = Converted(golden, dtype);
    EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument) << golden;
    EXPECT_THAT(std::string(source.status().message()),
                AllOf(HasSubstr("down_proj"), HasSubstr(form), HasSubstr("more bits")));
  }
  for (const auto& [golden, dtype] : {std::pair{"models/gptq-int4", DType::kQ8_0},
                                      {"models/gptq-int4", DType::kQ5_1},
                                      {"models/gptq-int8", DType::kF16},
                                      {"models/fp8-block", DType::kQ8_0},
                                      {"models/awq-int4", DType::kQ8_0}}) {
    const auto source = Converted(golden, dtype);
    ASSERT_TRUE(source.ok()) << source.status();
    const WeightInfo* q = (*source)->Find("model.layers.0.self_attn.q_proj.weight");
    ASSERT_NE(q, nullptr);
    EXPECT_EQ(q->dtype, dtype);
    EXPECT_EQ(BytesOf(*q).size(), q->bytes);
  }
}

// 4-bit codes times f16 scales are what q5_0 and f32 hold too: nothing is lost on the way.
TEST(ConvertWeightsTest, WiderTypesKeepTheValues) {
  for (const char* golden : {"models/gptq-int4", "models/gptq-int4-asym", "models/gptq-int8"}) {
    const auto narrow = Converted(golden, DType::kF32);
    ASSERT_TRUE(narrow.ok()) << narrow.status();
    const auto wide = OpenWeights(std::string(FAIRLEAD_GOLDEN_DIR) + "/" + golden);
    ASSERT_TRUE(wide.ok()) << wide.status();
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    const WeightInfo& blocks = *(*wide)->Find(name);
    const std::string floats = BytesOf(*(*narrow)->Find(name));
    const std::string raw = BytesOf(blocks);
    // The scale of the first block, times a whole number.
    uint16_t bits;
    std::memcpy(&bits, raw.data(), sizeof(bits));
    const float scale = F16ToF32(bits);
    for (int i = 0; i < 32; ++i) {
      float value;
      std::memcpy(&value, floats.data() + 4 * i, sizeof(value));
      EXPECT_EQ(value, scale * std::round(value / scale));
    }
  }
}

TEST(ConvertWeightsTest, OtherDtypesAreRefused) {
  EXPECT_EQ(Converted("models/llama-gqa", DType::kQ6_K).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Converted("gguf/tiny-mixed.gguf", DType::kF32).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace fairlead
