// SPDX-License-Identifier: Apache-2.0
// What the CUDA backend says before it asks the runtime, on a made-up driver.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "kernels/gpu/cuda/driver.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;

constexpr CudaBuild kBuild = {.version = 13010, .code = "sm_80 sm_89 sm_90a"};

absl::StatusOr<CudaGpu> Find(const char* settings, int index = 0, const CudaBuild& build = kBuild) {
  void* driver = dlopen(FAIRLEAD_FAKE_DRIVER, RTLD_NOW);
  reinterpret_cast<void (*)(const char*)>(dlsym(driver, "fairlead_fake_play"))(settings);
  return FindCudaGpu(FAIRLEAD_FAKE_DRIVER, index, build);
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(CudaDriver, FindsTheGpu) {
  const auto gpu = Find("");
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  EXPECT_EQ(gpu->name, "Made-up GPU");
  EXPECT_EQ(gpu->major * 10 + gpu->minor, 90);
  EXPECT_TRUE(Find("count=3", 2).ok());
  EXPECT_TRUE(Find("driver=13020").ok());
  EXPECT_TRUE(Find("mode=3").ok()) << "exclusive: nobody may have it";
}

TEST(CudaDriver, ThereIsNone) {
  const auto none = FindCudaGpu("libfairlead_no_driver.so.1", 0, kBuild);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(none.status()), "no NVIDIA driver (libfairlead_no_driver.so.1 not found)");
  const auto broken = FindCudaGpu(FAIRLEAD_BROKEN_DRIVER, 0, kBuild);
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(broken.status()), HasSubstr("the NVIDIA driver cannot be loaded: "));
  EXPECT_THAT(Message(broken.status()), HasSubstr("libfairlead_missing.so"));
  const auto other = FindCudaGpu("libm.so.6", 0, kBuild);
  EXPECT_THAT(Message(other.status()), HasSubstr("libm.so.6 is no NVIDIA driver: "));
  EXPECT_THAT(Message(Find("driver=0").status()), HasSubstr("stub library"));
}

TEST(CudaDriver, IsTooOld) {
  const auto old = Find("driver=12090,count=0");  // not asked for GPUs then
  EXPECT_EQ(old.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(old.status()),
            "the NVIDIA driver is too old: it is for CUDA 12.9, this build needs CUDA 13.0 or "
            "newer");
}

TEST(CudaDriver, ShowsNoSuchGpu) {
  for (const char* settings : {"count=0", "count=0,init=0"}) {
    const auto none = Find(settings);
    EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(Message(none.status()), HasSubstr("shows no GPU (CUDA_VISIBLE_DEVICES"));
  }
  const auto beyond = Find("count=2", 2);
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(beyond.status()), HasSubstr("shows 2 GPUs, numbered from 0"));
  EXPECT_THAT(Message(Find("", 1).status()), HasSubstr("shows 1 GPU, numbered from 0"));
}

TEST(CudaDriver, CannotBeUsed) {
  EXPECT_THAT(Message(Find("init=803").status()),
              HasSubstr("cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has"));
  EXPECT_THAT(Message(Find("init=803").status()), HasSubstr("different versions"));
  EXPECT_THAT(Message(Find("init=802").status()),
              HasSubstr("error 802 (on machines with NVSwitch"));
  EXPECT_THAT(Message(Find("mode=2").status()), HasSubstr("Made-up GPU is in compute mode"));
}

TEST(CudaDriver, HasNoCodeForTheGpu) {
  const auto gpu = Find("capability=100");
  EXPECT_EQ(gpu.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(gpu.status()),
            "Made-up GPU has compute capability 10.0, for which this build has no code; it has "
            "sm_80 sm_89 sm_90a");
}

// PTX is compiled by the driver, which must know the toolkit's version of it.
TEST(CudaDriver, PtxNeedsADriverOfTheToolkitsVersion) {
  constexpr CudaBuild kWithPtx = {.version = 13010, .code = "sm_80 compute_80"};
  EXPECT_TRUE(Find("capability=100,driver=13010", 0, kWithPtx).ok());
  EXPECT_THAT(Message(Find("capability=100,driver=13000", 0, kWithPtx).status()),
              HasSubstr("PTX, which needs a driver for CUDA 13.1"));
  EXPECT_TRUE(Find("capability=80,driver=13000", 0, kWithPtx).ok());
}

bool Runs(const char* code, int major, int minor) {
  return BestCudaCode(code, major, minor) != CudaCode::kNone;
}

TEST(CudaDriver, WhatRunsWhere) {
  EXPECT_EQ(BestCudaCode("compute_80 sm_80", 8, 6), CudaCode::kMachine);
  EXPECT_EQ(BestCudaCode("sm_80 compute_80", 9, 0), CudaCode::kPtx);
  EXPECT_TRUE(Runs("sm_80", 8, 0));
  EXPECT_TRUE(Runs("sm_80", 8, 6));
  EXPECT_TRUE(Runs("sm_80", 8, 9));
  EXPECT_FALSE(Runs("sm_86", 8, 0));
  EXPECT_FALSE(Runs("sm_80 sm_86 sm_89", 9, 0));
  EXPECT_TRUE(Runs("sm_90a", 9, 0));
  EXPECT_FALSE(Runs("sm_90a", 10, 0));
  EXPECT_TRUE(Runs("sm_100a", 10, 0));
  EXPECT_FALSE(Runs("sm_100a", 10, 3));
  EXPECT_TRUE(Runs("sm_100f", 10, 3));
  EXPECT_FALSE(Runs("sm_100f", 12, 0));
  EXPECT_TRUE(Runs("sm_75 compute_80", 12, 1));
  EXPECT_FALSE(Runs("compute_80", 7, 5));
  EXPECT_FALSE(Runs("compute_90a", 12, 0));
  EXPECT_TRUE(Runs("compute_100f", 10, 3));
  EXPECT_FALSE(Runs("compute_100f", 12, 0));
  EXPECT_FALSE(Runs("", 9, 0));
}

}  // namespace
}  // namespace fairlead
