// SPDX-License-Identifier: Apache-2.0
// The GPU matmul and embedding on the SIMT executor, with every access looked at, against sums in
// double of the file's weights. Compiled for both warp sizes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gpu/kernels.h"
#include "kernels/gpu/matmul_mma.h"
#include "tests/reference/dequantize.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

constexpr float kSentinel = -12345.0f;

// A copy of `values` in memory that kernels may use, `skip` elements past an aligned address.
template <typename T>
class GlobalArray {
 public:
  explicit GlobalArray(const std::vector<T>& values, int skip = 0)
      : base_(static_cast<T*>(simt::AllocateGlobal((values.size() + skip) * sizeof(T)))),
        data_(base_ + skip) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
  }
  ~GlobalArray() { simt::FreeGlobal(base_); }
  GlobalArray(const GlobalArray&) = delete;
  GlobalArray& operator=(const GlobalArray&) = delete;

  T* data() { return data_; }

 private:
  T* base_;
  T* data_;
};

struct Weight {
  DType dtype;
  int64_t rows, cols;
  std::vector<std::byte> bytes;  // in the file's layout

  float At(int64_t row, int64_t col) const {
    return reference::DequantizeElement(dtype, bytes.data() + row * RowBytes(dtype, cols), col);
  }
};

// Any bits, but the floats among them of an absolute value in [0.5, 2).
Weight MakeWeight(DType dtype, int64_t rows, int64_t cols, int seed) {
  Weight weight{dtype, rows, cols, std::vector<std::byte>(rows * RowBytes(dtype, cols))};
  std::mt19937 random(seed);
  for (std::byte& byte : weight.bytes) byte = static_cast<std::byte>(random() >> 24);
  const auto tame = [](std::byte* high_byte, int keep, int set) {
    *high_byte = static_cast<std::byte>((std::to_integer<int>(*high_byte) & keep) | set);
  };
  const int unit = Info(dtype).block_bytes;
  for (size_t at = 0; at < weight.bytes.size(); at += unit) {
    std::byte* block = weight.bytes.data() + at;
    if (dtype == DType::kF32 || dtype == DType::kBF16) {
      tame(block + unit - 1, 0x80, 0x3f);
      continue;
    }
    const reference::ScalePlaces scales = reference::ScalesAt(dtype);
    if (scales.d >= 0) tame(block + scales.d + 1, 0x87, 0x38);
    if (scales.minimum >= 0) tame(block + scales.minimum + 1, 0x87, 0x38);
    if (dtype == DType::kMXFP4) tame(block, 0x07, 0x7c);
  }
  return weight;
}

std::vector<float> Normals(int64_t count, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// In two parts where there are two rows. What lies between the planes is not zero.
std::unique_ptr<GpuPackedWeight> Pack(const Weight& weight, int groups = 1) {
  const int64_t first = weight.rows / 2;
  const std::vector<WeightPart> parts = {
      {weight.bytes.data(), first},
      {weight.bytes.data() + first * RowBytes(weight.dtype, weight.cols), weight.rows - first}};
  const size_t bytes = GpuPackedBytes(weight.dtype, GpuRows(weight.rows, groups), weight.cols);
  void* data = simt::AllocateGlobal(bytes);
  std::memset(data, 0xff, bytes);
  PackGpuWeight({.dtype = weight.dtype, .cols = weight.cols, .parts = parts, .groups = groups},
                static_cast<std::byte*>(data));
  return std::make_unique<GpuPackedWeight>(weight.dtype, weight.rows, weight.cols, groups,
                                           Buffer(data, bytes, simt::FreeGlobal));
}

struct Shape {
  int64_t n, k;
};

// One chunk, a whole warp's and one more, several stages of the tiled kernel.
std::vector<Shape> Shapes(DType dtype) {
  if (Info(dtype).block_elements == 256) return {{1, 256}, {17, 512}, {5, 2304}, {67, 768}};
  if (IsQuantized(dtype)) return {{1, 32}, {17, 64}, {5, 1056}, {3, 4160}, {67, 96}};
  return {{1, 1}, {15, 31}, {5, 32}, {17, 33}, {5, 1030}, {3, 4132}, {67, 64}};
}

// Of tensor cores, or the one of float32.
using Kernel = std::optional<MmaKernel>;
constexpr Kernel kFloat32 = std::nullopt;
constexpr MmaKernel kMmaKernels[] = {MmaKernel::kStaged, MmaKernel::kFew, MmaKernel::kSome,
                                     MmaKernel::kMany};

void Multiply(const MatmulArgs& args, Kernel kernel) {
  if (!kernel) return LaunchMatmul(StreamHandle{}, args, Numerics::kFloat32, {});
  GlobalArray<std::byte> memory(std::vector<std::byte>(
      MmaMemoryBytes(args.weight->dtype(), args.weight->cols(), args.x.dim[0]),
      std::byte{0xff}));  // NaN
  LaunchMatmulMma(StreamHandle{}, args, *kernel, memory.data());
}

// x * weight^T between sentinels, row by row; x begins `skip` floats past an aligned address.
std::vector<float> Product(const GpuPackedWeight& weight, const float* x, int64_t tokens,
                           Kernel kernel, int skip = 0) {
  GlobalArray<float> in(std::vector<float>(x, x + tokens * weight.cols()), skip);
  std::vector<float> result(tokens * weight.rows(), kSentinel);
  GlobalArray<float> out(result);
  Multiply({.x = Tensor(in.data(), DType::kF32, {tokens, weight.cols()}),
            .weight = &weight,
            .out = Tensor(out.data(), DType::kF32, {tokens, weight.rows()})},
           kernel);
  std::memcpy(result.data(), out.data(), result.size() * sizeof(float));
  return result;
}

bool SameBits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

// Sums of absolute values: of the terms; with |q * scale| + |minimum| for |w|; of bias and what was
// there. The largest of the inputs.
struct Magnitudes {
  double terms = 0, parts = 0, rest = 0, largest_x = 0, largest_w = 0;
};

// An output is a chain of at most `chain` fused multiply-adds a lane, kWarp additions of lanes, and
// two more. Each rounds by at most 2^-24 of a partial sum, none of which is larger than the sum of
// the terms' absolute values (and a little); so the error is at most (chain + kWarp + 2) * 2^-24
// times that.
double Float32Bound(const Weight& weight, const Magnitudes& sums) {
  const int elements = GpuChunkElements(kGpuFormats[static_cast<size_t>(weight.dtype)]);
  const int64_t turns = (GpuChunks(weight.dtype, weight.cols) + kWarp - 1) / kWarp;
  return 1.001 * 0x1p-24 * static_cast<double>(turns * elements + kWarp + 2) *
         (sums.terms + sums.rest);
}

// Rounding to f16 errs by at most u = 2^-11 of the value, or, since the largest of a slice or row
// is brought to 2^14, by half of 2^-24 / 2^14 = 2^-39 of the largest. x is rounded once; of w the
// scale, the minimum (both exact in most dtypes) and the sum, so by 3 u of |q * scale| + |minimum|
// at most, and by 15 or 31 times 2^-39 of the largest in the scale, 1 in the others. A sum is k
// fused multiply-adds, 8 slices and 4 more.
double PreciseBound(const Weight& weight, const Magnitudes& sums) {
  const double u = 0x1p-11, k = static_cast<double>(weight.cols);
  const double inputs = (1 + u) * (1 + 3 * u) - 1;
  const double small = k * 34 * 0x1p-39 * sums.largest_x * sums.largest_w;
  return 1.01 * (inputs * sums.parts + small + (k + 12) * 0x1p-24 * (sums.parts + sums.rest));
}

bool Within(double got, double expected, double bound) { return std::abs(got - expected) <= bound; }

TEST(GpuMatmulComparator, FindsWrongValues) {
  EXPECT_TRUE(Within(1.0, 1.25, 0.25));
  EXPECT_FALSE(Within(1.0, 1.5, 0.25));
  EXPECT_FALSE(Within(-9.0, -5.0, 0.25));
  EXPECT_FALSE(Within(NAN, 1.0, 0.25));
  EXPECT_FALSE(Within(INFINITY, 1.0, 0.25));
}

struct Options {
  bool bias = false, accumulate = false;
  int64_t before = 0, after = 0;  // columns of out beside the product's
};

// By double sums, and how large what it is made of is.
double ExpectedSum(const Weight& weight, int64_t row, const float* x, Magnitudes* sums) {
  const std::byte* elements = weight.bytes.data() + row * RowBytes(weight.dtype, weight.cols);
  double sum = 0;
  for (int64_t i = 0; i < weight.cols; ++i) {
    const double term = static_cast<double>(x[i]) * weight.At(row, i);
    const double part = reference::ElementMagnitude(weight.dtype, elements, i);
    sum += term;
    sums->terms += std::abs(term);
    sums->parts += std::abs(x[i]) * part;
    sums->largest_x = std::max(sums->largest_x, std::abs(double{x[i]}));
    sums->largest_w = std::max(sums->largest_w, part);
  }
  return sum;
}

void ExpectProduct(const Weight& weight, const GpuPackedWeight& packed, int64_t tokens,
                   const Options& options, Kernel kernel) {
  SCOPED_TRACE(testing::Message() << "[" << weight.rows << ", " << weight.cols << "], " << tokens
                                  << " tokens, kernel "
                                  << (kernel ? static_cast<int>(*kernel) : -1));
  const int64_t n = weight.rows, k = weight.cols, columns = options.before + n + options.after;
  const std::vector<float> x = Normals(tokens * k, 1), bias = Normals(n, 2);
  std::vector<float> before(tokens * columns, kSentinel);
  if (options.accumulate) before = Normals(tokens * columns, 3);
  GlobalArray<float> x_memory(x), bias_memory(bias), out(before);
  MatmulArgs args = {.x = Tensor(x_memory.data(), DType::kF32, {tokens, k}),
                     .weight = &packed,
                     .out = Tensor(out.data(), DType::kF32, {tokens, columns})};
  args.out_column = options.before;
  args.accumulate = options.accumulate;
  if (options.bias) args.bias = Tensor(bias_memory.data(), DType::kF32, {n});
  Multiply(args, kernel);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t column = 0; column < columns; ++column) {
      const float got = out.data()[t * columns + column], was = before[t * columns + column];
      const int64_t row = column - options.before;
      if (row < 0 || row >= n) {
        ASSERT_EQ(got, was) << "token " << t << ", column " << column;
        continue;
      }
      Magnitudes sums;
      double sum = ExpectedSum(weight, row, x.data() + t * k, &sums);
      if (options.accumulate) sum += was, sums.rest += std::abs(was);
      if (options.bias) sum += bias[row], sums.rest += std::abs(bias[row]);
      const double bound = kernel ? PreciseBound(weight, sums) : Float32Bound(weight, sums);
      ASSERT_TRUE(Within(got, sum, bound))
          << "token " << t << ", row " << row << ": " << got << ", not " << sum;
    }
  }
}

class GpuMatmulTest : public testing::TestWithParam<DType> {};

TEST_P(GpuMatmulTest, MultipliesWithTheFilesElements) {
  for (const Shape& shape : Shapes(GetParam())) {
    const Weight weight = MakeWeight(GetParam(), shape.n, shape.k, 4);
    const auto packed = Pack(weight);
    for (const int64_t tokens : {0, 1, 2, 3, 5, 8, 17}) {
      ExpectProduct(weight, *packed, tokens, {}, kFloat32);
    }
  }
}

TEST_P(GpuMatmulTest, TensorCoresMultiplyWithTheFilesElements) {
  for (const Shape& shape : Shapes(GetParam())) {
    const Weight weight = MakeWeight(GetParam(), shape.n, shape.k, 4);
    const auto packed = Pack(weight);
    ExpectProduct(weight, *packed, 0, {}, MmaKernel::kFew);
    ExpectProduct(weight, *packed, 1, {}, MmaKernel::kStaged);
    ExpectProduct(weight, *packed, 19, {}, MmaKernel::kFew);
    ExpectProduct(weight, *packed, 9, {}, MmaKernel::kSome);
    ExpectProduct(weight, *packed, 3, {}, MmaKernel::kMany);
  }
}

TEST_P(GpuMatmulTest, AddsBiasAndWhatIsThereInItsColumnsAlone) {
  const Shape shape = Shapes(GetParam())[1];
  const Weight weight = MakeWeight(GetParam(), shape.n, shape.k, 5);
  const auto packed = Pack(weight);
  for (const int64_t tokens : {1, 2, 7}) {
    for (const Kernel kernel : {kFloat32, Kernel(MmaKernel::kFew), Kernel(MmaKernel::kMany)}) {
      ExpectProduct(weight, *packed, tokens, {.bias = true}, kernel);
      ExpectProduct(weight, *packed, tokens, {.accumulate = true, .before = 3}, kernel);
      ExpectProduct(weight, *packed, tokens,
                    {.bias = true, .accumulate = true, .before = 5, .after = 2}, kernel);
    }
  }
}

TEST_P(GpuMatmulTest, BitsOfARowDoNotDependOnTheOthers) {
  constexpr int64_t kTokens = 17;
  for (const Shape& shape : Shapes(GetParam())) {
    const auto packed = Pack(MakeWeight(GetParam(), shape.n, shape.k, 6));
    const std::vector<float> x = Normals(kTokens * shape.k, 7);
    const std::vector<float> all = Product(*packed, x.data(), kTokens, kFloat32);
    for (const int64_t tokens : {1, 2, 3, 4, 5, 9}) {
      for (int64_t begin = 0; begin + tokens <= kTokens; begin += tokens) {
        const std::vector<float> some =
            Product(*packed, x.data() + begin * shape.k, tokens, kFloat32);
        ASSERT_TRUE(SameBits(some.data(), all.data() + begin * shape.n, tokens * shape.n))
            << "[" << shape.n << ", " << shape.k << "], " << tokens << " tokens from " << begin;
      }
    }
  }
}

// Of all kernels of tensor cores: one, whole tiles, and partly filled ones.
TEST_P(GpuMatmulTest, BitsOfARowDoNotDependOnTheKernelOrTheOthers) {
  constexpr int64_t kTokens = 129;
  const Shape shape = Shapes(GetParam())[2];  // more groups than slices
  const int64_t n = 35;
  const auto packed = Pack(MakeWeight(GetParam(), n, shape.k, 6));
  const std::vector<float> x = Normals(kTokens * shape.k, 7);
  const std::vector<float> all = Product(*packed, x.data(), kTokens, MmaKernel::kMany);
  for (const int64_t tokens : {1, 2, 3, 7, 8, 16, 17, 33, 64, 129}) {
    const int64_t begin = kTokens - tokens;
    for (const MmaKernel kernel : kMmaKernels) {
      if (!HasMmaKernel(kernel, GetParam(), shape.k, tokens)) continue;
      const std::vector<float> some = Product(*packed, x.data() + begin * shape.k, tokens, kernel);
      ASSERT_TRUE(SameBits(some.data(), all.data() + begin * n, tokens * n))
          << tokens << " tokens, kernel " << static_cast<int>(kernel);
    }
  }
}

// Of experts: the kernel, or, without one, what a device takes, which may be in pieces.
struct GroupedKernel {
  Kernel mma;
  Numerics numerics = Numerics::kPrecise;
  int64_t memory_tokens = 0;  // that the memory is for
};

std::vector<float> GroupedProduct(const GpuPackedWeight& weight, const std::vector<float>& x,
                                  const std::vector<int>& expert, int64_t slots,
                                  const GroupedKernel& kernel) {
  const int64_t pairs = static_cast<int64_t>(expert.size()), tokens = pairs / slots;
  const int64_t n = weight.group_rows(), k = weight.cols();
  GlobalArray<float> in(x);
  GlobalArray<int> experts(expert);
  std::vector<float> result(pairs * n, kSentinel);
  GlobalArray<float> out(result);
  const GroupedMatmulArgs args = {
      .x = Tensor(in.data(), DType::kF32, {static_cast<int64_t>(x.size()) / k, k}),
      .expert = Tensor(experts.data(), DType::kI32, {tokens, slots}),
      .weight = &weight,
      .out = Tensor(out.data(), DType::kF32, {pairs, n})};
  const int64_t memory_tokens = kernel.memory_tokens > 0 ? kernel.memory_tokens : tokens;
  GlobalArray<std::byte> memory(
      std::vector<std::byte>(GroupedMmaMemoryBytes(args, memory_tokens), std::byte{0xff}));
  if (kernel.mma) {
    LaunchGroupedMma(StreamHandle{}, args, *kernel.mma, memory.data());
  } else {
    LaunchGroupedMatmul(StreamHandle{}, args, kernel.numerics,
                        {memory.data(), GroupedMmaMemoryBytes(args, memory_tokens)});
  }
  std::memcpy(result.data(), out.data(), result.size() * sizeof(float));
  return result;
}

// By Matmul, expert by expert.
std::vector<float> ProductOfEach(const Weight& weight, int groups, const std::vector<float>& x,
                                 const std::vector<int>& expert, Kernel kernel) {
  const int64_t n = weight.rows / groups, k = weight.cols;
  const int64_t pairs = static_cast<int64_t>(expert.size());
  const int64_t shared = pairs * k / static_cast<int64_t>(x.size());
  std::vector<float> result(pairs * n);
  for (int g = 0; g < groups; ++g) {
    const auto from = weight.bytes.begin() + g * n * RowBytes(weight.dtype, k);
    const auto packed = Pack({weight.dtype, n, k, {from, from + n * RowBytes(weight.dtype, k)}});
    for (int64_t p = 0; p < pairs; ++p) {
      if (expert[p] != g) continue;
      const std::vector<float> row = Product(*packed, x.data() + p / shared * k, 1, kernel);
      std::copy(row.begin(), row.end(), result.begin() + p * n);
    }
  }
  return result;
}

// Most rows go to expert 1: more than a tile of any kernel. None go to expert 2.
TEST_P(GpuMatmulTest, ExpertsGiveTheBitsOfTheirMatricesAlone) {
  constexpr int kGroups = 4, kRows = 19;
  const int64_t k = Shapes(GetParam())[1].k;
  const Weight weight = MakeWeight(GetParam(), int64_t{kGroups} * kRows, k, 21);
  const auto packed = Pack(weight, kGroups);
  for (const auto& [tokens, slots, per_slot] :
       {std::tuple(1, 3, false), std::tuple(86, 2, false), std::tuple(150, 1, true)}) {
    std::vector<int> expert;
    for (int p = 0; p < tokens * slots; ++p) expert.push_back(p % 8 == 3 ? 0 : p % 8 == 5 ? 3 : 1);
    const std::vector<float> x = Normals(int64_t{tokens} * (per_slot ? slots : 1) * k, 22);
    const std::vector<float> by_mma = ProductOfEach(weight, kGroups, x, expert, MmaKernel::kStaged);
    const int64_t count = static_cast<int64_t>(by_mma.size());
    for (const MmaKernel kernel : {MmaKernel::kStaged, MmaKernel::kFew, MmaKernel::kMany}) {
      ASSERT_TRUE(HasGroupedMmaKernel(kernel, GetParam(), k));
      EXPECT_TRUE(SameBits(GroupedProduct(*packed, x, expert, slots, {kernel}).data(),
                           by_mma.data(), count))
          << tokens << " tokens, kernel " << static_cast<int>(kernel);
    }
    const std::vector<float> in_pieces =
        GroupedProduct(*packed, x, expert, slots, {.mma = {}, .memory_tokens = tokens / 3 + 1});
    EXPECT_TRUE(SameBits(in_pieces.data(), by_mma.data(), count)) << tokens << " tokens in pieces";
    const std::vector<float> by_float32 =
        GroupedProduct(*packed, x, expert, slots, {.mma = {}, .numerics = Numerics::kFloat32});
    EXPECT_TRUE(SameBits(by_float32.data(),
                         ProductOfEach(weight, kGroups, x, expert, kFloat32).data(), count))
        << tokens << " tokens, float32";
  }
}

// Rows of a second block of each expert, partly filled.
TEST(GpuMatmulPlainTest, ExpertsOfLaterBlocksGiveTheSameBits) {
  constexpr int kGroups = 2, kRows = 147, kTokens = 80;
  const int64_t k = Shapes(DType::kQ8_0)[1].k;
  const Weight weight = MakeWeight(DType::kQ8_0, int64_t{kGroups} * kRows, k, 23);
  const auto packed = Pack(weight, kGroups);
  std::vector<int> expert;
  for (int t = 0; t < kTokens; ++t) expert.push_back(t % 9 == 4 ? 0 : 1);
  const std::vector<float> x = Normals(int64_t{kTokens} * k, 24);
  const std::vector<float> alone = ProductOfEach(weight, kGroups, x, expert, MmaKernel::kStaged);
  EXPECT_TRUE(SameBits(GroupedProduct(*packed, x, expert, 1, {MmaKernel::kMany}).data(),
                       alone.data(), static_cast<int64_t>(alone.size())));
}

// Rows of a second block, partly filled, and tokens of a second one.
TEST(GpuMatmulPlainTest, TilesOfLaterBlocksGiveTheSameBits) {
  constexpr int64_t kRows = 147, kTokens = 150;
  const int64_t k = Shapes(DType::kQ8_0)[2].k;
  const auto packed = Pack(MakeWeight(DType::kQ8_0, kRows, k, 19));
  const std::vector<float> x = Normals(kTokens * k, 20);
  ASSERT_TRUE(HasMmaKernel(MmaKernel::kMany, DType::kQ8_0, k, kTokens));
  EXPECT_TRUE(SameBits(Product(*packed, x.data(), kTokens, MmaKernel::kMany).data(),
                       Product(*packed, x.data(), kTokens, MmaKernel::kFew).data(),
                       kTokens * kRows));
}

// Powers of two bring everything into the range of f16: activations and weights of any size give
// the same bits, but for the exponent.
TEST_P(GpuMatmulTest, TensorCoresTakeValuesOfAnySize) {
  const Shape shape = Shapes(GetParam())[1];
  const auto packed = Pack(MakeWeight(GetParam(), shape.n, shape.k, 15));
  const std::vector<float> x = Normals(shape.k, 16);
  const std::vector<float> product = Product(*packed, x.data(), 1, MmaKernel::kStaged);
  for (const int exponent : {-60, 20, 70}) {
    std::vector<float> scaled = x, expected = product;
    for (float& value : scaled) value = std::ldexp(value, exponent);
    for (float& value : expected) value = std::ldexp(value, exponent);
    EXPECT_EQ(Product(*packed, scaled.data(), 1, MmaKernel::kStaged), expected) << exponent;
  }
  const std::vector<float> zeros(shape.k);
  EXPECT_THAT(Product(*packed, zeros.data(), 1, MmaKernel::kStaged), testing::Each(0.0f));
}

TEST(GpuMatmulPlainTest, TensorCoresTakeWeightsOfAnySize) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Weight weight = MakeWeight(dtype, 17, 33, 17);
    const std::vector<float> x = Normals(33, 18);
    const std::vector<float> product = Product(*Pack(weight), x.data(), 1, MmaKernel::kStaged);
    for (const int exponent : {-90, 60}) {
      Weight scaled = weight;  // the exponent is 8 bits below the sign
      const size_t bytes = RowBytes(dtype, 1);
      for (size_t at = bytes - 2; at < scaled.bytes.size(); at += bytes) {
        uint16_t high;
        std::memcpy(&high, &scaled.bytes[at], 2);
        high = static_cast<uint16_t>(high + exponent * 128);
        std::memcpy(&scaled.bytes[at], &high, 2);
      }
      std::vector<float> expected = product;
      for (float& value : expected) value = std::ldexp(value, exponent);
      EXPECT_EQ(Product(*Pack(scaled), x.data(), 1, MmaKernel::kStaged), expected) << exponent;
    }
  }
}

TEST_P(GpuMatmulTest, BitsDoNotDependOnWhereTheActivationsLie) {
  for (const Shape& shape : Shapes(GetParam())) {
    const auto packed = Pack(MakeWeight(GetParam(), shape.n, shape.k, 8));
    for (const int64_t tokens : {1, 2, 5}) {
      const std::vector<float> x = Normals(tokens * shape.k, 9);
      for (const Kernel kernel : {kFloat32, Kernel(MmaKernel::kFew)}) {
        const std::vector<float> aligned = Product(*packed, x.data(), tokens, kernel);
        const std::vector<float> shifted = Product(*packed, x.data(), tokens, kernel, 1);
        ASSERT_TRUE(SameBits(aligned.data(), shifted.data(), tokens * shape.n));
      }
    }
  }
}

// The tokens that stand in for others in a partly filled tile, and the padding of a row, must not
// bring NaN into other rows.
TEST_P(GpuMatmulTest, NanStaysInItsRow) {
  const Shape shape = Shapes(GetParam())[1];
  const auto packed = Pack(MakeWeight(GetParam(), shape.n, shape.k, 10));
  for (const int64_t tokens : {2, 3, 5}) {
    std::vector<float> x = Normals(tokens * shape.k, 11);
    x.back() = NAN;
    for (const Kernel kernel : {kFloat32, Kernel(MmaKernel::kFew), Kernel(MmaKernel::kMany)}) {
      const std::vector<float> out = Product(*packed, x.data(), tokens, kernel);
      for (int64_t i = 0; i < tokens * shape.n; ++i) {
        ASSERT_EQ(std::isnan(out[i]), i / shape.n == tokens - 1) << i;
      }
    }
  }
}

// The elements' own bits.
void ExpectEmbedding(const Weight& weight, const std::vector<int>& token, int skip) {
  const auto table = Pack(weight);
  const int64_t tokens = static_cast<int64_t>(token.size()), hidden = weight.cols;
  GlobalArray<int> ids(token);
  GlobalArray<float> out(std::vector<float>(tokens * hidden, kSentinel), skip);
  LaunchEmbed(StreamHandle{}, {.token = Tensor(ids.data(), DType::kI32, {tokens}),
                               .table = table.get(),
                               .out = Tensor(out.data(), DType::kF32, {tokens, hidden})});
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < hidden; ++k) {
      const float expected = weight.At(token[t], k);
      ASSERT_TRUE(SameBits(&out.data()[t * hidden + k], &expected, 1))
          << "token " << token[t] << ", element " << k << ": " << out.data()[t * hidden + k]
          << ", not " << expected;
    }
  }
}

TEST_P(GpuMatmulTest, EmbedsTheFilesElements) {
  for (const Shape& shape : Shapes(GetParam())) {
    const Weight weight = MakeWeight(GetParam(), shape.n, shape.k, 12);
    const int last = static_cast<int>(shape.n) - 1;
    for (const int skip : {0, 1}) {
      ExpectEmbedding(weight, {last, 0, last / 2, last}, skip);
      ExpectEmbedding(weight, {}, skip);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, GpuMatmulTest,
                         testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL,
                                         DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K),
                         [](const auto& info) { return std::string(Info(info.param).name); });

TEST(GpuEmbedTest, EveryValueOf16Bits) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    Weight weight{dtype, 256, 256, std::vector<std::byte>(size_t{1} << 17)};
    std::vector<int> tokens(256);
    for (int i = 0; i < 65536; ++i) {
      const auto bits = static_cast<uint16_t>(i);
      std::memcpy(weight.bytes.data() + 2 * i, &bits, 2);
      tokens[i / 256] = i / 256;
    }
    ExpectEmbedding(weight, tokens, 0);
  }
}

// Scales of every kind: zeros of both signs, subnormals, the largest.
TEST(GpuEmbedTest, UnusualScales) {
  for (const DType dtype : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4,
                            DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K}) {
    Weight weight = MakeWeight(dtype, 8, Info(dtype).block_elements, 13);
    const uint16_t scales[8] = {0, 0x8000, 1, 0x8001, 0x03ff, 0x7bff, 0xfbff, 0x7c00};
    for (int row = 0; row < 8; ++row) {
      std::byte* block = weight.bytes.data() + row * Info(dtype).block_bytes;
      if (dtype == DType::kMXFP4) {  // subnormal and the largest
        block[0] = std::byte{std::array<uint8_t, 8>{0, 1, 2, 3, 127, 128, 252, 255}[row]};
        continue;
      }
      std::memcpy(block + reference::ScalesAt(dtype).d, &scales[row], 2);
    }
    // The last, infinity, gives NaN where q is 0: a NaN's sign is not the same everywhere.
    ExpectEmbedding(weight, {0, 1, 2, 3, 4, 5, 6}, 0);
  }
}

// Rows packed apart and put where they belong are those packed at once.
TEST(GpuPackedWeightTest, PacksInPieces) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kQ8_0, DType::kQ4_1, DType::kQ5_0,
                            DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4,
                            DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K}) {
    const Weight weight = MakeWeight(dtype, 41, IsQuantized(dtype) ? 256 : 258, 14);
    const std::vector<WeightPart> parts = {
        {weight.bytes.data(), 20}, {weight.bytes.data() + 20 * RowBytes(dtype, weight.cols), 21}};
    const PackWeightArgs args = {dtype, weight.cols, parts};
    std::vector<std::byte> whole(GpuPackedBytes(dtype, 41, weight.cols)), pieces(whole.size());
    PackGpuWeight(args, whole.data());
    for (const auto& [begin, end] : {std::pair{32, 41}, {0, 16}, {16, 32}}) {
      std::vector<std::byte> piece(GpuPackedBytes(dtype, end - begin, weight.cols));
      PackGpuRows(args, begin, end, piece.data());
      for (const GpuSlice& slice : GpuSlices(dtype, 41, weight.cols, begin, end)) {
        ASSERT_LE(slice.from + slice.bytes, piece.size());
        ASSERT_LE(slice.to + slice.bytes, pieces.size());
        std::memcpy(pieces.data() + slice.to, piece.data() + slice.from, slice.bytes);
      }
    }
    EXPECT_EQ(whole, pieces) << Info(dtype).name;
    // Groups, as if each were a weight of its own.
    const PackWeightArgs grouped = {
        .dtype = dtype, .cols = weight.cols, .parts = parts, .groups = 41};
    const int64_t rows = GpuRows(41, 41);
    ASSERT_EQ(rows, 41 * kTileRows);
    std::vector<std::byte> groups(GpuPackedBytes(dtype, rows, weight.cols)), alone(groups.size());
    PackGpuWeight(grouped, groups.data());
    for (int64_t g = 0; g < 41; ++g) {
      const WeightPart row = {weight.bytes.data() + g * RowBytes(dtype, weight.cols), 1};
      std::vector<std::byte> piece(GpuPackedBytes(dtype, 1, weight.cols));
      PackGpuWeight({dtype, weight.cols, {&row, 1}}, piece.data());
      const int64_t begin = g * kTileRows;
      for (const GpuSlice& slice : GpuSlices(dtype, rows, weight.cols, begin, begin + kTileRows)) {
        std::memcpy(alone.data() + slice.to, piece.data() + slice.from, slice.bytes);
      }
    }
    EXPECT_EQ(groups, alone) << Info(dtype).name;
    // Seven rows of zeros, 4 bytes a row and 4 a block of 256 more, planes at multiples of 256.
    EXPECT_LE(whole.size(), weight.bytes.size() / 41 * 48 + 48 * 8 + 5 * 256);
  }
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU
