// SPDX-License-Identifier: Apache-2.0
// The reference's reading of weight blocks against the values of the gguf package
// (tests/golden/quants), bit for bit.
#include "tests/reference/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

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
  ASSERT_EQ(elements, 2048);
  ASSERT_EQ(blocks.size(), RowBytes(dtype, elements));
  for (int64_t i = 0; i < elements; ++i) {
    const auto* data = reinterpret_cast<const std::byte*>(blocks.data());
    const float got = reference::DequantizeElement(dtype, data, i);
    EXPECT_EQ(std::memcmp(&got, values.data() + i * 4, 4), 0) << "element " << i << " is " << got;
    EXPECT_GE(reference::ElementMagnitude(dtype, data, i), std::fabs(got) * (1 - 0x1p-20f));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DequantizeTest,
                         testing::Values(GoldenType{"F16", DType::kF16},
                                         GoldenType{"BF16", DType::kBF16},
                                         GoldenType{"Q8_0", DType::kQ8_0},
                                         GoldenType{"Q4_0", DType::kQ4_0},
                                         GoldenType{"Q4_1", DType::kQ4_1}),
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
