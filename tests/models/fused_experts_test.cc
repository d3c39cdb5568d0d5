// SPDX-License-Identifier: Apache-2.0
// Fused experts as tensors of their own: converted like any other, and files that lie about them.
// What a model computes with them is compared with transformers in decoder_test.cc.
#include "models/fused_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "kernels/half.h"
#include "models/convert_weights.h"
#include "models/model.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kExperts = 4, kHidden = 64, kFfn = 96;  // of golden/models/gpt-oss-bf16

std::string Golden(const std::string& name) {
  return std::string(FAIRLEAD_GOLDEN_DIR) + "/models/" + name;
}

// A tensor of halves as the file has it.
class FileTensor {
 public:
  FileTensor(const std::string& file, const std::string& name) {
    uint64_t length;
    std::memcpy(&length, file.data(), sizeof(length));
    const Json header = Json::parse(file.substr(sizeof(length), length));
    const size_t begin = header[name]["data_offsets"][0], end = header[name]["data_offsets"][1];
    data_ = file.substr(sizeof(length) + length + begin, end - begin);
  }
  float operator[](size_t i) const {
    uint16_t bits;
    std::memcpy(&bits, data_.data() + 2 * i, sizeof(bits));
    return BF16ToF32(bits);
  }

 private:
  std::string data_;
};

// Each value is within half a step of the block's scale, which is its largest over 127.
void ExpectQ8(const WeightInfo* info, int rows, int cols, const auto& expected) {
  ASSERT_NE(info, nullptr);
  ASSERT_EQ(info->dtype, DType::kQ8_0) << info->name;
  ASSERT_EQ(info->dim, (std::vector<int64_t>{kExperts, rows, cols}));
  const WeightBytes bytes(*info);
  for (int64_t i = 0; i < int64_t{kExperts} * rows * cols; i += 32) {
    float largest = 0;
    for (int64_t j = i; j < i + 32; ++j) largest = std::max(largest, std::abs(expected(j)));
    for (int64_t j = i; j < i + 32; ++j) {
      const double value = reference::DequantizeElement(DType::kQ8_0, bytes.data(), j);
      ASSERT_NEAR(value, expected(j), largest / 127 * 0.6) << info->name << " " << j;
    }
  }
}

TEST(FusedExpertsTest, AreConverted) {
  auto opened = OpenWeights(Golden("gpt-oss-bf16"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto source = ConvertWeights(*std::move(opened), DType::kQ8_0);
  ASSERT_TRUE(source.ok()) << source.status();
  const std::string prefix = "model.layers.1.mlp.experts.";
  const std::string file = ReadWholeFile(Golden("gpt-oss-bf16/model.safetensors"));
  const FileTensor gate_up(file, prefix + "gate_up_proj"), down(file, prefix + "down_proj");
  const auto find = [&](const char* name) { return (*source)->Find(prefix + name + ".weight"); };
  for (const int up : {0, 1}) {
    ExpectQ8(find(up == 1 ? "up_proj" : "gate_proj"), kFfn, kHidden, [&](int64_t i) {
      const int64_t col = i % kHidden, row = i / kHidden % kFfn, e = i / kHidden / kFfn;
      return gate_up[static_cast<size_t>((e * kHidden + col) * 2 * kFfn + 2 * row + up)];
    });
  }
  ExpectQ8(find("down_proj"), kHidden, kFfn, [&](int64_t i) {
    const int64_t col = i % kFfn, row = i / kFfn % kHidden, e = i / kHidden / kFfn;
    return down[static_cast<size_t>((e * kFfn + col) * kHidden + row)];
  });
  for (const WeightInfo& info : (*source)->tensors()) {
    EXPECT_FALSE(info.name.ends_with("_proj") || info.name.ends_with("_proj_bias")) << info.name;
    const bool matrix = info.dim.size() > 1 && info.name.ends_with(".weight");
    if (!matrix || info.name.ends_with("router.weight")) continue;
    EXPECT_EQ(info.dtype, DType::kQ8_0) << info.name;
  }
  const auto device = OpenDevice("cpu", {.threads = 1});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto model = LoadModel(**source, **device, 64);
  EXPECT_TRUE(model.ok()) << model.status();
}

TEST(FusedExpertsTest, BlocksAreTensorsThatCannotBeConverted) {
  auto source = OpenWeights(Golden("gpt-oss-mxfp4"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->skipped().empty());
  const auto tensors = (*source)->tensors();
  EXPECT_EQ(std::count_if(tensors.begin(), tensors.end(),
                          [](const WeightInfo& info) { return info.dtype == DType::kMXFP4; }),
            2 * 3);
  const auto converted = ConvertWeights(*std::move(source), DType::kQ8_0);
  EXPECT_EQ(converted.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(converted.status().message()),
              AllOf(HasSubstr("_proj_blocks is mxfp4"), HasSubstr("cannot be converted")));
}

struct Tensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
};

class FusedFolder : public testing::Test {
 protected:
  // The tensors of layer 0's experts, all of zeros.
  absl::Status Open(const std::vector<Tensor>& tensors) {
    Json header = Json::object();
    size_t end = 0;
    for (const Tensor& t : tensors) {
      size_t bytes = t.dtype == "U8" ? 1 : 2;
      for (const int64_t d : t.shape) bytes *= static_cast<size_t>(d);
      header["model.layers.0.mlp.experts." + t.name] = {
          {"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {end, end + bytes}}};
      end += bytes;
    }
    return Write(header, end);
  }

  absl::Status Write(const Json& header, size_t bytes) {
    folder_.Write("config.json", ReadWholeFile(Golden("gpt-oss-bf16/config.json")));
    folder_.Write("model.safetensors", SafetensorsFile(DumpJson(header), std::string(bytes, '\0')));
    return OpenWeights(folder_.path()).status();
  }

  TemporaryFolder folder_;
};

TEST_F(FusedFolder, ShapesThatCannotBe) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  const auto blocks = [](std::vector<int64_t> nibbles, std::vector<int64_t> scales) {
    return std::vector<Tensor>{{"gate_up_proj_blocks", "U8", std::move(nibbles)},
                               {"gate_up_proj_scales", "U8", std::move(scales)}};
  };
  ASSERT_TRUE(Open(blocks({2, 2, 3, 16}, {2, 2, 3})).ok());
  ASSERT_TRUE(Open({{"down_proj", "BF16", {2, 3, 4}}, {"down_proj_bias", "BF16", {2, 4}}}).ok());
  const std::vector<std::vector<Tensor>> all = {
      blocks({0, 2, kHuge, 16}, {0, 2, kHuge}),
      blocks({0, 2, 1, 16}, {0, 2, 1}),
      blocks({2, 0, 1, 16}, {2, 0, 1}),
      blocks({kHuge / 2, 2, 0, 16}, {kHuge / 2, 2, 0}),
      blocks({2, 3, 1, 16}, {2, 3, 1}),
      blocks({2, 2, 1, 16}, {2, 2, 2}),
      blocks({2, 2, 1, 8}, {2, 2, 1}),
      blocks({2, 2, 16}, {2, 2}),
      {{"gate_up_proj_blocks", "I16", {1, 2, 1, 16}}, {"gate_up_proj_scales", "U8", {1, 2, 1}}},
      {{"gate_up_proj", "BF16", {kHuge, 1, 0}}},
      {{"gate_up_proj", "BF16", {0, kHuge, kHuge}}},
      {{"gate_up_proj", "BF16", {2, 4, 3}}},
      {{"gate_up_proj", "BF16", {2, 4}}},
      {{"gate_up_proj_bias", "BF16", {2, 4, 4}}},
      {{"gate_up_proj_bias", "BF16", {kHuge, 0}}}};
  for (const std::vector<Tensor>& tensors : all) {
    const absl::Status status = Open(tensors);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(tensors[0].name), HasSubstr("must be"), HasSubstr("with elements")))
        << testing::PrintToString(tensors[0].shape);
  }
  EXPECT_THAT(std::string(Open({{"down_proj_blocks", "U8", {1, 2, 1, 16}}}).message()),
              AllOf(HasSubstr("down_proj_blocks has no "), HasSubstr("down_proj_scales")));
}

TEST_F(FusedFolder, OneTensorInTwoForms) {
  const Tensor fused = {"down_proj", "BF16", {2, 32, 4}};
  const std::vector<std::vector<Tensor>> all = {
      {fused, {"down_proj.weight", "BF16", {2, 4, 32}}},
      {fused, {"down_proj_blocks", "U8", {2, 4, 1, 16}}, {"down_proj_scales", "U8", {2, 4, 1}}}};
  for (const std::vector<Tensor>& tensors : all) {
    const absl::Status status = Open(tensors);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("experts.down_proj.weight is there"));
  }
}

// Seconds of the processor's, not of a clock: other work does not count.
TEST_F(FusedFolder, ManyLayersTakeNoSquareOfTime) {
  constexpr size_t kLayers = 40'000;
  Json header = Json::object();
  // Its operator[] looks a key up by going through all.
  auto& members = header.get_ref<Json::object_t&>();
  for (size_t i = 0; i < kLayers; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".mlp.experts.down_proj";
    const size_t begin = 17 * i;
    members.emplace_back(
        name + "_blocks",
        Json{{"dtype", "U8"}, {"shape", {1, 1, 1, 16}}, {"data_offsets", {begin, begin + 16}}});
    members.emplace_back(
        name + "_scales",
        Json{{"dtype", "U8"}, {"shape", {1, 1, 1}}, {"data_offsets", {begin + 16, begin + 17}}});
  }
  const std::clock_t start = std::clock();
  EXPECT_TRUE(Write(header, 17 * kLayers).ok());
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10);
}

}  // namespace
}  // namespace fairlead
