// SPDX-License-Identifier: Apache-2.0
// The CPU matmul on every instruction set of this machine, against sums in double of the file's
// weights.
#include "kernels/cpu/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/simd_matmul.h"
#include "kernels/half.h"
#include "tests/kernels/simd_targets_for_test.h"
#include "tests/reference/dequantize.h"

namespace fairlead {
namespace {

constexpr float kSentinel = -12345.0f;

class Random {
 public:
  explicit Random(int seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  std::byte Byte() { return static_cast<std::byte>(engine_() >> 24); }
  std::vector<float> Normals(int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = Normal();
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

struct Weight {
  DType dtype;
  int64_t rows, cols;
  std::vector<std::byte> bytes;

  double At(int64_t row, int64_t col) const {
    return reference::DequantizeElement(dtype, bytes.data() + row * RowBytes(dtype, cols), col);
  }
};

// In the file's layout: normal values, or blocks with normal scales and any bytes.
Weight MakeWeight(DType dtype, int64_t rows, int64_t cols, Random& random) {
  Weight weight{dtype, rows, cols, std::vector<std::byte>(rows * RowBytes(dtype, cols))};
  const int unit = Info(dtype).block_bytes;
  for (size_t at = 0; at < weight.bytes.size(); at += unit) {
    std::byte* block = weight.bytes.data() + at;
    const float first = random.Normal();
    if (dtype == DType::kF32) {
      std::memcpy(block, &first, 4);
      continue;
    }
    for (int i = 0; i < unit; ++i) block[i] = random.Byte();
    const uint16_t bits = dtype == DType::kBF16 ? F32ToBF16(first) : F32ToF16(first);
    const reference::ScalePlaces places = reference::ScalesAt(dtype);
    if (dtype == DType::kMXFP4) {
      block[0] = static_cast<std::byte>(128 + std::to_integer<int>(block[0]) % 8 - 4);
    } else {
      std::memcpy(block + places.d, &bits, 2);
    }
    const bool fits_first = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
    if (places.minimum >= 0) {
      const uint16_t minimum = F32ToF16((fits_first ? -8 : 8) * first + random.Normal());
      std::memcpy(block + places.minimum, &minimum, 2);
    }
  }
  return weight;
}

std::unique_ptr<PackedWeight> Pack(const Weight& weight, ThreadPool& pool) {
  const WeightPart part{weight.bytes.data(), weight.rows};
  auto packed =
      PackCpuWeight({weight.dtype, weight.cols, {&part, 1}, false}, Numerics::kFloat32, pool);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

Tensor View(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return Tensor(const_cast<float*>(values.data()), DType::kF32, {rows, cols});
}

std::vector<uint32_t> Bits(const float* values, int64_t count) {
  std::vector<uint32_t> bits(count);
  std::memcpy(bits.data(), values, count * sizeof(float));
  return bits;
}

// The bits of x * weight^T.
std::vector<uint32_t> Product(ThreadPool& pool, const PackedWeight& weight, const float* x,
                              int64_t tokens) {
  MatmulScratch scratch;
  std::vector<float> out(tokens * weight.rows(), kSentinel);
  const Tensor rows(const_cast<float*>(x), DType::kF32, {tokens, weight.cols()});
  CpuMatmul(pool, Int8Mode(),
            {.x = rows, .weight = &weight, .out = View(out, tokens, weight.rows())}, scratch);
  return Bits(out.data(), tokens * weight.rows());
}

struct Shape {
  int64_t n, k;
};

std::vector<Shape> Shapes(DType dtype) {
  if (Info(dtype).block_elements == 256) {
    return {{1, 256}, {15, 512}, {16, 768}, {17, 512}, {33, 1280}, {64, 768}};
  }
  if (IsQuantized(dtype)) return {{1, 32}, {15, 64}, {16, 288}, {17, 64}, {33, 320}, {64, 576}};
  return {{1, 1}, {15, 31}, {16, 32}, {17, 33}, {33, 64}, {48, 257}, {64, 576}};
}

// k, or the next multiple of the dtype's block.
int64_t WholeBlocks(DType dtype, int64_t k) {
  const int64_t block = Info(dtype).block_elements;
  return (k + block - 1) / block * block;
}

struct Expected {
  double sum = 0, magnitude = 0;
};

Expected Dot(const Weight& weight, int64_t row, const float* x) {
  Expected expected;
  for (int64_t k = 0; k < weight.cols; ++k) {
    const double term = x[k] * weight.At(row, k);
    expected.sum += term;
    expected.magnitude += std::abs(term);
  }
  return expected;
}

class CpuMatmulTest : public testing::TestWithParam<DType> {};

// One weight, multiplied with prefixes of the same rows into a slice of columns, all of it between
// sentinels.
class SliceChecker {
 public:
  SliceChecker(const Weight& weight, int64_t max_tokens, ThreadPool& pool, Random& random)
      : weight_(weight),
        pool_(pool),
        packed_(Pack(weight, pool)),
        x_(random.Normals(max_tokens * weight.cols)),
        bias_(random.Normals(weight.rows)),
        old_(random.Normals((max_tokens + 1) * columns())) {
    for (int64_t t = 0; t < max_tokens; ++t) {
      for (int64_t n = 0; n < weight.rows; ++n) {
        expected_.push_back(Dot(weight, n, x_.data() + t * weight.cols));
      }
    }
  }

  void Check(int64_t tokens, bool with_bias, bool accumulate) {
    std::vector<float> out = old_;
    MatmulArgs args = {.x = View(x_, tokens, weight_.cols),
                       .weight = packed_.get(),
                       .out = View(out, tokens, columns()),
                       .out_column = kOutColumn,
                       .accumulate = accumulate};
    if (with_bias) args.bias = Tensor(bias_.data(), DType::kF32, {weight_.rows});
    CpuMatmul(pool_, Int8Mode(), args, scratch_);
    int64_t wrong = 0, touched = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t t = i / columns(), n = i % columns() - kOutColumn;
      if (t >= tokens || n < 0 || n >= weight_.rows) {
        touched += std::bit_cast<uint32_t>(out[i]) != std::bit_cast<uint32_t>(old_[i]);
        continue;
      }
      Expected expected = expected_[t * weight_.rows + n];
      for (const float term : {with_bias ? bias_[n] : 0.0f, accumulate ? old_[i] : 0.0f}) {
        expected.sum += term;
        expected.magnitude += std::abs(term);
      }
      wrong += !(std::abs(out[i] - expected.sum) <= Gamma() * expected.magnitude);
    }
    EXPECT_EQ(wrong, 0) << weight_.rows << " x " << weight_.cols << ", " << tokens << " tokens";
    EXPECT_EQ(touched, 0) << weight_.rows << " x " << weight_.cols << ", " << tokens << " tokens";
  }

 private:
  static constexpr int64_t kOutColumn = 3;
  int64_t columns() const { return weight_.rows + 5; }
  // A sum of k products in any order, with weights rounded once when they are dequantised, plus a
  // bias and the old value: |error| <= gamma(k + 3) (sum |x w| + |bias| + |old|), gamma(n) = n u /
  // (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
  double Gamma() const {
    const double nu = static_cast<double>(weight_.cols + 3) * 0x1p-24;
    return nu / (1 - nu);
  }

  const Weight& weight_;
  ThreadPool& pool_;
  std::unique_ptr<PackedWeight> packed_;
  std::vector<float> x_, bias_, old_;
  std::vector<Expected> expected_;
  MatmulScratch scratch_;
};

TEST_P(CpuMatmulTest, MatchesDouble) {
  ForEachSimdTarget([&] {
    ThreadPool pool(3);
    Random random(1);
    for (const Shape& shape : Shapes(GetParam())) {
      const Weight weight = MakeWeight(GetParam(), shape.n, shape.k, random);
      SliceChecker checker(weight, /*max_tokens=*/250, pool, random);
      for (const int64_t tokens : {0, 1, 2, 3, 4, 5, 7, 12, 13, 64, 65, 130, 250}) {
        for (const bool with_bias : {false, true}) {
          for (const bool accumulate : {false, true}) checker.Check(tokens, with_bias, accumulate);
        }
      }
    }
  });
}

// A row's bits depend on the row alone: not on the rows around it, its place, the threads.
TEST_P(CpuMatmulTest, RowBitsDoNotDependOnTheBatch) {
  ForEachSimdTarget([&] {
    Random random(2);
    constexpr int64_t kRows = 130;
    const Weight weight = MakeWeight(GetParam(), 81, WholeBlocks(GetParam(), 320), random);
    const std::vector<float> x = random.Normals(kRows * weight.cols);
    ThreadPool one(1);
    const auto packed = Pack(weight, one);
    std::vector<uint32_t> alone;
    for (int64_t t = 0; t < kRows; ++t) {
      const auto row = Product(one, *packed, x.data() + t * weight.cols, 1);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      for (int64_t tokens = 1; tokens <= kRows; tokens += tokens < 32 ? 1 : 17) {
        for (const int64_t first : {int64_t{0}, int64_t{1}, kRows - tokens}) {
          if (first + tokens > kRows) continue;
          const auto begin = alone.begin() + first * weight.rows;
          EXPECT_EQ(Product(pool, *packed, x.data() + first * weight.cols, tokens),
                    std::vector<uint32_t>(begin, begin + tokens * weight.rows))
              << tokens << " tokens from " << first << ", " << threads << " threads";
        }
      }
    }
  });
}

// A row's bits do not depend on the weight's other rows either: q, k and v stacked are q, k and v.
TEST_P(CpuMatmulTest, PartsAreStacked) {
  ForEachSimdTarget([&] {
    ThreadPool pool(2);
    Random random(3);
    const Weight whole = MakeWeight(GetParam(), 61, WholeBlocks(GetParam(), 96), random);
    const size_t row_bytes = RowBytes(GetParam(), whole.cols);
    const std::vector<std::byte> first(whole.bytes.begin(), whole.bytes.begin() + 5 * row_bytes);
    const std::vector<std::byte> second(whole.bytes.begin() + 5 * row_bytes, whole.bytes.end());
    const WeightPart parts[] = {{first.data(), 5}, {nullptr, 0}, {second.data(), 56}};
    auto stacked = PackCpuWeight({GetParam(), whole.cols, parts, false}, Numerics::kFloat32, pool);
    ASSERT_TRUE(stacked.ok()) << stacked.status();
    EXPECT_EQ((*stacked)->rows(), 61);
    const std::vector<float> x = random.Normals(9 * whole.cols);
    for (const int64_t tokens : {1, 9}) {
      EXPECT_EQ(Product(pool, **stacked, x.data(), tokens),
                Product(pool, *Pack(whole, pool), x.data(), tokens));
    }
  });
}

// The unit vectors as activations read the weight back: these are the values the kernel multiplies
// with, and Embed's.
TEST_P(CpuMatmulTest, EmbedReadsTheWeightsThatMatmulMultipliesWith) {
  ForEachSimdTarget([&] {
    ThreadPool pool(2);
    Random random(4);
    const Weight weight = MakeWeight(GetParam(), 37, WholeBlocks(GetParam(), 64), random);
    const auto packed = Pack(weight, pool);
    std::vector<float> unit(weight.cols * weight.cols, 0.0f);
    for (int64_t k = 0; k < weight.cols; ++k) unit[k * weight.cols + k] = 1.0f;
    std::vector<float> columns(weight.cols * weight.rows);
    MatmulScratch scratch;
    CpuMatmul(pool, Int8Mode(),
              {.x = View(unit, weight.cols, weight.cols),
               .weight = packed.get(),
               .out = View(columns, weight.cols, weight.rows)},
              scratch);
    std::vector<int32_t> token = {36, 0, 15, 16, 0};
    std::vector<float> out(token.size() * weight.cols + 1, kSentinel);
    CpuEmbed(pool, {.token = Tensor(token.data(), DType::kI32, {5}),
                    .table = packed.get(),
                    .out = View(out, 5, weight.cols)});
    for (size_t t = 0; t < token.size(); ++t) {
      for (int64_t k = 0; k < weight.cols; ++k) {
        ASSERT_EQ(out[t * weight.cols + k], static_cast<float>(weight.At(token[t], k)));
        ASSERT_EQ(out[t * weight.cols + k], columns[k * weight.rows + token[t]]);
      }
    }
    EXPECT_EQ(out.back(), kSentinel);
  });
}

constexpr DType kWeightTypes[] = {DType::kF32,   DType::kF16,    DType::kBF16, DType::kQ8_0,
                                  DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                                  DType::kQ4_K,  DType::kQ5_K,   DType::kQ6_K, DType::kIQ4_NL,
                                  DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K};

INSTANTIATE_TEST_SUITE_P(DTypes, CpuMatmulTest, testing::ValuesIn(kWeightTypes),
                         [](const testing::TestParamInfo<DType>& param) {
                           return std::string(Info(param.param).name);
                         });

// Fused multiply-adds in the same order are the same everywhere. Baselines without them round
// twice.
TEST(CpuMatmulTargets, InstructionSetsWithFmaAgreeBitForBit) {
  ThreadPool pool(2);
  for (const DType dtype : kWeightTypes) {
    Random random(5);
    const Weight weight = MakeWeight(dtype, 75, WholeBlocks(dtype, 320), random);
    const auto packed = Pack(weight, pool);
    const std::vector<float> x = random.Normals(33 * weight.cols);
    for (const int64_t tokens : {1, 3, 33}) {
      std::vector<uint32_t> first;
      ForEachSimdTarget([&] {
        if (!SimdHasFma()) return;
        const auto product = Product(pool, *packed, x.data(), tokens);
        if (first.empty()) first = product;
        EXPECT_EQ(product, first) << SimdTargetName() << " " << Info(dtype).name;
      });
      EXPECT_EQ(first.empty(), !SimdHasFma());  // the best of this machine is one of them
    }
  }
}

// A weight that is large enough for another library's kernel where there is one (bf16 on CPUs that
// multiply it): the same promises hold, with activations rounded to bf16 first (at most 2^-8 of
// each product, for x and for the sum's terms).
TEST(CpuMatmulLarge, MatchesDoubleAndRowBitsDoNotDependOnTheBatch) {
  Random random(6);
  constexpr int64_t kRows = 150;
  const Weight weight = MakeWeight(DType::kBF16, 1100, 2048, random);
  ThreadPool pool(3);
  const size_t row_bytes = RowBytes(DType::kBF16, weight.cols);
  const WeightPart parts[] = {{weight.bytes.data(), 100},
                              {weight.bytes.data() + 100 * row_bytes, 1000}};
  auto packed = PackCpuWeight({DType::kBF16, weight.cols, parts, false}, Numerics::kPrecise, pool);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_GE((*packed)->bytes(), weight.bytes.size());
  const std::vector<float> x = random.Normals(kRows * weight.cols);
  const auto all = Product(pool, **packed, x.data(), kRows);
  for (int64_t i = 0; i < static_cast<int64_t>(all.size()); i += 997) {
    const Expected expected =
        Dot(weight, i % weight.rows, x.data() + i / weight.rows * weight.cols);
    ASSERT_NEAR(std::bit_cast<float>(all[i]), expected.sum, expected.magnitude * 0x1p-8) << i;
  }
  for (const int threads : {1, 2}) {
    ThreadPool other(threads);
    auto again =
        PackCpuWeight({DType::kBF16, weight.cols, parts, false}, Numerics::kPrecise, other);
    ASSERT_TRUE(again.ok()) << again.status();
    for (const int64_t tokens : {1, 2, 3, 8, 17, 63, 64, 65, 129}) {
      const int64_t first = kRows - tokens;
      const auto begin = all.begin() + first * weight.rows;
      EXPECT_EQ(Product(other, **again, x.data() + first * weight.cols, tokens),
                std::vector<uint32_t>(begin, begin + tokens * weight.rows))
          << tokens << " tokens, " << threads << " threads";
    }
  }
}

TEST(CpuMatmulLarge, BiasAccumulateAndColumns) {
  Random random(7);
  const Weight weight = MakeWeight(DType::kBF16, 1030, 2048, random);
  ThreadPool pool(2);
  const WeightPart part{weight.bytes.data(), weight.rows};
  auto packed =
      PackCpuWeight({DType::kBF16, weight.cols, {&part, 1}, false}, Numerics::kPrecise, pool);
  ASSERT_TRUE(packed.ok()) << packed.status();
  constexpr int64_t kTokens = 5;
  const int64_t columns = weight.rows + 7;
  const std::vector<float> x = random.Normals(kTokens * weight.cols);
  const std::vector<float> bias = random.Normals(weight.rows);
  const std::vector<float> old = random.Normals(kTokens * columns);
  const auto plain = Product(pool, **packed, x.data(), kTokens);
  std::vector<float> out = old;
  MatmulScratch scratch;
  CpuMatmul(pool, Int8Mode(),
            {.x = View(x, kTokens, weight.cols),
             .weight = packed->get(),
             .out = View(out, kTokens, columns),
             .bias = Tensor(const_cast<float*>(bias.data()), DType::kF32, {weight.rows}),
             .out_column = 4,
             .accumulate = true},
            scratch);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t n = c - 4;
      const bool inside = n >= 0 && n < weight.rows;
      const float before = old[t * columns + c];
      const float expected =
          inside ? (std::bit_cast<float>(plain[t * weight.rows + n]) + bias[n]) + before : before;
      ASSERT_EQ(out[t * columns + c], expected) << t << " " << c;
    }
  }
}

// To nearest, ties to even, NaN kept: what half.h does for one value.
TEST(SimdRoundToBF16, IsTheScalarRounding) {
  ForEachSimdTarget([] {
    std::vector<float> values;
    for (uint32_t high = 0; high < 0x10000; ++high) {
      for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
        values.push_back(std::bit_cast<float>(high << 16 | low));
      }
    }
    values.push_back(1.5f);  // an odd end
    std::vector<uint16_t> rounded(values.size());
    SimdRoundToBF16(values.data(), static_cast<int64_t>(values.size()), rounded.data());
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(rounded[i], F32ToBF16(values[i])) << i;
  });
}

TEST(PackCpuWeightTest, RefusesWhatCannotBePacked) {
  ThreadPool pool(1);
  const std::vector<std::byte> bytes(1024);
  const WeightPart part{bytes.data(), 2};
  const auto pack = [&](DType dtype, int64_t cols, absl::Span<const WeightPart> parts) {
    return PackCpuWeight({dtype, cols, parts, false}, Numerics::kPrecise, pool).status();
  };
  EXPECT_EQ(pack(DType::kI32, 4, {&part, 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pack(DType::kF32, 0, {&part, 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pack(DType::kF32, 4, {}).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status block = pack(DType::kQ4_1, 48, {&part, 1});
  EXPECT_EQ(block.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(block.message()), testing::HasSubstr("48"));
  EXPECT_TRUE(pack(DType::kQ4_1, 64, {&part, 1}).ok());
  EXPECT_THAT(std::string(pack(DType::kQ4_K, 128, {&part, 1}).message()),
              testing::AllOf(testing::HasSubstr("128"), testing::HasSubstr("256")));
}

}  // namespace
}  // namespace fairlead
