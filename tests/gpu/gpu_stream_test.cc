// SPDX-License-Identifier: Apache-2.0
// The order of what a GPU's stream does: copies through staged memory, fences, graphs, and weights
// that pass through a ring, on streams that take their time (host_stream.h) as late or as early as
// they may.
#include "kernels/gpu/stream_gpu.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/gpu/packed_weight.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

using simt::Pace;

class PaceScope {
 public:
  explicit PaceScope(Pace pace) { simt::g_pace = pace; }
  ~PaceScope() { simt::g_pace = Pace::kAtOnce; }
};

Buffer DeviceMemory(size_t bytes) {
  return Buffer(AllocateMemory(0, bytes), bytes, [](void* data) { ReleaseMemory(0, data); });
}

struct AddCall {
  int* data;
  int n, value;
};
GPU_KERNEL void AddKernel(AddCall call) {
  const int i = static_cast<int>(BlockX()) * BlockThreads() + ThreadX();
  if (i < call.n) call.data[i] += call.value;
}
void Add(const StreamHandle& stream, int* data, int n, int value) {
  const Grid grid = {static_cast<unsigned>((n + 63) / 64)};
  GPU_LAUNCH(stream, grid, 64, 0, AddKernel, (AddCall{data, n, value}));
}

class GpuStreamTest : public ::testing::TestWithParam<Pace> {
 protected:
  const PaceScope pace_{GetParam()};
};

std::string NameOf(const ::testing::TestParamInfo<Pace>& info) {
  const char* const names[] = {"AtOnce", "Late", "Eager"};
  return names[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Paces, GpuStreamTest,
                         ::testing::Values(Pace::kAtOnce, Pace::kLate, Pace::kEager), NameOf);

// A copy back of one step, to be looked at when its fence has passed.
struct Expected {
  int64_t fence;
  std::vector<int> host;
  int value;
};

// Steps as the engine makes them: some memory up, an op, memory down, a fence, at most two open.
// What was given to a copy up is overwritten at once where it was staged, which is the contract's
// "until a fence" and more.
TEST_P(GpuStreamTest, StepsKeepTheirInputsAndResults) {
  std::mt19937 random(5);
  // The last are more than is staged: drivers copy those.
  const int sizes[] = {1, 100, 5000, 700'000, 1'100'000};
  Buffer memory = DeviceMemory(sizes[4] * sizeof(int));
  int* const device = static_cast<int*>(memory.data());
  GpuStream stream(0);
  std::vector<Expected> open;
  const auto check = [&](const Expected& step) {
    for (const int value : {step.host.front(), step.host[step.host.size() / 2], step.host.back()}) {
      ASSERT_EQ(value, step.value) << "step " << step.fence;
    }
  };
  int64_t waits = 0;
  for (int step = 0; step < 200; ++step) {
    const int n = sizes[random() % (step % 20 == 0 ? 5 : 3)];
    const int value = static_cast<int>(random() % 1000);
    std::vector<int> up(static_cast<size_t>(n), value);
    stream.CopyToDevice(device, up.data(), up.size() * sizeof(int));
    up.assign(up.size(), -1);
    Add(stream.handle(), device, n, step);
    open.push_back({0, std::vector<int>(static_cast<size_t>(n), -7), value + step});
    stream.CopyToHost(open.back().host.data(), device, up.size() * sizeof(int));
    if (random() % 10 == 0) {
      stream.Wait();
      ++waits;
      for (const Expected& done : open) check(done);
      open.clear();
      continue;
    }
    open.back().fence = stream.Fence();
    while (open.size() > random() % 3) {
      stream.WaitFor(open.front().fence);
      check(open.front());
      open.erase(open.begin());
    }
  }
  EXPECT_GT(waits, 5);
}

// Several results of one step to one place: the last counts, staged or not.
TEST_P(GpuStreamTest, ResultsComeInOrder) {
  constexpr int kMany = 1'200'000;
  Buffer memory = DeviceMemory(kMany * sizeof(int));
  int* const device = static_cast<int*>(memory.data());
  GpuStream stream(0);
  std::vector<int> host(kMany, -1);
  Add(stream.handle(), device, kMany, 3);
  stream.CopyToHost(host.data(), device, 8 * sizeof(int));
  const int64_t fence = stream.Fence();
  Add(stream.handle(), device, kMany, 4);
  stream.CopyToHost(host.data(), device, kMany * sizeof(int));  // not staged
  stream.WaitFor(fence);
  stream.Wait();
  EXPECT_EQ(host[0], 7);
  EXPECT_EQ(host[kMany - 1], 7);
}

TEST_P(GpuStreamTest, AFenceWaitsForNoMoreThanItsWork) {
  Buffer memory = DeviceMemory(64 * sizeof(int));
  int* const device = static_cast<int*>(memory.data());
  GpuStream stream(0);
  std::vector<int> first(64), second(64, -1);
  Add(stream.handle(), device, 64, 1);
  stream.CopyToHost(first.data(), device, sizeof(int) * 64);
  const int64_t fence = stream.Fence();
  Add(stream.handle(), device, 64, 1);
  stream.CopyToHost(second.data(), device, sizeof(int) * 64);
  stream.Fence();
  stream.WaitFor(fence);
  EXPECT_EQ(first[63], 1);
  EXPECT_EQ(second[63], -1);  // handed over with its own fence
  EXPECT_EQ(device[0], GetParam() == Pace::kLate ? 1 : 2);
  stream.Wait();
  EXPECT_EQ(second[63], 2);
}

TEST_P(GpuStreamTest, AThirdFenceWaitsForTheFirst) {
  Buffer memory = DeviceMemory(64 * sizeof(int));
  int* const device = static_cast<int*>(memory.data());
  GpuStream stream(0);
  std::vector<std::vector<int>> host(5, std::vector<int>(64, -1));
  for (int step = 0; step < 5; ++step) {
    Add(stream.handle(), device, 64, 1);
    stream.CopyToHost(host[step].data(), device, sizeof(int) * 64);
    EXPECT_EQ(stream.Fence(), step);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(host[i][63], i <= step - 2 ? i + 1 : -1) << i;
  }
  stream.Wait();
  EXPECT_EQ(host[4][63], 5);
}

TEST_P(GpuStreamTest, AGraphRunsWhenItIsLaunched) {
  Buffer memory = DeviceMemory(64 * sizeof(int));
  int* const device = static_cast<int*>(memory.data());
  GpuStream stream(0);
  stream.BeginCapture();
  Add(stream.handle(), device, 64, 10);
  Add(stream.handle(), device, 32, 1);
  const std::unique_ptr<Graph> graph = stream.EndCapture();
  ASSERT_NE(graph, nullptr);
  stream.Wait();
  EXPECT_EQ(device[0], 0);
  std::vector<int> host(64, 5);
  for (int i = 0; i < 3; ++i) {
    stream.CopyToDevice(device, host.data(), sizeof(int) * 64);
    stream.Launch(*graph);
    stream.Launch(*graph);
    stream.CopyToHost(host.data(), device, sizeof(int) * 64);
    stream.Wait();
    EXPECT_EQ(host[0], 5 + 22 * (i + 1));
    EXPECT_EQ(host[63], 5 + 20 * (i + 1));
  }
}

struct CompareCall {
  const unsigned char* data;
  int* wrong;  // adds what is not `byte`
  int bytes, byte;
};
GPU_KERNEL void CompareKernel(CompareCall call) {
  if (ThreadX() != 0) return;
  for (int i = 0; i < call.bytes; ++i) *call.wrong += call.data[i] != call.byte;
}

struct Paces {
  const char* name;
  Pace compute, copies;
};

class WeightRingTest : public ::testing::TestWithParam<Paces> {};

INSTANTIATE_TEST_SUITE_P(Paces, WeightRingTest,
                         ::testing::Values(Paces{"AtOnce", Pace::kAtOnce, Pace::kAtOnce},
                                           Paces{"BothLate", Pace::kLate, Pace::kLate},
                                           Paces{"CopiesEager", Pace::kLate, Pace::kEager},
                                           Paces{"ComputeEager", Pace::kEager, Pace::kLate}),
                         [](const auto& info) { return std::string(info.param.name); });

// Weights of several sizes, each used in turn, some twice, and some left out: what a kernel reads
// in its place is the weight, neither the one before nor the next.
TEST_P(WeightRingTest, EveryUseFindsItsWeight) {
  const auto streamed = std::make_shared<StreamedWeights>();
  std::vector<std::unique_ptr<GpuPackedWeight>> weights;
  for (int i = 0; i < 5; ++i) {
    const int64_t cols = 32 * (1 + i % 3);
    const size_t bytes = GpuPackedBytes(DType::kF16, 16, cols);
    void* const data = AllocatePinned(0, bytes);
    std::memset(data, 10 + i, bytes);
    weights.push_back(std::make_unique<GpuPackedWeight>(
        DType::kF16, 16, cols, 1, Buffer(data, bytes, [](void* p) { ReleasePinned(0, p); }),
        streamed));
  }
  Buffer wrong = DeviceMemory(sizeof(int));
  {
    const PaceScope compute(GetParam().compute);
    GpuStream stream(0, {}, streamed);
    const PaceScope copies(GetParam().copies);
    WeightRing& ring = stream.ring();
    std::mt19937 random(3);
    for (int use = 0; use < 120; ++use) {
      const int i = use < 40 ? use % 5 : static_cast<int>(random() % 5);
      const GpuPackedWeight& weight = *weights[i];
      const std::byte* place = ring.Acquire(weight);
      GPU_LAUNCH(stream.handle(), Grid{1}, kWarp, 0, CompareKernel,
                 (CompareCall{reinterpret_cast<const unsigned char*>(place),
                              static_cast<int*>(wrong.data()),
                              static_cast<int>(weight.host_bytes()), 10 + i}));
      ring.Release();
      if (use % 7 == 6) stream.Wait();
    }
    stream.Wait();
  }
  EXPECT_EQ(*static_cast<int*>(wrong.data()), 0);
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU
