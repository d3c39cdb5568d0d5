// SPDX-License-Identifier: Apache-2.0
// GroupedMatmul gives every row the bits that Matmul gives for that row and its expert's matrix
// alone, on the CPU and by the GPU kernels, however the weight came to the device.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/kernels/op_cases.h"

namespace fairlead {
namespace {

struct Shape {
  DType dtype;
  int tokens, slots, experts, n, k;
  bool per_slot = false;
};

struct Product {
  std::vector<float> x, bias;
  std::vector<int32_t> expert;
  std::vector<std::byte> weight;
};

Product MakeProduct(CaseRandom& random, const Shape& s) {
  Product p;
  p.x = random.Normals(int64_t{s.tokens} * (s.per_slot ? s.slots : 1) * s.k);
  p.bias = random.Normals(int64_t{s.experts} * s.n);
  for (int i = 0; i < s.tokens * s.slots; ++i) p.expert.push_back(random.Int(0, s.experts - 1));
  p.weight = RandomWeights(random, s.dtype, int64_t{s.experts} * s.n * s.k,
                           1 / std::sqrt(static_cast<float>(s.k)));
  return p;
}

FloatBound NotCompared(const Shape& s) {
  return {std::vector<double>(static_cast<size_t>(s.tokens) * s.slots * s.n), 0};
}

// weight: packed otherwise than in the plainest way.
void BuildGrouped(CaseRun& run, const Shape& s, const Product& p, const PackedWeight* weight) {
  const int64_t x_rows = static_cast<int64_t>(p.x.size()) / s.k;
  if (weight == nullptr) weight = run.Weight(s.dtype, s.k, {p.weight}, false, s.experts);
  const GroupedMatmulArgs args = {
      .x = run.Activations(p.x, {x_rows, s.k}),
      .expert = run.Ints(p.expert, {s.tokens, s.slots}),
      .weight = weight,
      .out = run.OutputActivations("out", {s.tokens * s.slots, s.n}, NotCompared(s)),
      .bias = run.Floats(p.bias, {s.experts, s.n})};
  run.Launch([args](const Ops& ops, Stream& stream) { ops.GroupedMatmul(stream, args); });
}

void BuildRowByRow(CaseRun& run, const Shape& s, const Product& p) {
  const int64_t x_rows = static_cast<int64_t>(p.x.size()) / s.k;
  const Tensor x = run.Activations(p.x, {x_rows, s.k});
  const Tensor bias = run.Floats(p.bias, {s.experts, s.n});
  const Tensor out = run.OutputActivations("out", {s.tokens * s.slots, s.n}, NotCompared(s));
  const auto matrix_bytes = static_cast<int64_t>(RowBytes(s.dtype, s.k)) * s.n;
  std::vector<const PackedWeight*> experts;
  for (int e = 0; e < s.experts; ++e) {
    const auto from = p.weight.begin() + e * matrix_bytes;
    experts.push_back(run.Weight(s.dtype, s.k, {{from, from + matrix_bytes}}));
  }
  run.Launch([=](const Ops& ops, Stream& stream) {
    for (int i = 0; i < s.tokens * s.slots; ++i) {
      const int x_row = s.per_slot ? i : i / s.slots;
      ops.Matmul(stream,
                 {.x = Tensor(x.As<float>() + x_row * s.k, DType::kF32, {1, s.k}),
                  .weight = experts[p.expert[i]],
                  .out = Tensor(out.As<float>() + i * s.n, DType::kF32, {1, s.n}),
                  .bias = Tensor(bias.As<float>() + p.expert[i] * s.n, DType::kF32, {s.n})});
    }
  });
}

// Both kinds of x; one token, few and more than a tile; an expert without rows is likely.
std::vector<Shape> Shapes(const std::string& device) {
  std::vector<Shape> shapes;
  for (const DType d :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
        DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL,
        DType::kMXFP4, DType::kIQ4_XS, DType::kQ3_K, DType::kQ2_K}) {
    shapes.push_back({d, 1, 8, 12, 35, 256});
    shapes.push_back({d, 4, 2, 7, 17, 512, true});
    shapes.push_back({d, 23, 2, 5, 19, 256});
    shapes.push_back({d, 11, 8, 3, 33, 256, true});
  }
  shapes.push_back({DType::kF32, 21, 2, 4, 5, 33});
  shapes.push_back({DType::kF16, 21, 2, 4, 5, 129, true});
  if (device != "cpu") return shapes;
  shapes.push_back({DType::kQ4_0, 300, 2, 3, 48, 256});
  shapes.push_back({DType::kBF16, 9, 2, 2, 1024, 2048});  // large enough for oneDNN
  return shapes;
}

std::unique_ptr<Device> Open(const std::string& name, Numerics numerics) {
  auto device = OpenDevice(name, {.threads = 2, .numerics = numerics});
  EXPECT_TRUE(device.ok()) << device.status();
  return device.ok() ? *std::move(device) : nullptr;
}

using DeviceAndNumerics = std::tuple<const char*, Numerics>;
class GroupedMatmulTest : public testing::TestWithParam<DeviceAndNumerics> {};

TEST_P(GroupedMatmulTest, RowsHaveTheBitsOfMatmul) {
  const auto [name, numerics] = GetParam();
  const auto device = Open(name, numerics);
  ASSERT_NE(device, nullptr);
  CaseRandom random(1);
  for (const Shape& s : Shapes(name)) {
    const Product product = MakeProduct(random, s);
    CaseRun grouped(*device, DType::kF32, 0), alone(*device, DType::kF32, 0);
    BuildGrouped(grouped, s, product, nullptr);
    BuildRowByRow(alone, s, product);
    EXPECT_EQ(grouped.Finish(), std::vector<std::string>());
    EXPECT_EQ(alone.Finish(), std::vector<std::string>());
    EXPECT_EQ(DifferingBits(grouped, alone), "")
        << Info(s.dtype).name << ", " << s.tokens << " tokens, " << s.slots << " slots";
  }
}

// From the image of another, or from host memory: whichever the device has. Or from rows that are
// made when they are packed.
TEST_P(GroupedMatmulTest, BitsDoNotDependOnHowTheWeightCame) {
  const auto [name, numerics] = GetParam();
  const auto device = Open(name, numerics);
  ASSERT_NE(device, nullptr);
  CaseRandom random(2);
  for (const DType dtype : {DType::kF32, DType::kQ4_K, DType::kQ8_0}) {
    const Shape s = {dtype, 9, 2, 5, 21, 256};
    const Product product = MakeProduct(random, s);
    const WeightPart part = {product.weight.data(), s.experts * s.n};
    PackWeightArgs args = {.dtype = dtype, .cols = s.k, .parts = {&part, 1}, .groups = s.experts};
    const auto packed = device->PackWeight(args);
    ASSERT_TRUE(packed.ok()) << packed.status();
    EXPECT_EQ((*packed)->groups(), s.experts);
    EXPECT_EQ((*packed)->rows(), s.experts * s.n);
    args.image = (*packed)->image();
    args.streamed = device->info().streams_weights;
    EXPECT_EQ(args.image.empty(), args.streamed);
    const auto other = device->PackWeight(args);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ((*other)->image().data(), args.image.data());
    EXPECT_EQ((*other)->host_bytes() > 0, args.streamed);
    const size_t row_bytes = RowBytes(dtype, s.k);
    const WeightPart of_rows = {
        nullptr, part.rows, [&](int64_t first, int64_t rows, std::byte* out) {
          std::memcpy(out, product.weight.data() + first * row_bytes, rows * row_bytes);
        }};
    args.image = {};
    args.streamed = false;
    args.parts = {&of_rows, 1};
    const auto made = device->PackWeight(args);
    ASSERT_TRUE(made.ok()) << made.status();
    CaseRun a(*device, DType::kF32, 0), b(*device, DType::kF32, 0), c(*device, DType::kF32, 0);
    BuildGrouped(a, s, product, packed->get());
    BuildGrouped(b, s, product, other->get());
    BuildGrouped(c, s, product, made->get());
    EXPECT_EQ(a.Finish(), std::vector<std::string>());
    EXPECT_EQ(b.Finish(), std::vector<std::string>());
    EXPECT_EQ(c.Finish(), std::vector<std::string>());
    EXPECT_EQ(DifferingBits(a, b), "") << Info(dtype).name;
    EXPECT_EQ(DifferingBits(a, c), "") << Info(dtype).name;
  }
}

TEST_P(GroupedMatmulTest, PackWeightRefusesGroupsThatAreNotEqual) {
  const auto [name, numerics] = GetParam();
  const auto device = Open(name, numerics);
  ASSERT_NE(device, nullptr);
  const std::vector<std::byte> rows(6 * 32 * 4);
  const WeightPart part = {rows.data(), 6};
  const auto pack = [&](int groups, bool embedding) {
    return device
        ->PackWeight({.dtype = DType::kF32,
                      .cols = 32,
                      .parts = {&part, 1},
                      .embedding = embedding,
                      .groups = groups})
        .status();
  };
  EXPECT_TRUE(pack(1, true).ok());
  for (const int groups : {1, 2, 3, 6}) EXPECT_TRUE(pack(groups, false).ok()) << groups;
  for (const int groups : {-1, 0, 4, 7, 12}) {
    EXPECT_EQ(pack(groups, false).code(), absl::StatusCode::kInvalidArgument) << groups;
  }
  EXPECT_EQ(pack(2, true).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_GE(device->PackedBytes(DType::kF32, 6, 32, 3), device->PackedBytes(DType::kF32, 6, 32, 1));
}

INSTANTIATE_TEST_SUITE_P(Devices, GroupedMatmulTest,
                         testing::Values(DeviceAndNumerics{"cpu", Numerics::kFloat32},
                                         DeviceAndNumerics{"cpu", Numerics::kPrecise},
                                         DeviceAndNumerics{"cpu", Numerics::kFast},
                                         DeviceAndNumerics{"host-simt:32", Numerics::kFloat32},
                                         DeviceAndNumerics{"host-simt:32", Numerics::kPrecise},
                                         DeviceAndNumerics{"host-simt:64", Numerics::kFloat32},
                                         DeviceAndNumerics{"host-simt:64", Numerics::kPrecise}),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param);
                           if (name != "cpu") name = "warp" + name.substr(name.size() - 2);
                           return absl::StrCat(name, "_",
                                               std::string(NumericsName(std::get<1>(info.param))));
                         });

}  // namespace
}  // namespace fairlead
