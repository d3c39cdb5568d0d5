// SPDX-License-Identifier: Apache-2.0
// Every integer kernel of this machine: the same bits as plain C++ for every type, shape, number of
// tokens and range of panels, and values within a derived bound of the product in double.
#include "kernels/cpu/int8_matmul.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "kernels/cpu/matmul_int8.h"
#include "kernels/half.h"
#include "tests/reference/dequantize.h"
#include "tests/reference/int8_portable.h"

namespace fairlead {
namespace {

constexpr DType kTypes[] = {DType::kQ8_0,   DType::kQ4_0,  DType::kQ4_1,   DType::kQ5_0,
                            DType::kQ5_1,   DType::kQ4_K,  DType::kQ5_K,   DType::kQ6_K,
                            DType::kIQ4_NL, DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K,
                            DType::kQ2_K};
constexpr float kSentinel = 12345.0f;

enum class Values { kRandom, kExtreme, kMixed };

// The largest integers of either sign and scale: what could overflow or saturate does so here.
std::vector<std::byte> WeightBytes(DType dtype, int64_t elements, Values values,
                                   std::mt19937& random) {
  std::vector<std::byte> bytes(RowBytes(dtype, elements));
  const int pattern = static_cast<int>(random() % 3);
  for (std::byte& b : bytes) {
    const int extreme = pattern == 0 ? 0x80 : pattern == 1 ? 0xff : 0x7f;
    b = static_cast<std::byte>(values == Values::kExtreme ? extreme : random());
  }
  const int block_bytes = Info(dtype).block_bytes;
  const auto set_half = [&](size_t at, float value) {
    const uint16_t bits = F32ToF16(value);
    std::memcpy(bytes.data() + at, &bits, sizeof(bits));
  };
  for (size_t block = 0; block < bytes.size(); block += block_bytes) {
    constexpr float kMixedScales[] = {0, 0x1p-24f, 0x1p-14f, 0.003f, 1, 100};
    const float d = values == Values::kMixed ? kMixedScales[random() % 6]
                                             : 0.001f * static_cast<float>(1 + random() % 9);
    const reference::ScalePlaces at = reference::ScalesAt(dtype);
    if (dtype == DType::kMXFP4) {
      const int exponent = d == 0 ? 0 : 128 + std::ilogb(d);
      bytes[block] = static_cast<std::byte>(exponent);
      continue;
    }
    set_half(block + at.d, random() % 2 == 0 ? d : -d);
    const bool fits_first = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
    if (at.minimum >= 0) set_half(block + at.minimum, fits_first ? -7 * d : 4 * d);
  }
  return bytes;
}

std::vector<float> Activations(int64_t count, Values values, std::mt19937& random) {
  std::vector<float> x(count);
  std::normal_distribution<float> normal;
  const bool lowest = random() % 2 == 0;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = values == Values::kExtreme ? (random() % 8 == 0 ? -3.0f : 3.0f) : normal(random);
    // Beside one of 3: integers whose low term is -128.
    if (values == Values::kExtreme && lowest && i % 64 != 0) x[i] = 3.0f * 32384 / 32512;
    if (values == Values::kRandom && i % 97 == 0) x[i] *= 50;
  }
  return x;
}

// Spans have two terms always.
bool HasTerms(const Int8Kernels& kernels, int terms) { return terms == 2 || !kernels.spans; }

// Those of this machine and the portable ones, which stand for those of others.
std::vector<const Int8Kernels*> AllKernels() {
  const auto supported = SupportedInt8Kernels();
  std::vector<const Int8Kernels*> all(supported.begin(), supported.end());
  all.push_back(&reference::kInt8Portable);
  all.push_back(&reference::kInt8PortableSpan);
  return all;
}

struct Product {
  ThreadPool pool{2};
  Int8Scratch scratch;
  std::unique_ptr<PackedWeight> packed;

  Product(DType dtype, int64_t cols, const std::vector<std::byte>& bytes) {
    const WeightPart part{bytes.data(), static_cast<int64_t>(bytes.size() / RowBytes(dtype, cols))};
    auto weight = PackCpuWeight({dtype, cols, {&part, 1}, false}, Numerics::kFast, pool);
    EXPECT_TRUE(weight.ok()) << weight.status();
    packed = *std::move(weight);
  }

  // Bits of [tokens, rows], between columns that stay as they are; with a bias added, and to
  // kSentinel, where there is one.
  std::vector<uint32_t> Run(const Int8Kernels& kernels, int terms, const float* x, int64_t tokens,
                            const float* bias = nullptr) {
    const int64_t rows = packed->rows(), stride = rows + 4;
    std::vector<float> out(tokens * stride, kSentinel);
    MultiplyInt8(
        pool, {&kernels, terms}, static_cast<const CpuPackedWeight&>(*packed), x, tokens,
        {.data = out.data() + 2, .stride = stride, .bias = bias, .accumulate = bias != nullptr},
        scratch);
    std::vector<uint32_t> bits;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = out.data() + t * stride;
      for (const int64_t c : {int64_t{0}, int64_t{1}, rows + 2, rows + 3}) {
        EXPECT_EQ(row[c], kSentinel);
      }
      for (int64_t n = 0; n < rows; ++n) bits.push_back(std::bit_cast<uint32_t>(row[2 + n]));
    }
    return bits;
  }
};

struct Shape {
  int64_t rows, cols;
};

std::vector<Shape> Shapes(DType dtype) {
  if (Info(dtype).block_elements == 256) return {{1, 256}, {17, 512}, {80, 768}, {100, 2304}};
  return {{1, 32}, {17, 64}, {33, 96}, {20, 160}, {33, 224}, {80, 288}, {100, 576}, {33, 2080}};
}

class Int8Matmul : public testing::TestWithParam<DType> {};

TEST_P(Int8Matmul, AllKernelsGiveTheBitsOfPlainCpp) {
  std::mt19937 random(7);
  constexpr int64_t kMostTokens = 41;
  for (const Values values : {Values::kRandom, Values::kExtreme, Values::kMixed}) {
    for (const Shape& shape : Shapes(GetParam())) {
      Product product(GetParam(), shape.cols,
                      WeightBytes(GetParam(), shape.rows * shape.cols, values, random));
      const std::vector<float> x = Activations(kMostTokens * shape.cols, values, random);
      for (const int terms : {1, 2}) {
        std::vector<uint32_t> wants[2];
        if (terms == 2) {
          wants[1] = product.Run(reference::kInt8PortableSpan, terms, x.data(), kMostTokens);
        }
        wants[0] = product.Run(reference::kInt8Portable, terms, x.data(), kMostTokens);
        for (const Int8Kernels* kernels : SupportedInt8Kernels()) {
          if (!HasTerms(*kernels, terms)) continue;
          const std::vector<uint32_t>& want = wants[kernels->spans];
          // From the second token on too: a row's place in a tile changes nothing.
          for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 13, 16, 17, 40, 41}) {
            for (const int64_t first : {int64_t{0}, kMostTokens - tokens}) {
              const auto got = product.Run(*kernels, terms, x.data() + first * shape.cols, tokens);
              const auto begin = want.begin() + first * shape.rows;
              ASSERT_TRUE(std::equal(got.begin(), got.end(), begin))
                  << kernels->name << ", " << terms << " terms, " << shape.rows << " x "
                  << shape.cols << ", " << tokens << " tokens from " << first;
            }
          }
        }
      }
    }
  }
}

TEST_P(Int8Matmul, BiasAndWhatWasThereAreAddedLast) {
  std::mt19937 random(11);
  constexpr int64_t kCols = 512, kTokens = 35;
  for (const int64_t rows : {1, 17, 48, 70}) {
    Product product(GetParam(), kCols,
                    WeightBytes(GetParam(), rows * kCols, Values::kRandom, random));
    const std::vector<float> x = Activations(kTokens * kCols, Values::kRandom, random);
    const std::vector<float> bias = Activations(rows, Values::kRandom, random);
    for (const Int8Kernels* kernels : SupportedInt8Kernels()) {
      for (const int64_t tokens : {int64_t{1}, int64_t{16}, kTokens}) {
        const auto plain = product.Run(*kernels, 2, x.data(), tokens);
        const auto added = product.Run(*kernels, 2, x.data(), tokens, bias.data());
        for (size_t i = 0; i < plain.size(); ++i) {
          const float want = (std::bit_cast<float>(plain[i]) + bias[i % rows]) + kSentinel;
          ASSERT_EQ(added[i], std::bit_cast<uint32_t>(want))
              << kernels->name << ", " << rows << " rows, " << tokens << " tokens, " << i;
        }
      }
    }
  }
}

TEST_P(Int8Matmul, ManyTokensAreCutWithoutATrace) {
  std::mt19937 random(8);
  constexpr int64_t kCols = 256, kRows = 48, kTokens = 2 * kMaxInt8Tokens + 19;
  Product product(GetParam(), kCols,
                  WeightBytes(GetParam(), kRows * kCols, Values::kRandom, random));
  const std::vector<float> x = Activations(kTokens * kCols, Values::kRandom, random);
  for (const Int8Kernels* kernels : SupportedInt8Kernels()) {
    const auto whole = product.Run(*kernels, 2, x.data(), kTokens);
    for (int64_t t = 0; t < kTokens; t += 31) {
      const auto alone = product.Run(*kernels, 2, x.data() + t * kCols, 1);
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), whole.begin() + t * kRows))
          << kernels->name << ", token " << t;
    }
  }
}

// A scale's worth of k: an activation is off by half a step at most, and of spans a weight by
// (c + 1) / 2 of its unit. `magnitude` bounds the sums that round in f32, a weight type's own split
// into d * q and m included (ElementMagnitude).
struct ScaleBound {
  double error = 0, magnitude = 0;

  ScaleBound(DType dtype, const std::byte* bytes, int64_t first, const float* x, int count,
             const Int8Kernels& kernels, int terms) {
    const double limit = kernels.spans ? kInt8SpanLimit : terms == 2 ? 2032 : 127;
    double largest = 0, largest_weight = 0;
    for (int k = 0; k < count; ++k) {
      largest = std::max<double>(largest, std::abs(x[k]));
      // The stored integer need not be the one that gives the largest weight.
      largest_weight = std::max<double>(largest_weight,
                                        2 * reference::ElementMagnitude(dtype, bytes, first + k));
    }
    const double centre = kCentres.at(dtype);
    const double unit = kernels.spans ? largest_weight / (32766 - centre / 2) : 0;
    for (int k = 0; k < count; ++k) {
      const double weight = std::abs(reference::DequantizeElement(dtype, bytes, first + k));
      const double weight_error = unit * (centre + 1) / 2 * 1.0001;
      error += largest / limit / 2 * 1.0001 * (weight + weight_error);
      error += std::abs(x[k]) * weight_error;
      magnitude += largest * (reference::ElementMagnitude(dtype, bytes, first + k) + weight_error);
    }
  }

  static inline const std::map<DType, double> kCentres = {
      {DType::kQ8_0, 128},   {DType::kQ4_0, 8},   {DType::kQ4_1, 8},     {DType::kQ5_0, 16},
      {DType::kQ5_1, 16},    {DType::kQ4_K, 8},   {DType::kQ5_K, 16},    {DType::kQ6_K, 32},
      {DType::kIQ4_NL, 128}, {DType::kMXFP4, 16}, {DType::kIQ4_XS, 128}, {DType::kQ3_K, 4},
      {DType::kQ2_K, 2}};
};

TEST_P(Int8Matmul, IsNearTheProductInDouble) {
  std::mt19937 random(9);
  for (const Shape& shape : Shapes(GetParam())) {
    const auto bytes = WeightBytes(GetParam(), shape.rows * shape.cols, Values::kRandom, random);
    Product product(GetParam(), shape.cols, bytes);
    const std::vector<float> x = Activations(shape.cols, Values::kRandom, random);
    for (const int terms : {1, 2}) {
      for (const Int8Kernels* kernels : AllKernels()) {
        if (!HasTerms(*kernels, terms)) continue;
        const int64_t step = kernels->spans ? kInt8SpanBlocks * kInt8Block : kInt8Block;
        const auto bits = product.Run(*kernels, terms, x.data(), 1);
        for (int64_t n = 0; n < shape.rows; ++n) {
          double want = 0, bound = 0, magnitude = 0;
          for (int64_t k = 0; k < shape.cols; k += step) {
            const auto count = static_cast<int>(std::min(step, shape.cols - k));
            const ScaleBound scale(GetParam(), bytes.data(), n * shape.cols + k, &x[k], count,
                                   *kernels, terms);
            bound += scale.error;
            magnitude += scale.magnitude;
          }
          for (int64_t k = 0; k < shape.cols; ++k) {
            want +=
                x[k] * reference::DequantizeElement(GetParam(), bytes.data(), n * shape.cols + k);
          }
          bound += magnitude * 6 * static_cast<double>(shape.cols / kInt8Block) * 0x1p-24;
          EXPECT_NEAR(std::bit_cast<float>(bits[n]), want, bound)
              << kernels->name << ", " << terms << " terms, row " << n;
        }
      }
    }
  }
}

TEST_P(Int8Matmul, WhatIsNotFiniteShowsInItsRowAlone) {
  std::mt19937 random(10);
  constexpr int64_t kCols = 512, kRows = 20, kTokens = 18;
  Product product(GetParam(), kCols,
                  WeightBytes(GetParam(), kRows * kCols, Values::kRandom, random));
  std::vector<float> x = Activations(kTokens * kCols, Values::kRandom, random);
  for (const Int8Kernels* kernels : AllKernels()) {
    for (const int64_t tokens : {int64_t{3}, kTokens}) {
      const auto clean = product.Run(*kernels, 2, x.data(), tokens);
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        std::vector<float> spoilt = x;
        spoilt[2 * kCols + 300] = bad;
        const auto got = product.Run(*kernels, 2, spoilt.data(), tokens);
        for (int64_t i = 0; i < tokens * kRows; ++i) {
          if (i / kRows == 2) {
            EXPECT_TRUE(std::isnan(std::bit_cast<float>(got[i]))) << kernels->name;
          } else {
            EXPECT_EQ(got[i], clean[i]) << kernels->name;
          }
        }
      }
    }
  }
}

// A file's factor that is not finite: the same answer from every kernel for a number of tokens.
TEST_P(Int8Matmul, FactorsThatAreNotFiniteAreTheSameForAnyNumberOfTokens) {
  std::mt19937 random(12);
  constexpr int64_t kCols = 512, kRows = 20, kTokens = 18;
  auto bytes = WeightBytes(GetParam(), kRows * kCols, Values::kRandom, random);
  std::byte* const row = bytes.data() + 3 * RowBytes(GetParam(), kCols);
  const uint16_t infinite = 0x7c00;
  if (GetParam() == DType::kMXFP4) {
    row[0] = std::byte{0xff};
  } else {
    std::memcpy(row + reference::ScalesAt(GetParam()).d, &infinite, sizeof(infinite));
  }
  Product product(GetParam(), kCols, bytes);
  const std::vector<float> x = Activations(kTokens * kCols, Values::kRandom, random);
  for (const Int8Kernels* kernels : AllKernels()) {
    const auto whole = product.Run(*kernels, 2, x.data(), kTokens);
    for (int64_t t = 0; t < kTokens; ++t) {
      const auto alone = product.Run(*kernels, 2, x.data() + t * kCols, 1);
      for (int64_t n = 0; n < kRows; ++n) {
        const float one = std::bit_cast<float>(alone[n]);
        const float all = std::bit_cast<float>(whole[t * kRows + n]);
        EXPECT_EQ(std::isfinite(one), n != 3) << kernels->name;
        EXPECT_TRUE(one == all || (std::isnan(one) && std::isnan(all)))
            << kernels->name << ", row " << n << ": " << one << " and " << all;
      }
    }
  }
}

TEST_P(Int8Matmul, ZerosAndTinyValuesGiveZero) {
  std::mt19937 random(11);
  constexpr int64_t kCols = 256, kRows = 16;
  Product product(GetParam(), kCols,
                  WeightBytes(GetParam(), kRows * kCols, Values::kRandom, random));
  for (const float value : {0.0f, -0.0f, 1e-38f, 1e-45f}) {
    const std::vector<float> x(20 * kCols, value);
    for (const Int8Kernels* kernels : AllKernels()) {
      for (const int64_t tokens : {1, 20}) {
        for (const uint32_t bits : product.Run(*kernels, 2, x.data(), tokens)) {
          EXPECT_EQ(std::bit_cast<float>(bits), 0.0f) << kernels->name << " of " << value;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Int8Matmul, testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(Info(info.param).name); });

TEST(Int8Kernels, EachIsListedOnceAndTheBestFirst) {
  const auto kernels = SupportedInt8Kernels();
  for (size_t i = 0; i < kernels.size(); ++i) {
    std::cout << kernels[i]->name << "\n";
    EXPECT_EQ(std::count(kernels.begin(), kernels.end(), kernels[i]), 1);
    EXPECT_GE(kernels[0]->precise_terms, kernels[i]->precise_terms);
    EXPECT_GE(kernels[0]->spans, kernels[i]->spans);
  }
}

}  // namespace
}  // namespace fairlead
