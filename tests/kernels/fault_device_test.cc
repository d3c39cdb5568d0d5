// SPDX-License-Identifier: Apache-2.0
#include "tests/fault_device.h"

#include <gtest/gtest.h>

#include <cstddef>

#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

// Four calls, as a small load would make them; the first failure ends it.
absl::Status Load(Device& device) {
  const std::byte row[4] = {};
  const WeightPart part = {row, 1};
  const PackWeightArgs weight = {.dtype = DType::kF32, .cols = 1, .parts = {&part, 1}};
  for (int layer = 0; layer < 2; ++layer) {
    if (auto buffer = device.Allocate(64); !buffer.ok()) return buffer.status();
    if (auto packed = device.PackWeight(weight); !packed.ok()) return packed.status();
  }
  return absl::OkStatus();
}

TEST(FaultDevice, FailsEachCallInTurnAndNoOther) {
  const auto inner = reference::MakeReferenceDevice();
  FaultDevice device(*inner);
  EXPECT_TRUE(Load(device).ok());
  EXPECT_EQ(device.calls(), 4);
  for (int k = 0; k < 4; ++k) {
    device.FailAt(k);
    const absl::Status status = Load(device);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(device.calls(), k + 1) << "the load goes no further";
    EXPECT_TRUE(Load(device).ok()) << "only one call fails";
  }
  device.FailAt(-1);
  EXPECT_TRUE(Load(device).ok());
  EXPECT_EQ(inner->FreeMemory(), inner->info().memory_bytes) << "nothing leaks on the way";
}

}  // namespace
}  // namespace fairlead
