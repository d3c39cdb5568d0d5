// SPDX-License-Identifier: Apache-2.0
// libfairlead_hip.so on a runtime (hip_runtime.cc) that plays what a machine may have: no GPU, one
// of an architecture that was not compiled, an old driver, no memory, a GPU that is lost.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "kernels/device.h"
#include "kernels/strings.h"

namespace fairlead {
namespace {

constexpr const char* kCompiled = FAIRLEAD_TEST_ARCHITECTURES;  // "gfx942, gfx1100"

std::vector<std::string> Architectures() { return absl::StrSplit(std::string(kCompiled), ", "); }
std::string Compiled() { return Architectures()[0]; }

class HipBackendTest : public testing::Test {
 protected:
  ~HipBackendTest() override { Play("", ""); }
  // Empty: not set.
  static void Play(const std::string& architecture, const std::string& fault) {
    setenv("FAIRLEAD_TEST_HIP_ARCHITECTURE", architecture.c_str(), 1);
    setenv("FAIRLEAD_TEST_HIP_FAULT", fault.c_str(), 1);
  }
  static void ExpectError(std::string_view name, absl::StatusCode code, const std::string& words) {
    const auto device = OpenDevice(name, {});
    ASSERT_FALSE(device.ok());
    EXPECT_EQ(device.status().code(), code) << device.status();
    EXPECT_EQ(device.status().message(), words);
  }
};

TEST_F(HipBackendTest, SaysThatThereIsNoGpu) {
  Play("", "");
  ExpectError("hip", absl::StatusCode::kFailedPrecondition,
              "device hip:0: the driver shows no AMD GPU to this process");
}

TEST_F(HipBackendTest, SaysWhatTheDriverAnswers) {
  Play(Compiled(), "driver");
  ExpectError("hip:0", absl::StatusCode::kFailedPrecondition,
              "device hip:0: the driver answers hipErrorInsufficientDriver, words of the driver");
}

TEST_F(HipBackendTest, SaysWhichArchitecturesItIsFor) {
  Play("gfx803", "");
  ExpectError("hip:0", absl::StatusCode::kFailedPrecondition,
              StrCat("device hip:0: Emulated GPU is gfx803; this build is for ", kCompiled));
}

TEST_F(HipBackendTest, SaysWhichGpusThereAre) {
  Play(Compiled(), "");
  ExpectError("hip:7", absl::StatusCode::kInvalidArgument,
              "device hip:7: GPU 7 of 1; known are 0 to 0");
}

TEST_F(HipBackendTest, OpensAGpuOfEachCompiledArchitecture) {
  for (const std::string& architecture : Architectures()) {
    Play(architecture, "");
    const auto device = OpenDevice("hip", {});
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ((*device)->info().name, "hip:0");
    EXPECT_NE((*device)->info().description.find(architecture), std::string::npos)
        << (*device)->info().description;
    EXPECT_EQ((*device)->info().memory_bytes, size_t{16} << 30);
  }
}

TEST_F(HipBackendTest, CopiesAndZeroes) {
  Play(Compiled(), "");
  const auto device = OpenDevice("hip", {});
  ASSERT_TRUE(device.ok()) << device.status();
  const size_t before = (*device)->FreeMemory();
  auto buffer = (*device)->Allocate(100);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_LT((*device)->FreeMemory(), before);
  const auto stream = (*device)->NewStream();
  std::vector<char> host(100, 'x');
  stream->CopyToHost(host.data(), buffer->data(), 100);
  stream->Wait();
  EXPECT_EQ(host, std::vector<char>(100, 0));
  const std::string text = "as it was";
  stream->CopyToDevice(buffer->data(), text.data(), text.size());
  stream->CopyToHost(host.data(), buffer->data(), text.size());
  stream->Wait();
  EXPECT_EQ(std::string(host.data(), text.size()), text);
}

TEST_F(HipBackendTest, SaysThatMemoryIsOut) {
  Play(Compiled(), "");
  const auto device = OpenDevice("hip", {});
  ASSERT_TRUE(device.ok()) << device.status();
  Play(Compiled(), "memory");
  const auto buffer = (*device)->Allocate(4096);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted) << buffer.status();
  EXPECT_NE(buffer.status().message().find("hip:0: cannot allocate 4096 bytes"), std::string::npos)
      << buffer.status();
  Play(Compiled(), "");
  EXPECT_TRUE((*device)->Allocate(4096).ok());  // the error is not what the next call gets
}

TEST_F(HipBackendTest, EndsTheProcessWhenTheGpuIsLost) {
  Play(Compiled(), "");
  const auto device = OpenDevice("hip", {});
  ASSERT_TRUE(device.ok()) << device.status();
  const auto stream = (*device)->NewStream();
  EXPECT_DEATH(
      {
        Play(Compiled(), "lost");
        stream->Wait();
      },
      "error: hip:0: hipStreamSynchronize failed: hipErrorIllegalState: words of the driver");
}

TEST_F(HipBackendTest, AutoTakesIt) {
  Play(Compiled(), "");
  std::string why;
  const auto device = OpenDevice("auto", {}, &why);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->info().name, "hip:0") << why;
  Play("", "");
  const auto cpu = OpenDevice("auto", {}, &why);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_EQ((*cpu)->info().name, "cpu");
  EXPECT_NE(why.find("hip: the driver shows no AMD GPU to this process"), std::string::npos) << why;
}

}  // namespace
}  // namespace fairlead
