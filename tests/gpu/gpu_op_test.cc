// SPDX-License-Identifier: Apache-2.0
// Every op case on the GPU kernels, run by the SIMT executor with warps of 32 and 64 and every
// access checked, and on the GPU that a build names (FAIRLEAD_TEST_DEVICE), compared with the
// reference device.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/backend.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

constexpr const char* kLibrary = "libfairlead_host_checked.so";

const std::vector<OpCase>& Cases() {
  static const auto* const cases = new std::vector<OpCase>(AllOpCases());
  return *cases;
}

Device& DeviceNamed(const std::string& name, DType kv_dtype) {
  static auto* const devices = new std::map<std::pair<std::string, DType>, std::unique_ptr<Device>>;
  std::unique_ptr<Device>& device = (*devices)[{name, kv_dtype}];
  if (device == nullptr) {
    // What differs between the numerics: the cache's dtype, matmul, and what the cases allow.
    const Numerics numerics = kv_dtype == DType::kF32 ? Numerics::kFloat32 : Numerics::kPrecise;
    const DeviceOptions options = {.numerics = numerics, .kv_dtype = kv_dtype};
    auto opened = name.starts_with("host-simt") ? OpenBackendDevice(kLibrary, name, options)
                                                : OpenDevice(name, options);
    if (!opened.ok()) {
      ADD_FAILURE() << opened.status();
      std::abort();
    }
    device = *std::move(opened);
    std::cout << "device " << device->info().name << ", " << device->info().description << "; seed "
              << kCaseSeed << "\n";
  }
  return *device;
}

class GpuOpTest : public testing::TestWithParam<std::tuple<const char*, DType, size_t>> {};

TEST_P(GpuOpTest, MatchesTheReference) {
  const auto [name, kv_dtype, index] = GetParam();
  const OpCase& op_case = Cases()[index];
  Device& device = DeviceNamed(name, kv_dtype);
  const auto reference = reference::MakeReferenceDevice({.kv_dtype = device.info().kv_dtype});
  for (const std::string& wrong : CheckCase(op_case, device, *reference)) {
    ADD_FAILURE() << op_case.name << " (seed " << SeedOf(op_case) << "): " << wrong;
  }
}

std::string CaseName(const testing::TestParamInfo<GpuOpTest::ParamType>& info) {
  std::string device = std::get<0>(info.param);
  device = device.starts_with("host-simt") ? "warp" + device.substr(device.size() - 2) : "gpu";
  return device + "_" + std::string(Info(std::get<1>(info.param)).name) + "_" +
         Cases()[std::get<2>(info.param)].name;
}

// Those that read or write the cache.
std::vector<size_t> CacheCases() {
  std::vector<size_t> list;
  for (size_t i = 0; i < Cases().size(); ++i) {
    if (Cases()[i].op == "Attention" || Cases()[i].op == "RopeAndWriteKv") list.push_back(i);
  }
  return list;
}

// Matmul by tensor cores, which a cache of f16 says here: numerics are precise then.
// gpu_matmul_test has more of them, so every third will do; experts are in all.
std::vector<size_t> TensorCoreCases() {
  std::vector<size_t> list;
  for (size_t i = 0; i < Cases().size(); ++i) {
    if (Cases()[i].op == "Matmul" && i % 3 == 0) list.push_back(i);
    if (Cases()[i].op == "GroupedMatmul") list.push_back(i);
  }
  return list;
}

INSTANTIATE_TEST_SUITE_P(HostSimt, GpuOpTest,
                         testing::Combine(testing::Values("host-simt:32", "host-simt:64"),
                                          testing::Values(DType::kF32),
                                          testing::Range(size_t{0}, Cases().size())),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(HostSimtCache, GpuOpTest,
                         testing::Combine(testing::Values("host-simt:32", "host-simt:64"),
                                          testing::Values(DType::kF16, DType::kBF16, DType::kQ8_0,
                                                          DType::kF8_E4M3),
                                          testing::ValuesIn(CacheCases())),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(HostSimtTensorCores, GpuOpTest,
                         testing::Combine(testing::Values("host-simt:32", "host-simt:64"),
                                          testing::Values(DType::kF16),
                                          testing::ValuesIn(TensorCoreCases())),
                         CaseName);

#if defined(FAIRLEAD_TEST_DEVICE)
INSTANTIATE_TEST_SUITE_P(Gpu, GpuOpTest,
                         testing::Combine(testing::Values(FAIRLEAD_TEST_DEVICE),
                                          testing::Values(DType::kF32, DType::kF16),
                                          testing::Range(size_t{0}, Cases().size())),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(GpuCache, GpuOpTest,
                         testing::Combine(testing::Values(FAIRLEAD_TEST_DEVICE),
                                          testing::Values(DType::kBF16, DType::kQ8_0,
                                                          DType::kF8_E4M3),
                                          testing::ValuesIn(CacheCases())),
                         CaseName);
#endif

TEST(Backend, ErrorsSayWhatIsMissing) {
  const auto none = OpenBackendDevice("libfairlead_nothing.so", "cuda:0", {});
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(none.status().message().find("libfairlead_nothing.so"), std::string::npos);
  const auto other = OpenBackendDevice("libc.so.6", "cuda:0", {});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  const auto build = OpenBackendDevice("libfairlead_other_backend.so", "cuda:0", {});
  EXPECT_EQ(build.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(build.status().message().find("0.0.0-other"), std::string::npos);
  const auto warp = OpenBackendDevice(kLibrary, "host-simt:16", {});
  EXPECT_EQ(warp.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(warp.status().message().find("host-simt:16"), std::string::npos);
  const auto cache = OpenBackendDevice(kLibrary, "host-simt:32", {.kv_dtype = DType::kQ4_0});
  EXPECT_EQ(cache.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(cache.status().message().find("of q4_0; allowed are f32, f16, bf16, q8_0"),
            std::string::npos);
}

// Rounded activations of 64 tokens must fit the least scratch memory of a stream: 8 MiB.
TEST(Backend, WeightsOfTooManyColumnsAreRefusedByTensorCoresOnly) {
  for (const auto& [numerics, cols, fits] :
       {std::tuple(Numerics::kPrecise, 98304, false), std::tuple(Numerics::kPrecise, 32768, true),
        std::tuple(Numerics::kFloat32, 98304, true)}) {
    const auto device = OpenBackendDevice(kLibrary, "host-simt:32", {.numerics = numerics});
    ASSERT_TRUE(device.ok()) << device.status();
    const std::vector<std::byte> row(RowBytes(DType::kQ8_0, cols));
    const WeightPart part = {row.data(), 1};
    const auto packed = (*device)->PackWeight(
        {.dtype = DType::kQ8_0, .cols = cols, .parts = absl::MakeConstSpan(&part, 1)});
    EXPECT_EQ(packed.ok(), fits) << cols;
    if (!fits) {
      EXPECT_EQ(packed.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(packed.status().message().find("98304 columns"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace fairlead
