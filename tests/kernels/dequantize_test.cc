// SPDX-License-Identifier: Apache-2.0
// The reference's reading of weight blocks, and the CPU's of packed ones, against the values of the
// gguf package (tests/golden/quants), bit for bit.
#include "tests/reference/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/cpu/packed_weight.h"
#include "kernels/half.h"

namespace fairlead {
namespace {

std::vector<char> ReadFile(const std::string& name) {
  std::ifstream file(std::string(FAIRLEAD_GOLDEN_DIR) + "/quants/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

struct GoldenType {
  const char* name;
  DType dtype;
};

class DequantizeTest : public testing::TestWithParam<GoldenType> {};

TEST_P(DequantizeTest, GivesTheBitsOfGguf) {
  const auto [name, dtype] = GetParam();
  const std::vector<char> blocks = ReadFile(std::string(name) + ".bin");
  const std::vector<char> values = ReadFile(std::string(name) + ".f32");
  const int64_t elements = static_cast<int64_t>(values.size() / sizeof(float));
  ASSERT_EQ(elements, Info(dtype).block_elements == 256 ? 16384 : 2048);
  ASSERT_EQ(blocks.size(), RowBytes(dtype, elements));
  for (int64_t i = 0; i < elements; ++i) {
    const auto* data = reinterpret_cast<const std::byte*>(blocks.data());
    const float got = reference::DequantizeElement(dtype, data, i);
    EXPECT_EQ(std::memcmp(&got, values.data() + i * 4, 4), 0) << "element " << i << " is " << got;
    EXPECT_GE(reference::ElementMagnitude(dtype, data, i), std::fabs(got) * (1 - 0x1p-20f));
  }
}

// As rows of two blocks: a last panel is not full. Equal as numbers: q = 0 of a negative scale may
// be 0 or -0.
TEST_P(DequantizeTest, PackedRowsHaveTheValuesOfGguf) {
  const auto [name, dtype] = GetParam();
  const std::vector<char> blocks = ReadFile(std::string(name) + ".bin");
  const std::vector<char> bytes = ReadFile(std::string(name) + ".f32");
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  const int64_t cols = 2 * Info(dtype).block_elements;
  const int64_t rows = static_cast<int64_t>(values.size()) / cols - 1;
  ThreadPool pool(2);
  // All but the first row, so that a last panel is not full: the last blocks of MXFP4 have the
  // smallest exponents.
  const size_t skipped = RowBytes(dtype, cols);
  const WeightPart part{reinterpret_cast<const std::byte*>(blocks.data()) + skipped, rows};
  const auto packed =
      PackCpuWeight({.dtype = dtype, .cols = cols, .parts = {&part, 1}}, Numerics::kFloat32, pool);
  ASSERT_TRUE(packed.ok()) << packed.status();
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    static_cast<const CpuPackedWeight&>(**packed).DequantizeRow(r, row.data());
    for (int64_t k = 0; k < cols; ++k) {
      const float expected = values[static_cast<size_t>((r + 1) * cols + k)];
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(row[k])) << r << " " << k;
      } else {
        ASSERT_EQ(row[k], expected) << r << " " << k;
      }
    }
  }
}

// Of one matrix and of five, in parts that end anywhere, more rows than are made at once.
TEST(PackCpuWeightTest, PartsThatAreMadeGiveTheImageOfThoseInMemory) {
  constexpr int64_t kRows = 5 * 149, kCols = 64;
  ThreadPool pool(2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_0, DType::kQ8_0}) {
    const size_t row_bytes = RowBytes(dtype, kCols);
    std::vector<std::byte> bytes(kRows * row_bytes);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i / 7 % 113);
    const auto part = [&](int64_t begin, int64_t rows, bool made) {
      const std::byte* from = bytes.data() + begin * row_bytes;
      if (!made) return WeightPart{from, rows};
      return WeightPart{nullptr, rows, [=](int64_t first, int64_t count, std::byte* out) {
                          EXPECT_TRUE(first >= 0 && count > 0 && first + count <= rows);
                          std::memcpy(out, from + first * row_bytes, count * row_bytes);
                        }};
    };
    const WeightPart whole = part(0, kRows, false);
    const WeightPart pieces[] = {part(0, 200, true), part(200, 3, false), part(203, 1, true),
                                 part(204, kRows - 204, true)};
    for (const int groups : {1, 5}) {
      PackWeightArgs args = {.dtype = dtype, .cols = kCols, .parts = {&whole, 1}, .groups = groups};
      const auto in_memory = PackCpuWeight(args, Numerics::kFloat32, pool);
      args.parts = pieces;
      const auto made = PackCpuWeight(args, Numerics::kFloat32, pool);
      ASSERT_TRUE(in_memory.ok() && made.ok());
      EXPECT_TRUE((*in_memory)->image() == (*made)->image()) << Info(dtype).name << " " << groups;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, DequantizeTest,
    testing::Values(GoldenType{"F16", DType::kF16}, GoldenType{"BF16", DType::kBF16},
                    GoldenType{"Q8_0", DType::kQ8_0}, GoldenType{"Q4_0", DType::kQ4_0},
                    GoldenType{"Q4_1", DType::kQ4_1}, GoldenType{"Q5_0", DType::kQ5_0},
                    GoldenType{"Q5_1", DType::kQ5_1}, GoldenType{"Q4_K", DType::kQ4_K},
                    GoldenType{"Q5_K", DType::kQ5_K}, GoldenType{"Q6_K", DType::kQ6_K},
                    GoldenType{"IQ4_NL", DType::kIQ4_NL}, GoldenType{"MXFP4", DType::kMXFP4},
                    GoldenType{"IQ4_XS", DType::kIQ4_XS}, GoldenType{"Q3_K", DType::kQ3_K},
                    GoldenType{"Q2_K", DType::kQ2_K}),
    [](const auto& info) { return info.param.name; });

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (std::isnan(F16ToF32(half))) {
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(F16ToF32(half)))));
    } else {
      EXPECT_EQ(F32ToF16(F16ToF32(half)), half);
    }
    if (std::isnan(BF16ToF32(half))) {
      EXPECT_TRUE(std::isnan(BF16ToF32(F32ToBF16(BF16ToF32(half)))));
    } else {
      EXPECT_EQ(F32ToBF16(BF16ToF32(half)), half);
    }
  }
}

TEST(Half, RoundsToTheNearerNeighbourAndTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // finite positive halves but the largest
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const float middle = (F16ToF32(low) + F16ToF32(high)) / 2;  // exact
    EXPECT_EQ(F32ToF16(middle), bits % 2 == 0 ? low : high);
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, 0)), low);
    EXPECT_EQ(F32ToF16(std::nextafterf(middle, 1e9f)), high);
    EXPECT_EQ(F32ToF16(-std::nextafterf(middle, 1e9f)), high | 0x8000);
  }
  EXPECT_EQ(F32ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(F32ToF16(65520.0f), 0x7c00) << "half way to the next power: infinity";
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const uint32_t middle = bits << 16 | 0x8000;
    EXPECT_EQ(F32ToBF16(std::bit_cast<float>(middle)), bits + bits % 2);
    EXPECT_EQ(F32ToBF16(std::bit_cast<float>(middle - 1)), bits);
    EXPECT_EQ(F32ToBF16(std::bit_cast<float>(middle + 1)), bits + 1);
  }
}

}  // namespace
}  // namespace fairlead
