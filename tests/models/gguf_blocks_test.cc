// SPDX-License-Identifier: Apache-2.0
// The block formats that are made into others when they are read, against the values of the gguf
// package (tests/golden/quants).
#include "models/gguf_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "kernels/half.h"
#include "models/gguf.h"
#include "tests/models/checkpoint_bytes.h"
#include "tests/models/weight_rows.h"
#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

struct Golden {
  std::string blocks;
  std::vector<float> values;
};

Golden ReadGolden(std::string_view name) {
  const std::string stem = std::string(FAIRLEAD_GOLDEN_DIR) + "/quants/" + std::string(name);
  Golden golden{ReadWholeFile(stem + ".bin"), {}};
  const std::string values = ReadWholeFile(stem + ".f32");
  golden.values.resize(values.size() / sizeof(float));
  std::memcpy(golden.values.data(), values.data(), values.size());
  return golden;
}

const std::byte* Data(const std::string& text) {
  return reinterpret_cast<const std::byte*>(text.data());
}

std::string FormatName(const testing::TestParamInfo<GgufBlockFormat>& info) {
  return std::string(info.param.name);
}

class GgufBlocksTest : public testing::TestWithParam<GgufBlockFormat> {};

TEST_P(GgufBlocksTest, DecodesToTheBitsOfGguf) {
  const GgufBlockFormat& format = GetParam();
  const Golden golden = ReadGolden(format.name);
  constexpr int64_t kBlocks = 64;
  ASSERT_EQ(golden.blocks.size(), size_t(kBlocks * format.block_bytes));
  ASSERT_EQ(golden.values.size(), size_t(kBlocks * format.block_elements));
  std::vector<float> decoded(golden.values.size());
  format.decode(Data(golden.blocks), kBlocks, decoded.data());
  for (size_t i = 0; i < decoded.size(); ++i) {
    EXPECT_EQ(std::memcmp(&decoded[i], &golden.values[i], sizeof(float)), 0)
        << "element " << i << " is " << decoded[i] << ", not " << golden.values[i];
  }
}

// As a tensor of a file. What is made holds the values exactly, or is f16 and they are rounded
// once to the nearest.
TEST_P(GgufBlocksTest, TheTensorHasTheValuesOfGguf) {
  const GgufBlockFormat& format = GetParam();
  const Golden golden = ReadGolden(format.name);
  const auto cols = static_cast<uint64_t>(2 * format.block_elements);
  const uint64_t rows = golden.values.size() / cols;
  GgufWriter writer = TinyLlama();
  writer.AddTensor({.name = "blk.0.ffn_up.weight",
                    .dims = {cols, rows},
                    .type = format.ggml_type,
                    .data = golden.blocks,
                    .offset = {},
                    .n_dims = {}});
  const Bytes file = ToBytes(writer.Build());
  const auto source = OpenGgufBytes(file, "made.gguf");
  ASSERT_TRUE(source.ok()) << source.status();
  const WeightInfo* tensor = (*source)->Find("model.layers.0.mlp.up_proj.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->file_dtype, format.name);
  EXPECT_EQ(tensor->data, nullptr);
  EXPECT_EQ(tensor->dim, (std::vector<int64_t>{int64_t(rows), int64_t(cols)}));
  ASSERT_EQ(tensor->bytes, RowBytes(tensor->dtype, int64_t(rows * cols)));
  const std::vector<std::byte> made = BytesByRows(*tensor);
  const std::set<std::string_view> exact = {"TQ1_0", "TQ2_0", "IQ3_S", "NVFP4"};
  if (!exact.contains(format.name)) {
    ASSERT_EQ(tensor->dtype, DType::kF16);
  }
  for (size_t i = 0; i < golden.values.size(); ++i) {
    const float value = golden.values[i];
    const float got = reference::DequantizeElement(tensor->dtype, made.data(), int64_t(i));
    if (exact.contains(format.name)) {
      ASSERT_EQ(got, value) << i;
    } else {
      ASSERT_LE(std::fabs(got - value), std::max(0x1p-11f * std::fabs(value), 0x1p-25f)) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GgufBlocksTest,
                         testing::ValuesIn(GgufBlockFormats().begin(), GgufBlockFormats().end()),
                         FormatName);

TEST(GgufBlocks, EveryFormatIsListedOnce) {
  std::set<std::string_view> names;
  for (const GgufBlockFormat& format : GgufBlockFormats()) {
    EXPECT_EQ(FindGgufBlockFormat(format.ggml_type), &format);
    EXPECT_TRUE(names.insert(format.name).second) << format.name;
    EXPECT_EQ(format.block_elements % Info(format.made).block_elements, 0) << format.name;
  }
  EXPECT_EQ(FindGgufBlockFormat(0), nullptr);
  EXPECT_EQ(FindGgufBlockFormat(41), nullptr);
}

GgufWriter::Tensor Tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type,
                          std::string data) {
  return {.name = name,
          .dims = std::move(dims),
          .type = type,
          .data = std::move(data),
          .offset = {},
          .n_dims = {}};
}

// Two "experts" of one row each, every element 1 * 1.5 / 2 (e4m3 0x38 is 1, nibble 3 is 1.5).
TEST(GgufBlocks, Nvfp4ComesWithScalesOfItsMatrices) {
  const std::string block = std::string(4, '\x38') + std::string(32, '\x33');
  const auto build = [&](const std::vector<float>& scales) {
    GgufWriter writer = TinyLlama();
    writer.AddTensor(Tensor("x.weight", {64, 1, 2}, 40, block + block));
    if (!scales.empty()) writer.AddVector("x.scale", scales);
    return ToBytes(writer.Build());
  };
  const auto first_and_last = [&](const std::vector<float>& scales) {
    const Bytes file = build(scales);
    const auto source = OpenGgufBytes(file, "nvfp4.gguf");
    EXPECT_TRUE(source.ok()) << source.status();
    const WeightInfo& tensor = *(*source)->Find("x.weight");
    const std::vector<std::byte> made = BytesByRows(tensor);
    return std::pair(reference::DequantizeElement(tensor.dtype, made.data(), 0),
                     reference::DequantizeElement(tensor.dtype, made.data(), 127));
  };
  EXPECT_EQ(first_and_last({}), std::pair(1.5f, 1.5f));
  EXPECT_EQ(first_and_last({0.25f}), std::pair(0.375f, 0.375f));
  EXPECT_EQ(first_and_last({0.25f, -2.0f}), std::pair(0.375f, -3.0f));
  const Bytes three = build({1, 2, 3});
  const auto refused = OpenGgufBytes(three, "nvfp4.gguf");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("nvfp4.gguf: tensor \"x.scale\": must be 1 or 2 f32 values"));
}

}  // namespace
}  // namespace fairlead
