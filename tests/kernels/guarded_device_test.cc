// SPDX-License-Identifier: Apache-2.0
// The guarded device keeps its promises: memory that only ops may see, streams that run late and in
// order, and the bits of the device inside.
#include "tests/guarded_device.h"

#include <gtest/gtest.h>

#include <csetjmp>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include "tests/kernels/op_cases.h"
#include "tests/reference/reference_device.h"

namespace fairlead {
namespace {

using reference::MakeReferenceDevice;

sigjmp_buf fault_return;

void OnFault(int) { siglongjmp(fault_return, 1); }

// Whether touching this byte from the host is a segmentation fault.
template <typename Touch>
bool Faults(Touch touch) {
  struct sigaction action = {}, before = {};
  action.sa_handler = OnFault;
  sigaction(SIGSEGV, &action, &before);
  const bool faulted = sigsetjmp(fault_return, 1) != 0;
  if (!faulted) touch();
  sigaction(SIGSEGV, &before, nullptr);
  return faulted;
}

bool ReadFaults(const void* p) {
  return Faults([p] { static_cast<void>(*static_cast<const volatile char*>(p)); });
}

bool WriteFaults(void* p) {
  return Faults([p] { *static_cast<volatile char*>(p) = 1; });
}

std::unique_ptr<Device> Guarded() { return MakeGuardedDevice(MakeReferenceDevice()); }

Buffer Allocated(Device& device, size_t bytes) {
  auto buffer = device.Allocate(bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

TEST(GuardedDevice, TheHostCannotTouchItsMemory) {
  const auto device = Guarded();
  for (const size_t bytes : {1, 64, 4096, 10000}) {
    const Buffer buffer = Allocated(*device, bytes);
    auto* data = static_cast<char*>(buffer.data());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
    for (char* p : {data, data + bytes / 2, data + bytes - 1}) {
      EXPECT_TRUE(ReadFaults(p)) << bytes;
      EXPECT_TRUE(WriteFaults(p)) << bytes;
    }
    const auto stream = device->NewStream();
    std::vector<char> host(bytes, 'x');
    stream->CopyToDevice(data, host.data(), bytes);
    EXPECT_TRUE(ReadFaults(data)) << "before Wait";
    stream->Wait();
    EXPECT_TRUE(ReadFaults(data)) << "after a copy";
  }
  int on_the_host = 0;
  EXPECT_FALSE(ReadFaults(&on_the_host)) << "the probe itself";
}

TEST(GuardedDevice, MemoryStartsZeroedAndComesBack) {
  const auto device = Guarded();
  const Buffer buffer = Allocated(*device, 300);
  const auto stream = device->NewStream();
  std::vector<char> host(300, 'x');
  stream->CopyToHost(host.data(), buffer.data(), 300);
  stream->Wait();
  EXPECT_EQ(host, std::vector<char>(300, 0));

  host.assign(100, 'y');
  stream->CopyToDevice(static_cast<char*>(buffer.data()) + 200, host.data(), 100);
  std::vector<char> back(300);
  stream->CopyToHost(back.data(), buffer.data(), 300);
  stream->Wait();
  EXPECT_EQ(std::string(back.begin(), back.end()), std::string(200, '\0') + std::string(100, 'y'));
}

TEST(GuardedDevice, NothingRunsBeforeWait) {
  const auto device = Guarded();
  const Buffer buffer = Allocated(*device, 16);
  const auto stream = device->NewStream();
  std::vector<char> source(16, 'a'), result(16, '?');
  stream->CopyToDevice(buffer.data(), source.data(), 16);
  stream->CopyToHost(result.data(), buffer.data(), 16);
  source.assign(16, 'b');  // forbidden by the contract; here it shows when the copy reads
  EXPECT_NE(result, std::vector<char>(16, 'a'));
  EXPECT_NE(result, std::vector<char>(16, '?')) << "a target that is read too early holds garbage";
  stream->Wait();
  EXPECT_EQ(result, std::vector<char>(16, 'b'));
}

TEST(GuardedDevice, WorkRunsInOrder) {
  const auto device = Guarded();
  const Buffer x = Allocated(*device, 4), row = Allocated(*device, 4), out = Allocated(*device, 4);
  const auto stream = device->NewStream();
  const int32_t zero = 0;
  std::vector<float> values(50), results(50);
  stream->CopyToDevice(row.data(), &zero, 4);
  for (int i = 0; i < 50; ++i) {
    values[i] = static_cast<float>(i);
    stream->CopyToDevice(x.data(), &values[i], 4);
    GatherRowsArgs args = {.x = Tensor(x.data(), DType::kF32, {1, 1}),
                           .row = Tensor(row.data(), DType::kI32, {1}),
                           .out = Tensor(out.data(), DType::kF32, {1, 1})};
    device->ops().GatherRows(*stream, args);
    args = {};  // captured by value
    stream->CopyToHost(&results[i], out.data(), 4);
  }
  stream->Wait();
  EXPECT_EQ(results, values);
  stream->Wait();  // nothing left to do
}

TEST(GuardedDevice, AStreamFinishesItsWorkWhenItGoes) {
  const auto device = Guarded();
  const Buffer buffer = Allocated(*device, 4);
  const int32_t value = 7;
  device->NewStream()->CopyToDevice(buffer.data(), &value, 4);
  int32_t back = 0;
  const auto stream = device->NewStream();
  stream->CopyToHost(&back, buffer.data(), 4);
  stream->Wait();
  EXPECT_EQ(back, 7);
}

TEST(GuardedDevice, StreamsOfSeveralThreadsShareABuffer) {
  const auto device = Guarded();
  const Buffer shared = Allocated(*device, 64);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto stream = device->NewStream();
      auto* mine = static_cast<int32_t*>(shared.data()) + t;
      for (int32_t i = 0; i < 200; ++i) {
        const Buffer own = Allocated(*device, 100);
        int32_t back = -1, own_back = -1;
        stream->CopyToDevice(mine, &i, 4);
        stream->CopyToDevice(own.data(), &i, 4);
        stream->CopyToHost(&back, mine, 4);
        stream->CopyToHost(&own_back, own.data(), 4);
        stream->Wait();
        wrong[t] += back != i || own_back != i;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
  EXPECT_TRUE(ReadFaults(shared.data()));
}

TEST(GuardedDevice, RefusesWhatDoesNotFit) {
  const auto device = MakeGuardedDevice(MakeReferenceDevice({.memory_bytes = 1000}));
  EXPECT_EQ(device->Allocate(1001).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(device->Allocate(1000).ok());
}

TEST(GuardedDeviceDeathTest, ACopyOutsideItsBufferIsCaught) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto device = Guarded();
  const Buffer buffer = Allocated(*device, 64);
  int32_t host[20] = {};
  EXPECT_DEATH(
      {
        const auto stream = device->NewStream();
        stream->CopyToDevice(buffer.data(), host, sizeof host);
        stream->Wait();
      },
      "not device memory");
}

void ExpectTheBitsOf(Device& inner, Device& guarded) {
  int cases = 0;
  for (const OpCase& c : AllOpCases()) {
    if (SeedOf(c) % 3 != 0) continue;  // a third of them, of every op
    CaseRun direct(inner, DType::kF32, SeedOf(c)), late(guarded, DType::kF32, SeedOf(c));
    c.build(direct);
    c.build(late);
    EXPECT_EQ(direct.Finish(), std::vector<std::string>()) << c.name;
    EXPECT_EQ(late.Finish(), std::vector<std::string>()) << c.name;
    EXPECT_EQ(DifferingBits(direct, late), "") << c.name;
    ++cases;
  }
  EXPECT_GT(cases, 200);
}

TEST(GuardedDevice, GivesTheBitsOfTheReferenceInside) {
  const auto inner = MakeReferenceDevice();
  ExpectTheBitsOf(*inner, *Guarded());
}

TEST(GuardedDevice, GivesTheBitsOfTheCpuInside) {
  auto inner = OpenDevice("cpu", {.threads = 2});
  auto in_guard = OpenDevice("cpu", {.threads = 2});
  ASSERT_TRUE(inner.ok() && in_guard.ok());
  ExpectTheBitsOf(**inner, *MakeGuardedDevice(*std::move(in_guard)));
}

}  // namespace
}  // namespace fairlead
