// SPDX-License-Identifier: Apache-2.0
// What is read of the drivers' telemetry, against a made-up management library and a made-up sysfs.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kernels/gpu/cuda/nvml.h"
#include "kernels/gpu/hip/amdgpu.h"

namespace fairlead {
namespace {

using ::testing::ElementsAre;

void ExpectNothing(const DeviceTelemetry& t) {
  EXPECT_FALSE(t.power_watts || t.power_limit_watts || t.temperature_celsius ||
               t.core_clock_hertz || t.memory_clock_hertz || t.utilization || t.memory_used_bytes ||
               t.ecc_corrected || t.ecc_uncorrected || t.throttling);
}

TEST(Nvml, ReadsWhatTheLibraryTells) {
  const Nvml nvml(FAIRLEAD_FAKE_NVML, "0000:01:00.0");
  const DeviceTelemetry t = nvml.Read();
  EXPECT_DOUBLE_EQ(t.power_watts.value(), 312.5);
  EXPECT_DOUBLE_EQ(t.power_limit_watts.value(), 700);
  EXPECT_DOUBLE_EQ(t.temperature_celsius.value(), 61);
  EXPECT_DOUBLE_EQ(t.core_clock_hertz.value(), 1.755e9);
  EXPECT_FALSE(t.memory_clock_hertz);
  EXPECT_DOUBLE_EQ(t.utilization.value(), 0.87);
  EXPECT_EQ(t.memory_used_bytes.value(), 50ull << 30);
  EXPECT_EQ(t.ecc_corrected.value(), 5u);
  EXPECT_EQ(t.ecc_uncorrected.value(), 2u);
  EXPECT_THAT(t.throttling.value(), ElementsAre("power_cap", "thermal"));
}

TEST(Nvml, TellsNothingWithoutTheLibraryOrTheGpu) {
  ExpectNothing(Nvml("libfairlead-no-such-library.so.1", "0000:01:00.0").Read());
  ExpectNothing(Nvml("libm.so.6", "0000:01:00.0").Read());  // another library
  ExpectNothing(Nvml(FAIRLEAD_FAKE_NVML, "0000:02:00.0").Read());
  void* fake = dlopen(FAIRLEAD_FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(fake, nullptr) << dlerror();
  const auto play = reinterpret_cast<void (*)(const char*)>(dlsym(fake, "FakeNvmlPlay"));
  ASSERT_NE(play, nullptr);
  play("nvml=9");
  ExpectNothing(Nvml(FAIRLEAD_FAKE_NVML, "0000:01:00.0").Read());
  play("");
}

class AmdgpuTest : public testing::Test {
 protected:
  AmdgpuTest() : folder_(testing::TempDir() + "amdgpu_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/hwmon/hwmon7");
    std::filesystem::create_directories(folder_ + "/ras");
  }
  ~AmdgpuTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  const std::string folder_;
};

TEST_F(AmdgpuTest, ReadsWhatTheDriverTells) {
  Write("hwmon/hwmon7/power1_average", "250000000\n");
  Write("hwmon/hwmon7/power1_cap", "560000000\n");
  Write("hwmon/hwmon7/temp1_input", "40000\n");
  Write("hwmon/hwmon7/temp2_input", "55000\n");
  Write("hwmon/hwmon7/freq1_input", "2100000000\n");
  Write("hwmon/hwmon7/freq2_input", "1300000000\n");
  Write("gpu_busy_percent", "42\n");
  Write("mem_info_vram_used", "17179869184\n");
  Write("ras/umc_err_count", "ue: 1\nce: 7\n");
  const DeviceTelemetry t = ReadAmdgpu(folder_);
  EXPECT_DOUBLE_EQ(t.power_watts.value(), 250);
  EXPECT_DOUBLE_EQ(t.power_limit_watts.value(), 560);
  EXPECT_DOUBLE_EQ(t.temperature_celsius.value(), 55);
  EXPECT_DOUBLE_EQ(t.core_clock_hertz.value(), 2.1e9);
  EXPECT_DOUBLE_EQ(t.memory_clock_hertz.value(), 1.3e9);
  EXPECT_DOUBLE_EQ(t.utilization.value(), 0.42);
  EXPECT_EQ(t.memory_used_bytes.value(), 16ull << 30);
  EXPECT_EQ(t.ecc_uncorrected.value(), 1u);
  EXPECT_EQ(t.ecc_corrected.value(), 7u);
  EXPECT_FALSE(t.throttling);
}

TEST_F(AmdgpuTest, NewerDriversAndSmallGpus) {
  Write("hwmon/hwmon7/power1_input", "11000000\n");
  Write("hwmon/hwmon7/temp1_input", "40000\n");
  Write("gpu_busy_percent", "busy\n");
  const DeviceTelemetry t = ReadAmdgpu(folder_);
  EXPECT_DOUBLE_EQ(t.power_watts.value(), 11);
  EXPECT_DOUBLE_EQ(t.temperature_celsius.value(), 40);
  EXPECT_FALSE(t.utilization);
}

TEST(Amdgpu, TellsNothingWithoutTheFolder) { ExpectNothing(ReadAmdgpu("/no/such/gpu")); }

}  // namespace
}  // namespace fairlead
