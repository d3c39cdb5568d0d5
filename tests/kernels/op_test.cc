// SPDX-License-Identifier: Apache-2.0
// Every op case on the devices of this build, compared with the reference device. A failure names
// the case; its inputs come from a fixed seed, so it fails again the same way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

const std::vector<OpCase>& Cases() {
  static const auto* const cases = new std::vector<OpCase>(AllOpCases());
  return *cases;
}

// One device a numerics, opened once: starting threads for each of a thousand cases would be most
// of the work.
Device& DeviceWith(Numerics numerics, std::optional<DType> kv_dtype = std::nullopt) {
  using Key = std::pair<Numerics, std::optional<DType>>;
  static auto* const devices = new std::map<Key, std::unique_ptr<Device>>;
  std::unique_ptr<Device>& device = (*devices)[{numerics, kv_dtype}];
  if (device == nullptr) {
    auto opened = OpenDevice("cpu", {.threads = 2, .numerics = numerics, .kv_dtype = kv_dtype});
    if (!opened.ok()) {
      ADD_FAILURE() << opened.status();
      std::abort();
    }
    device = *std::move(opened);
    std::cout << "device " << device->info().name << ", " << device->info().description << ", "
              << NumericsName(numerics) << "; seed " << kCaseSeed << "\n";
  }
  return *device;
}

// Rounds its KV cache as the device does, so that only arithmetic is compared.
Device& ReferenceFor(const Device& device) {
  static auto* const references = new std::map<DType, std::unique_ptr<Device>>;
  std::unique_ptr<Device>& reference = (*references)[device.info().kv_dtype];
  if (reference == nullptr) {
    reference = reference::MakeReferenceDevice({.kv_dtype = device.info().kv_dtype});
  }
  return *reference;
}

class OpTest : public testing::TestWithParam<std::tuple<Numerics, size_t>> {};

TEST_P(OpTest, MatchesTheReference) {
  const auto [numerics, index] = GetParam();
  const OpCase& op_case = Cases()[index];
  Device& device = DeviceWith(numerics);
  if (op_case.weight_dtype) {
    const std::vector<DType>& known = device.info().weight_dtypes;
    // A backend that lacks a type says so in support_matrix.txt and is given other cases; nothing
    // is skipped here.
    ASSERT_NE(std::find(known.begin(), known.end(), *op_case.weight_dtype), known.end())
        << device.info().name << " has no " << Info(*op_case.weight_dtype).name;
  }
  for (const std::string& wrong : CheckCase(op_case, device, ReferenceFor(device))) {
    ADD_FAILURE() << op_case.name << " (seed " << SeedOf(op_case) << "): " << wrong;
  }
}

// The cases that read or write the cache, with the dtypes of it that are not the default.
class KvDtypeTest : public testing::TestWithParam<std::tuple<DType, size_t>> {};

std::vector<size_t> CacheCases() {
  std::vector<size_t> list;
  for (size_t i = 0; i < Cases().size(); ++i) {
    if (Cases()[i].op == "Attention" || Cases()[i].op == "RopeAndWriteKv") list.push_back(i);
  }
  return list;
}

TEST_P(KvDtypeTest, MatchesTheReference) {
  const auto [kv_dtype, index] = GetParam();
  const OpCase& op_case = Cases()[index];
  Device& device = DeviceWith(Numerics::kPrecise, kv_dtype);
  ASSERT_EQ(device.info().kv_dtype, kv_dtype);
  for (const std::string& wrong : CheckCase(op_case, device, ReferenceFor(device))) {
    ADD_FAILURE() << op_case.name << " (seed " << SeedOf(op_case) << "): " << wrong;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, KvDtypeTest,
                         testing::Combine(testing::Values(DType::kQ8_0, DType::kF32, DType::kBF16,
                                                          DType::kF8_E4M3),
                                          testing::ValuesIn(CacheCases())),
                         [](const auto& info) {
                           return std::string(Info(std::get<0>(info.param)).name) + "_" +
                                  Cases()[std::get<1>(info.param)].name;
                         });

INSTANTIATE_TEST_SUITE_P(Cpu, OpTest,
                         testing::Combine(testing::Values(Numerics::kFloat32, Numerics::kPrecise,
                                                          Numerics::kFast),
                                          testing::Range(size_t{0}, Cases().size())),
                         [](const auto& info) {
                           return std::string(NumericsName(std::get<0>(info.param))) + "_" +
                                  Cases()[std::get<1>(info.param)].name;
                         });

TEST(OpThreads, TheirNumberChangesNoBit) {
  for (const Numerics numerics : {Numerics::kFloat32, Numerics::kPrecise, Numerics::kFast}) {
    auto one = OpenDevice("cpu", {.threads = 1, .numerics = numerics});
    auto three = OpenDevice("cpu", {.threads = 3, .numerics = numerics});
    ASSERT_TRUE(one.ok() && three.ok());
    int cases = 0;
    for (const OpCase& c : Cases()) {
      if (SeedOf(c) % 4 != 0) continue;  // a quarter, of every op
      CaseRun a(**one, DType::kF32, SeedOf(c)), b(**three, DType::kF32, SeedOf(c));
      for (CaseRun* run : {&a, &b}) {
        c.build(*run);
        EXPECT_EQ(run->Finish(), std::vector<std::string>()) << c.name;
      }
      EXPECT_EQ(DifferingBits(a, b), "") << NumericsName(numerics) << " " << c.name;
      ++cases;
    }
    EXPECT_GT(cases, 200);
  }
}

TEST(OpCases, NamesAreUniqueAndEveryOpHasCases) {
  std::set<std::string> names;
  std::map<std::string, int> per_op;
  for (const OpCase& c : Cases()) {
    EXPECT_TRUE(names.insert(c.name).second) << c.name << " twice";
    ++per_op[c.op];
  }
  EXPECT_EQ(per_op.size(), 16u);
  for (const auto& [op, count] : per_op) {
    std::cout << op << ": " << count << " cases\n";
    EXPECT_GE(count, 10) << op;
  }
}

}  // namespace
}  // namespace fairlead
