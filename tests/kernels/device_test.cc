// SPDX-License-Identifier: Apache-2.0
// The CPU device's memory, limits and start-up errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_info.h"
#include "kernels/device.h"

namespace fairlead {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(OpenDevice, NamesAndThreads) {
  const auto device = OpenDevice("cpu", {.threads = 3, .numerics = Numerics::kFloat32});
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->info().name, "cpu");
  EXPECT_THAT((*device)->info().description, HasSubstr(", 3 threads"));
  EXPECT_EQ((*device)->info().kv_dtype, DType::kF32);
  EXPECT_GT((*device)->info().memory_bytes, size_t{1} << 20);
  EXPECT_EQ((*OpenDevice("cpu", {}))->info().kv_dtype, DType::kF16);
  for (const DType kv_dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kF8_E4M3}) {
    EXPECT_EQ((*OpenDevice("cpu", {.kv_dtype = kv_dtype}))->info().kv_dtype, kv_dtype);
  }
}

TEST(OpenDevice, AutoSaysWhyItTookADevice) {
  std::string selection;
  const auto device = OpenDevice("auto", {}, &selection);
  ASSERT_TRUE(device.ok()) << device.status();
  const std::string& name = (*device)->info().name;
  EXPECT_THAT(selection, StartsWith("device auto: " + name));
  if (name == "cpu") {
    EXPECT_THAT(selection, HasSubstr(", since cuda: "));
    EXPECT_THAT(selection, HasSubstr("; hip: "));
  }
  EXPECT_TRUE(OpenDevice("cpu", {}, &(selection = "as it was")).ok());
  EXPECT_EQ(selection, "as it was");
}

TEST(OpenDevice, NamesOfDevices) {
  for (const char* name : {"auto", "cpu", "cuda", "cuda:0", "cuda:12", "hip", "hip:9999"}) {
    EXPECT_TRUE(CheckDeviceName(name).ok()) << name;
  }
  for (const char* name : {"", "cuda:", "cuda:-1", "cuda:1x", "cudas", "hip:12345", "host-simt"}) {
    EXPECT_THAT(std::string(CheckDeviceName(name).message()),
                StartsWith(absl::StrCat("'", name, "' is not one of auto, cpu, cuda:N, hip:N")));
  }
}

TEST(OpenDevice, ErrorsNameTheValueAndWhatIsAllowed) {
  const auto unknown = OpenDevice("tpu", {});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("'tpu'"));
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("cpu"));
  const auto no_cache = OpenDevice("cpu", {.kv_dtype = DType::kQ4_0});
  EXPECT_EQ(no_cache.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(no_cache.status().message()), HasSubstr("q4_0"));
  EXPECT_THAT(std::string(no_cache.status().message()),
              HasSubstr("f32, f16, bf16, q8_0 or f8_e4m3"));
  for (const int threads : {-1, 1025}) {
    const auto bad = OpenDevice("cpu", {.threads = threads});
    EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(bad.status().message()), HasSubstr(std::to_string(threads)));
  }
}

TEST(CpuDevice, PopulatesAPartAndKeepsWhatItHolds) {
  const auto device = *OpenDevice("cpu", {.threads = 1});
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  Buffer buffer = *device->Allocate(64 * page);
  auto* data = static_cast<char*>(buffer.data());
  const auto resident = [&] {
    std::vector<unsigned char> pages(64);
    EXPECT_EQ(mincore(data, 64 * page, pages.data()), 0);
    return std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; });
  };
  EXPECT_EQ(resident(), 0);
  data[0] = 7;
  if (!device->Populate(data, 8 * page + 1)) {
    std::cout << "this Linux has no MADV_POPULATE_WRITE (5.14)\n";
    EXPECT_EQ(resident(), 1);
    return;
  }
  EXPECT_GE(resident(), 9);
  EXPECT_EQ(data[0], 7);
  EXPECT_EQ(data[8 * page], 0);
}

TEST(CpuDevice, AllocatesAlignedZeroes) {
  const auto device = *OpenDevice("cpu", {.threads = 1});
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4097}, size_t{5} << 20}) {
    Buffer buffer = *device->Allocate(bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    const auto* data = static_cast<const char*>(buffer.data());
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(data[i], 0) << i;
    std::memset(buffer.data(), 1, bytes);
    Buffer moved = std::move(buffer);
    EXPECT_EQ(moved.bytes(), bytes);
  }
}

TEST(CpuDevice, RefusesMoreThanThereIs) {
  const auto device = *OpenDevice("cpu", {.threads = 1});
  const size_t free = device->FreeMemory();
  EXPECT_GT(free, size_t{0});
  EXPECT_LE(free, device->info().memory_bytes);
  for (const size_t bytes : {2 * device->info().memory_bytes, SIZE_MAX}) {
    const auto buffer = device->Allocate(bytes);
    EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(buffer.status().message()), HasSubstr(std::to_string(bytes)));
  }
}

class CgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(testing::TempDir()) /
            testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  std::filesystem::path root_;
};

TEST_F(CgroupTest, Version2TakesTheTightestAncestor) {
  Write("memory.max", "max\n");
  Write("a/memory.max", "1000000\n");
  Write("a/memory.current", "700000\n");
  Write("a/memory.stat", "anon 1\ninactive_file 50000\n");
  Write("a/b/memory.max", "5000000\n");
  Write("a/b/memory.current", "100\n");
  Write("a/b/cpu.max", "150000 100000\n");
  Write("a/cpu.max", "max 100000\n");
  const CgroupLimits limits = ReadCgroupLimits("0::/a/b\n", root_);
  EXPECT_EQ(limits.memory_limit, 1000000u);
  EXPECT_EQ(limits.memory_free, 350000u);
  EXPECT_DOUBLE_EQ(limits.cpus, 1.5);
}

TEST_F(CgroupTest, Version1) {
  Write("memory/x/memory.limit_in_bytes", "2000\n");
  Write("memory/x/memory.usage_in_bytes", "3000\n");
  Write("memory/x/memory.stat", "total_inactive_file 500\n");
  Write("cpu/x/cpu.cfs_quota_us", "50000\n");
  Write("cpu/x/cpu.cfs_period_us", "100000\n");
  const CgroupLimits limits =
      ReadCgroupLimits("5:memory:/x\n4:cpuacct,cpu:/x\n1:name=systemd:/y\n", root_);
  EXPECT_EQ(limits.memory_limit, 2000u);
  EXPECT_EQ(limits.memory_free, 0u);
  EXPECT_DOUBLE_EQ(limits.cpus, 0.5);
}

TEST_F(CgroupTest, NoLimitsWithoutFilesOrWithGarbage) {
  Write("memory.max", "lots");
  Write("memory.current", "-1");
  Write("cpu.max", "1");
  for (const char* membership : {"", "0::/\n", "0::/not/here", "nonsense\n::\n"}) {
    const CgroupLimits limits = ReadCgroupLimits(membership, root_);
    EXPECT_EQ(limits.memory_limit, kNoMemoryLimit) << membership;
    EXPECT_EQ(limits.memory_free, kNoMemoryLimit);
    EXPECT_EQ(limits.cpus, 0);
  }
}

TEST_F(CgroupTest, Version1Unlimited) {  // quota -1; the limit is a huge number
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  Write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("memory/memory.usage_in_bytes", "1000\n");
  const CgroupLimits limits = ReadCgroupLimits("1:cpu:/\n2:memory:/\n", root_);
  EXPECT_EQ(limits.cpus, 0);
  EXPECT_EQ(limits.memory_free, 9223372036854770712u);
}

}  // namespace
}  // namespace fairlead
