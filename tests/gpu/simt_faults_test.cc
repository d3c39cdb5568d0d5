// SPDX-License-Identifier: Apache-2.0
// Kernels with planted faults: the executor's checks find each, say where, and let their correct
// twins pass. Compiled for both warp sizes, with every access looked at.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "kernels/gpu/gpu.h"

namespace fairlead::FAIRLEAD_GPU {
namespace {

using simt::Fault;
using simt::FaultKind;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kThreads = 128;

struct Buffers {
  const float* in;
  float* out;
  int n;
};

// Host memory that kernels may touch, with neighbours that they must not.
struct Memory {
  std::vector<float> in = std::vector<float>(2 * kThreads, 1.0f);
  std::vector<float> out = std::vector<float>(2 * kThreads, 0.0f);
  simt::GlobalRange in_range{in.data(), kThreads * sizeof(float)};
  simt::GlobalRange out_range{out.data(), kThreads * sizeof(float)};
  Buffers args() { return {in.data(), out.data(), kThreads}; }
};

std::optional<Fault> RunKernel(void (*kernel)(Buffers), const Buffers& args, unsigned blocks = 3,
                               size_t shared_bytes = 0) {
  const KernelCall<Buffers> call{kernel, args};
  const simt::GlobalRange parameters(&call, sizeof(call));
  return simt::TryLaunch({.kernel = "Planted",
                          .grid = {blocks},
                          .threads = kThreads,
                          .shared_bytes = shared_bytes,
                          .warp = kWarp},
                         call);
}

void ExpectFault(const std::optional<Fault>& fault, FaultKind kind, const std::string& what) {
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->kind, kind) << fault->ToString();
  EXPECT_THAT(fault->what, HasSubstr(what)) << fault->ToString();
  EXPECT_THAT(fault->where, StartsWith("simt_faults_test.cc:")) << fault->ToString();
  EXPECT_LT(fault->thread, kThreads);
  EXPECT_THAT(fault->ToString(), HasSubstr("Planted: "));
}

// ---- a missing barrier

template <bool kBarrier>
GPU_KERNEL void Reverse(Buffers args) {
  GPU_SHARED(float, tile, kThreads);
  tile[ThreadX()] = args.in[ThreadX()] + static_cast<float>(ThreadX());
  if (kBarrier) SyncThreads();
  args.out[ThreadX()] = tile[kThreads - 1 - ThreadX()];
}

TEST(SimtFaults, MissingBarrier) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&Reverse<true>, memory.args(), 1));
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(memory.out[i], static_cast<float>(kThreads - i));
  const auto fault = RunKernel(&Reverse<false>, memory.args());
  ASSERT_TRUE(fault);
  // The first thread reads what the last has not written yet.
  ExpectFault(fault, FaultKind::kUninitialised, "nobody has written");
}

// All is written, but the second round overtakes the readers of the first.
template <bool kBarrier>
GPU_KERNEL void TwoRounds(Buffers args) {
  GPU_SHARED(float, tile, kThreads);
  for (int round = 0; round < 2; ++round) {
    tile[ThreadX()] = args.in[ThreadX()];
    SyncThreads();
    args.out[ThreadX()] = tile[kThreads - 1 - ThreadX()];
    if (kBarrier) SyncThreads();
  }
}

TEST(SimtFaults, ReadersThatAreOvertaken) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&TwoRounds<true>, memory.args(), 1));
  ExpectFault(RunKernel(&TwoRounds<false>, memory.args()), FaultKind::kRace,
              "without a barrier between");
}

GPU_KERNEL void AllWriteOne(Buffers args) {
  GPU_SHARED(float, one, 1);
  one[0] = args.in[ThreadX()];
  SyncThreads();
  args.out[ThreadX()] = one[0];
}

TEST(SimtFaults, TwoWriters) {
  Memory memory;
  ExpectFault(RunKernel(&AllWriteOne, memory.args()), FaultKind::kRace, "that thread 0 writes");
}

// Within a warp, SyncWarp is enough; between warps it is not.
template <int kNeighbour>
GPU_KERNEL void WarpNeighbours(Buffers args) {
  GPU_SHARED(float, tile, kThreads);
  tile[ThreadX()] = args.in[ThreadX()];
  SyncWarp();
  args.out[ThreadX()] = tile[(ThreadX() ^ kNeighbour) % kThreads];
}

TEST(SimtFaults, ABarrierOfTheWarpOrdersTheWarpAlone) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&WarpNeighbours<1>, memory.args(), 1));
  const auto fault = RunKernel(&WarpNeighbours<64>, memory.args());
  ASSERT_TRUE(fault);
  EXPECT_TRUE(fault->kind == FaultKind::kUninitialised || fault->kind == FaultKind::kRace);
}

// ---- bounds

template <int kBeyond>
GPU_KERNEL void Store(Buffers args) {
  if (ThreadX() < args.n) args.out[ThreadX() + kBeyond] = args.in[ThreadX()];
}

TEST(SimtFaults, StoreOutOfBounds) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&Store<0>, memory.args(), 1));
  const auto fault = RunKernel(&Store<1>, memory.args());
  ExpectFault(fault, FaultKind::kGlobalMemory, "a write of 4 bytes");
  EXPECT_EQ(fault->thread, kThreads - 1);
  ExpectFault(RunKernel(&Store<-1>, memory.args()), FaultKind::kGlobalMemory, "a write of 4 bytes");
}

GPU_KERNEL void Load(Buffers args) { args.out[ThreadX()] = args.in[ThreadX() + 1]; }

TEST(SimtFaults, LoadOutOfBounds) {
  Memory memory;
  ExpectFault(RunKernel(&Load, memory.args()), FaultKind::kGlobalMemory, "a read of 4 bytes");
}

GPU_KERNEL void UseAfterFree(Buffers args) { args.out[ThreadX()] = 1.0f; }

TEST(SimtFaults, AllocationsEndWhenTheyAreFreed) {
  auto* data = static_cast<float*>(simt::AllocateGlobal(kThreads * sizeof(float)));
  EXPECT_FALSE(RunKernel(&UseAfterFree, {data, data, kThreads}, 1));
  simt::FreeGlobal(data);
  ExpectFault(RunKernel(&UseAfterFree, {data, data, kThreads}, 1), FaultKind::kGlobalMemory,
              "a write");
}

template <int kBeyond>
GPU_KERNEL void SharedStore(Buffers args) {
  GPU_SHARED(float, tile, kThreads);
  GPU_DYNAMIC_SHARED(float, more);
  tile[ThreadX() + kBeyond] = args.in[ThreadX()];
  more[ThreadX()] = args.in[ThreadX()];
}

TEST(SimtFaults, SharedMemoryHasRedZones) {
  Memory memory;
  constexpr size_t kBytes = kThreads * sizeof(float);
  EXPECT_FALSE(RunKernel(&SharedStore<0>, memory.args(), 1, kBytes));
  ExpectFault(RunKernel(&SharedStore<1>, memory.args(), 1, kBytes), FaultKind::kSharedMemory,
              "a write of 4 bytes");
  ExpectFault(RunKernel(&SharedStore<-1>, memory.args(), 1, kBytes), FaultKind::kSharedMemory,
              "a write of 4 bytes");
  ExpectFault(RunKernel(&SharedStore<0>, memory.args(), 1, kBytes - 4), FaultKind::kSharedMemory,
              "a write of 4 bytes");
}

GPU_KERNEL void NoThing(Buffers) {}

TEST(SimtFaults, MoreSharedMemoryThanThereIs) {
  const auto fault = RunKernel(&NoThing, {}, 1, size_t{1} << 20);
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->kind, FaultKind::kSharedMemory);
  EXPECT_THAT(fault->what, HasSubstr("1048576"));
}

// ---- divergence

GPU_KERNEL void HalfAtTheBarrier(Buffers args) {
  if (ThreadX() < kThreads / 2) {
    SyncThreads();
  } else {
    SyncThreads();
  }
  args.out[ThreadX()] = 0;
}

TEST(SimtFaults, TwoBarriersForOneBlock) {
  Memory memory;
  ExpectFault(RunKernel(&HalfAtTheBarrier, memory.args()), FaultKind::kDivergentBarrier,
              "waits for its block, but thread 64 waits at simt_faults_test.cc:");
}

GPU_KERNEL void BarrierOrShuffle(Buffers args) {
  if (ThreadX() % kWarp == 3) SyncThreads();
  args.out[ThreadX()] = WarpSum(args.in[ThreadX()]);
  if (ThreadX() % kWarp != 3) SyncThreads();
}

TEST(SimtFaults, ALaneAtABarrierWhileItsWarpShuffles) {
  Memory memory;
  const auto fault = RunKernel(&BarrierOrShuffle, memory.args());
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->kind, FaultKind::kDivergentWarp);
  EXPECT_THAT(fault->what, HasSubstr("thread 3 waits at simt_faults_test.cc:"));
}

GPU_KERNEL void EarlyEnd(Buffers args) {
  if (ThreadX() == 5) return;
  args.out[ThreadX()] = WarpSum(args.in[ThreadX()]);
}

TEST(SimtFaults, ALaneThatHasEnded) {
  Memory memory;
  ExpectFault(RunKernel(&EarlyEnd, memory.args()), FaultKind::kDivergentWarp, "thread 5 has ended");
}

// A block may go on without the threads that have ended.
GPU_KERNEL void EarlyEndOfAWarp(Buffers args) {
  if (WarpId() == 1) return;
  SyncThreads();
  args.out[ThreadX()] = WarpSum(args.in[ThreadX()]);
}

TEST(SimtFaults, ThreadsThatHaveEndedAreNotWaitedFor) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&EarlyEndOfAWarp, memory.args(), 1));
  EXPECT_EQ(memory.out[0], static_cast<float>(kWarp));
  EXPECT_EQ(memory.out[kWarp], 0.0f);
}

// ---- warps

template <int kFrom>
GPU_KERNEL void ShuffleFrom(Buffers args) {
  args.out[ThreadX()] = Shfl(args.in[ThreadX()], kFrom);
}

TEST(SimtFaults, ShuffleOutsideTheWarp) {
  Memory memory;
  EXPECT_FALSE(RunKernel(&ShuffleFrom<kWarp - 1>, memory.args(), 1));
  ExpectFault(RunKernel(&ShuffleFrom<kWarp>, memory.args()), FaultKind::kOutsideWarp,
              "from lane " + std::to_string(kWarp) + " of a warp of " + std::to_string(kWarp));
  ExpectFault(RunKernel(&ShuffleFrom<-1>, memory.args()), FaultKind::kOutsideWarp, "from lane -1");
}

// Right on warps of 32 alone: the upper lanes of 64 are not in the mask.
GPU_KERNEL void MaskOf32(Buffers args) {
  args.out[ThreadX()] = Shfl(args.in[ThreadX()], LaneId() ^ 1, LaneMask{0xffffffff});
}

TEST(SimtFaults, AMaskThatForgetsWarpsOf64) {
  Memory memory;
  const auto fault = RunKernel(&MaskOf32, memory.args());
  if (kWarp == 32) {
    EXPECT_FALSE(fault);
  } else {
    ExpectFault(fault, FaultKind::kOutsideMask, "lane 32 of a warp of 64");
  }
}

GPU_KERNEL void TwoPlaces(Buffers args) {
  if (LaneId() % 2 == 0) {
    args.out[ThreadX()] = WarpMax(args.in[ThreadX()]);
  } else {
    args.out[ThreadX()] = WarpSum(args.in[ThreadX()]);
  }
}

GPU_KERNEL void ShuffleOrSync(Buffers args) {
  if (LaneId() % 2 == 0) {
    args.out[ThreadX()] = Shfl(args.in[ThreadX()], 0);
  } else {
    SyncWarp();
  }
}

TEST(SimtFaults, LanesThatExchangeAtDifferentPlaces) {
  Memory memory;
  ExpectFault(RunKernel(&TwoPlaces, memory.args()), FaultKind::kDivergentWarp,
              "while others of the warp are at simt_faults_test.cc:");
  ExpectFault(RunKernel(&ShuffleOrSync, memory.args()), FaultKind::kDivergentWarp,
              "while others of the warp are at simt_faults_test.cc:");
}

// In order: one lane reads, the warp's barrier, another reads and writes.
GPU_KERNEL void TakeTurns(Buffers args) {
  GPU_SHARED(float, turn, 1);
  if (ThreadX() == 0) turn[0] = args.in[0];
  if (WarpId() != 0) return;
  for (int lane = 0; lane < kWarp; ++lane) {
    SyncWarp();
    if (LaneId() == lane) turn[0] += args.in[lane];
  }
  SyncWarp();
  args.out[ThreadX()] = turn[0];
}

TEST(SimtFaults, LanesThatTakeTurnsAreNoRace) {
  Memory memory;
  const auto fault = RunKernel(&TakeTurns, memory.args(), 1);
  EXPECT_FALSE(fault) << fault->ToString();
  EXPECT_EQ(memory.out[0], static_cast<float>(kWarp + 1));
}

GPU_KERNEL void TwoMasks(Buffers args) {
  const LaneMask low = kAllLanes >> (kWarp / 2);
  args.out[ThreadX()] = Shfl(args.in[ThreadX()], LaneId(), LaneId() == 1 ? kAllLanes : low);
}

TEST(SimtFaults, LanesThatDisagreeOnTheMask) {
  Memory memory;
  ExpectFault(RunKernel(&TwoMasks, memory.args()), FaultKind::kDivergentWarp,
              "an exchange of the lanes");
}

// ---- what must work

struct SumArgs {
  const int* in;
  int64_t* out;
  LaneMask* ballot;
};

GPU_KERNEL void Sums(SumArgs args) {
  const int at = static_cast<int>(BlockX()) * kThreads + ThreadX();
  const int64_t sum = BlockSum<kThreads>(static_cast<int64_t>(args.in[at]));
  const int max = BlockMax<kThreads>(args.in[at]);
  const LaneMask odd = Ballot(args.in[at] % 2 != 0);
  if (ThreadX() == 0) {
    args.out[2 * BlockX()] = sum;
    args.out[2 * BlockX() + 1] = max;
    args.ballot[BlockX()] = odd;
  }
}

TEST(Simt, SumsMaximaAndBallotsOfManyBlocks) {
  constexpr int kBlocks = 37;
  std::vector<int> in(kBlocks * kThreads);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i * 7919 % 1009);
  std::vector<int64_t> out(2 * kBlocks);
  std::vector<LaneMask> ballot(kBlocks);
  const simt::GlobalRange in_range(in.data(), in.size() * sizeof(in[0]));
  const simt::GlobalRange out_range(out.data(), out.size() * sizeof(out[0]));
  const simt::GlobalRange ballot_range(ballot.data(), ballot.size() * sizeof(ballot[0]));
  GPU_LAUNCH(StreamHandle{}, Grid{kBlocks}, kThreads, 0, Sums,
             (SumArgs{in.data(), out.data(), ballot.data()}));
  for (int b = 0; b < kBlocks; ++b) {
    int64_t sum = 0;
    int max = 0;
    LaneMask odd = 0;
    for (int t = 0; t < kThreads; ++t) {
      const int value = in[b * kThreads + t];
      sum += value;
      max = std::max(max, value);
      if (t < kWarp && value % 2 != 0) odd |= LaneMask{1} << t;
    }
    EXPECT_EQ(out[2 * b], sum);
    EXPECT_EQ(out[2 * b + 1], max);
    EXPECT_EQ(ballot[b], odd);
  }
}

}  // namespace
}  // namespace fairlead::FAIRLEAD_GPU
