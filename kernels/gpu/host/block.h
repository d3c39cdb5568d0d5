// SPDX-License-Identifier: Apache-2.0
// A block that the SIMT executor runs, and the thread of the machine that runs it. Internal to
// kernels/gpu/host.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/gpu/host/fiber.h"
#include "kernels/gpu/host/shared_memory.h"
#include "kernels/gpu/host/simt.h"

namespace fairlead::simt {

// What all blocks of a launch share.
struct Launch {
  const LaunchArgs& args;
  absl::FunctionRef<void()> body;
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  std::optional<Fault> fault;  // the first
};

enum class LaneState : uint8_t { kReady, kAtBarrier, kInWarp, kEnded };

struct Lane {
  LaneState state = LaneState::kReady;
  Fiber* fiber = nullptr;        // null until it first runs
  std::source_location waits{};  // where, in kAtBarrier and kInWarp
};

struct Warp {
  uint64_t lanes = 0;    // that it has
  uint64_t mask = 0;     // of the exchange under way
  uint64_t arrived = 0;  // at it
  bool sync = false;     // it is a SyncWarp
  std::source_location where{};
  int phase = 0;  // the half of `value` that it fills
  uint64_t value[2][64];
  uint32_t syncs = 0;  // SyncWarp calls so far
};

struct ThreadInfo {  // the running one
  int thread, threads;
  Dim3 block, grid;
  int warp;
};

// Runs blocks one after another on the calling thread; its fibers are kept for the next one.
class BlockRunner {
 public:
  BlockRunner();
  ~BlockRunner();

  void Run(Launch& launch, Dim3 block);

  // The rest: for the fibers.
  static BlockRunner* Current();  // null outside of kernels
  const ThreadInfo& info() const { return info_; }
  int current() const { return info_.thread; }
  int warp_of(int thread) const { return thread / info_.warp; }
  uint32_t barriers() const { return barriers_; }
  uint32_t warp_syncs(int thread) const { return warps_[warp_of(thread)].syncs; }
  SharedMemory& shared() { return shared_; }
  bool OnStack(const void* address) const { return lanes_[current()].fiber->OnStack(address); }

  // Whether the kernel's own code runs, not the executor on its behalf: accesses of the latter are
  // not looked at, though some of its code (the standard library's) may be compiled for that.
  bool in_kernel() const { return in_kernel_; }
  class Pause {
   public:
    explicit Pause(BlockRunner& runner) : runner_(runner) { runner.in_kernel_ = false; }
    ~Pause() { runner_.in_kernel_ = true; }

   private:
    BlockRunner& runner_;
  };

  void SyncThreads(const std::source_location& where);
  void CheckMask(uint64_t mask, const std::source_location& where);
  // Returns the values of the warp's lanes.
  const uint64_t* Exchange(uint64_t value, uint64_t mask, bool sync,
                           const std::source_location& where);
  // Whether the running lane is the one that all others of the warp wait for.
  bool IsLastOfWarp() const;
  [[noreturn]] void Stop(FaultKind kind, std::string where, std::string what);

 private:
  static void FiberMain();
  void RunLane(int thread);
  bool RunReadyLanes();  // false: none was ready
  bool ReleaseBarrier();
  void ReportStuck();
  Fiber* TakeFiber();
  [[noreturn]] void Leave();  // the current fiber, for good
  void Wait(LaneState state, const std::source_location& where);
  void Record(FaultKind kind, int thread, std::string where, std::string what);

  Launch* launch_ = nullptr;
  ThreadInfo info_{};
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  uint32_t barriers_ = 0;
  bool in_kernel_ = false;
  SharedMemory shared_;
  Fiber scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
};

// "norm.cu:31"
std::string Place(const std::source_location& where);

}  // namespace fairlead::simt
