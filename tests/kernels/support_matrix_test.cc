// SPDX-License-Identifier: Apache-2.0
// What each device of this build supports, asked of the device, against
// tests/golden/support_matrix.txt. A cell that is lost fails; so does one that is not listed yet,
// since the list is what users are told.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

// Lines "device numerics op dtype": dtype is the weights' for Embed and the matmuls, the cache's
// for the two ops that use it, else the activations'.
std::set<std::string> AskDevice(Device& device) {
  const DeviceInfo& info = device.info();
  const std::string prefix = StrCat(info.name, " ", NumericsName(info.numerics), " ");
  std::set<std::string> cells;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    const int64_t cols = Info(dtype).block_elements;
    const std::vector<std::byte> row(RowBytes(dtype, cols));
    const WeightPart part = {row.data(), 1};
    for (const bool embedding : {false, true}) {
      const bool packs =
          device
              .PackWeight(
                  {.dtype = dtype, .cols = cols, .parts = {&part, 1}, .embedding = embedding})
              .ok();
      const bool listed =
          std::count(info.weight_dtypes.begin(), info.weight_dtypes.end(), dtype) > 0;
      EXPECT_EQ(packs, listed) << Info(dtype).name << ": PackWeight and weight_dtypes disagree";
      if (packs) {
        cells.insert(StrCat(prefix, embedding ? "Embed " : "Matmul ", Info(dtype).name));
      }
    }
    const WeightPart parts[] = {part, part};
    if (device.PackWeight({.dtype = dtype, .cols = cols, .parts = parts, .groups = 2}).ok()) {
      cells.insert(StrCat(prefix, "GroupedMatmul ", Info(dtype).name));
    }
  }
  for (const char* op : {"RopeAndWriteKv", "Attention"}) {
    cells.insert(StrCat(prefix, op, " ", Info(info.kv_dtype).name));
  }
  for (const char* op : {"RmsNorm", "LayerNorm", "ActivateAndMul", "GatherRows", "Scale", "Pool",
                         "Route", "CombineExperts"}) {
    cells.insert(StrCat(prefix, op, " ", Info(info.activation_dtype).name));
  }
  cells.insert(prefix + "SelectTokens i32");
  for (const char* op : {"Sample", "Logprobs"}) cells.insert(StrCat(prefix, op, " f32"));
  return cells;
}

std::set<std::string> ReadGolden(const std::string& device_name) {
  std::ifstream file(std::string(FAIRLEAD_GOLDEN_DIR) + "/support_matrix.txt");
  EXPECT_TRUE(file.good());
  std::set<std::string> cells;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(device_name + " ", 0) == 0) cells.insert(line);
  }
  return cells;
}

class SupportMatrix : public testing::TestWithParam<const char*> {};

TEST_P(SupportMatrix, NoCellIsLost) {
  const std::string name = GetParam();
  std::set<std::string> supported;
  for (const Numerics numerics : {Numerics::kFloat32, Numerics::kPrecise, Numerics::kFast}) {
    auto device = OpenDevice(name, {.threads = 1, .numerics = numerics});
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ((*device)->info().numerics, numerics);
    supported.merge(AskDevice(**device));
    for (int i = 0; i < kNumDTypes; ++i) {
      const auto kv_dtype = static_cast<DType>(i);
      auto other = OpenDevice(name, {.threads = 1, .numerics = numerics, .kv_dtype = kv_dtype});
      if (!other.ok()) {  // then the list must not have it
        EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
        continue;
      }
      EXPECT_EQ((*other)->info().kv_dtype, kv_dtype);
      supported.merge(AskDevice(**other));
    }
  }
  const std::set<std::string> golden = ReadGolden(name);
  EXPECT_FALSE(golden.empty());
  for (const std::string& cell : golden) EXPECT_TRUE(supported.count(cell)) << "lost: " << cell;
  for (const std::string& cell : supported) {
    EXPECT_TRUE(golden.count(cell)) << "new, add it to support_matrix.txt: " << cell;
  }
  std::cout << supported.size() << " cells of " << name << "\n";
}

INSTANTIATE_TEST_SUITE_P(Devices, SupportMatrix,
                         testing::Values("cpu", "host-simt:32", "host-simt:64"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name == "cpu" ? name : "simt" + name.substr(name.size() - 2);
                         });

}  // namespace
}  // namespace fairlead
