// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/host/simt.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/host_info.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/gpu/host/block.h"

namespace fairlead::simt {
namespace {

constexpr size_t kStackBytes = size_t{64} << 10;

thread_local BlockRunner* t_runner = nullptr;

uint64_t Bit(int lane) { return uint64_t{1} << lane; }

std::string Mask(uint64_t mask) { return absl::StrCat("0x", absl::Hex(mask)); }

Dim3 BlockAt(const Dim3& grid, uint64_t i) {
  return {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
          static_cast<unsigned>(i / grid.x / grid.y)};
}

bool SamePlace(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

const char* KindName(FaultKind kind) {
  switch (kind) {
    case FaultKind::kDivergentBarrier:
      return "divergent barrier";
    case FaultKind::kDivergentWarp:
      return "divergent warp";
    case FaultKind::kOutsideWarp:
      return "outside the warp";
    case FaultKind::kOutsideMask:
      return "outside the mask";
    case FaultKind::kSharedMemory:
      return "shared memory";
    case FaultKind::kUninitialised:
      return "uninitialised shared memory";
    case FaultKind::kRace:
      return "race in shared memory";
    case FaultKind::kGlobalMemory:
      return "global memory";
  }
  FAIRLEAD_CHECK(false && "a FaultKind without a name");
}

// The cores that all launches share.
struct Machine {
  std::mutex mutex;
  // More would run into limits: of a process's mappings, two a fiber, and of a sanitizer's fibers.
  static constexpr int kMostCores = 8;
  ThreadPool pool{std::min(UsableCpus(), kMostCores)};
  std::vector<BlockRunner> runners = std::vector<BlockRunner>(pool.threads());
};

Machine& TheMachine() {
  static auto* machine = new Machine;  // its threads end with the process
  return *machine;
}

}  // namespace

std::string Place(const std::source_location& where) {
  const std::string_view file = where.file_name();
  return absl::StrCat(std::string(file.substr(file.rfind('/') + 1)), ":", where.line());
}

std::string Fault::ToString() const {
  return absl::StrCat(kernel, ": ", KindName(kind), ": block (", block.x, ", ", block.y, ", ",
                      block.z, "), thread ", thread, ", ", where, ": ", what);
}

std::optional<Fault> TryLaunch(const LaunchArgs& args, absl::FunctionRef<void()> body) {
  FAIRLEAD_CHECK(args.threads >= 1 && args.threads <= kMaxBlockThreads);
  FAIRLEAD_CHECK(args.warp == 32 || args.warp == 64);
  FAIRLEAD_CHECK(t_runner == nullptr && "a launch from within a kernel");
  Launch launch{.args = args, .body = body, .stopped = {}, .mutex = {}, .fault = {}};
  const uint64_t blocks = uint64_t{args.grid.x} * args.grid.y * args.grid.z;
  std::atomic<uint64_t> next{0};
  Machine& machine = TheMachine();
  const std::lock_guard<std::mutex> lock(machine.mutex);
  const auto tasks = static_cast<int64_t>(std::min<uint64_t>(blocks, machine.pool.threads()));
  machine.pool.ParallelFor(tasks, [&](int64_t task, int) {
    for (uint64_t i = next++; i < blocks && !launch.stopped.load(); i = next++) {
      machine.runners[task].Run(launch, BlockAt(args.grid, i));
    }
  });
  return std::move(launch.fault);
}

void Die(const Fault& fault) {
  std::fprintf(stderr, "fatal: %s\n", fault.ToString().c_str());
  std::abort();
}

BlockRunner::BlockRunner() = default;
BlockRunner::~BlockRunner() = default;

BlockRunner* BlockRunner::Current() { return t_runner; }

Fiber* BlockRunner::TakeFiber() {
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(kStackBytes, &BlockRunner::FiberMain));
    return fibers_.back().get();
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  fiber->Restart();
  return fiber;
}

void BlockRunner::FiberMain() {
  Fiber::Entered();
  t_runner->in_kernel_ = true;
  t_runner->launch_->body();
  t_runner->in_kernel_ = false;
  t_runner->lanes_[t_runner->current()].state = LaneState::kEnded;
  t_runner->Leave();
}

void BlockRunner::Leave() {
  Fiber& self = *lanes_[current()].fiber;
  Fiber::SwitchForGood(self, scheduler_);
  FAIRLEAD_CHECK(false && "a fiber that had ended ran again");
}

void BlockRunner::RunLane(int thread) {
  info_.thread = thread;
  Lane& lane = lanes_[thread];
  if (lane.fiber == nullptr) lane.fiber = TakeFiber();
  Fiber::Switch(scheduler_, *lane.fiber);
  if (lane.state == LaneState::kEnded) {
    idle_.push_back(lane.fiber);
    lane.fiber = nullptr;
  }
}

void BlockRunner::Run(Launch& launch, Dim3 block) {
  const int threads = launch.args.threads, warp = launch.args.warp;
  launch_ = &launch;
  info_ = {.thread = 0, .threads = threads, .block = block, .grid = launch.args.grid, .warp = warp};
  lanes_.assign(threads, Lane{});
  warps_.assign((threads + warp - 1) / warp, Warp{});
  for (int t = 0; t < threads; ++t) warps_[warp_of(t)].lanes |= Bit(t % warp);
  barriers_ = 0;
  shared_.Reset(launch.args.shared_bytes);
  t_runner = this;
  if (shared_.dynamic() == nullptr) {
    Record(FaultKind::kSharedMemory, 0, "launch",
           absl::StrCat(launch.args.shared_bytes, " bytes of dynamic shared memory; a block has ",
                        kMaxSharedBytes - 2 * SharedMemory::kRedZone));
  }
  while (!launch.stopped.load()) {
    if (RunReadyLanes() || ReleaseBarrier()) continue;
    const bool ended = std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) {
      return lane.state == LaneState::kEnded;
    });
    if (ended) break;
    ReportStuck();
  }
  t_runner = nullptr;
  for (Lane& lane : lanes_) {  // of a grid that has stopped
    if (lane.fiber != nullptr) idle_.push_back(lane.fiber);
  }
}

bool BlockRunner::RunReadyLanes() {
  bool any = false;
  for (size_t t = 0; t < lanes_.size(); ++t) {
    if (lanes_[t].state != LaneState::kReady) continue;
    any = true;
    RunLane(static_cast<int>(t));
    if (launch_->stopped.load()) return false;
  }
  return any;
}

bool BlockRunner::ReleaseBarrier() {
  const Lane* first = nullptr;
  for (const Lane& lane : lanes_) {
    if (lane.state == LaneState::kEnded) continue;
    if (lane.state != LaneState::kAtBarrier) return false;
    if (first == nullptr) first = &lane;
    if (!SamePlace(lane.waits, first->waits)) return false;
  }
  if (first == nullptr) return false;
  ++barriers_;
  for (Lane& lane : lanes_) {
    if (lane.state == LaneState::kAtBarrier) lane.state = LaneState::kReady;
  }
  return true;
}

// Nobody can go on: says who waits where, of the first lane that waits and one that it waits for.
void BlockRunner::ReportStuck() {
  const auto waits = std::find_if(lanes_.begin(), lanes_.end(),
                                  [](const Lane& lane) { return lane.state != LaneState::kEnded; });
  const int thread = static_cast<int>(waits - lanes_.begin());
  const bool in_warp = waits->state == LaneState::kInWarp;
  const auto other = std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& lane) {
    const int t = static_cast<int>(&lane - lanes_.data());
    if (in_warp) {
      const Warp& warp = warps_[warp_of(thread)];
      return warp_of(t) == warp_of(thread) &&
             (warp.mask & ~warp.arrived & Bit(t % info_.warp)) != 0;
    }
    return lane.state == LaneState::kInWarp ||
           (lane.state == LaneState::kAtBarrier && !SamePlace(lane.waits, waits->waits));
  });
  std::string what = in_warp ? "waits for its warp" : "waits for its block";
  if (other != lanes_.end()) {
    absl::StrAppend(&what, ", but thread ", other - lanes_.begin(),
                    other->state == LaneState::kEnded
                        ? std::string(" has ended")
                        : absl::StrCat(" waits at ", Place(other->waits)));
  }
  Record(in_warp ? FaultKind::kDivergentWarp : FaultKind::kDivergentBarrier, thread,
         Place(waits->waits), std::move(what));
}

void BlockRunner::Record(FaultKind kind, int thread, std::string where, std::string what) {
  const std::lock_guard<std::mutex> lock(launch_->mutex);
  launch_->stopped.store(true);
  if (launch_->fault) return;
  launch_->fault = Fault{.kind = kind,
                         .kernel = launch_->args.kernel,
                         .block = info_.block,
                         .thread = thread,
                         .where = std::move(where),
                         .what = std::move(what)};
}

void BlockRunner::Stop(FaultKind kind, std::string where, std::string what) {
  Record(kind, current(), std::move(where), std::move(what));
  Leave();
}

void BlockRunner::Wait(LaneState state, const std::source_location& where) {
  Lane& lane = lanes_[current()];
  lane.state = state;
  lane.waits = where;
  Fiber::Switch(*lane.fiber, scheduler_);
}

void BlockRunner::SyncThreads(const std::source_location& where) {
  Wait(LaneState::kAtBarrier, where);
}

void BlockRunner::CheckMask(uint64_t mask, const std::source_location& where) {
  const int lane = current() % info_.warp;
  if ((mask & Bit(lane)) != 0) return;
  Stop(FaultKind::kOutsideMask, Place(where),
       absl::StrCat("lane ", lane, " of a warp of ", info_.warp,
                    " takes part in an exchange of the lanes ", Mask(mask)));
}

const uint64_t* BlockRunner::Exchange(uint64_t value, uint64_t mask, bool sync,
                                      const std::source_location& where) {
  const int lane = current() % info_.warp;
  Warp& warp = warps_[warp_of(current())];
  CheckMask(mask, where);
  mask &= warp.lanes;
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.sync = sync;
    warp.where = where;
  } else if (warp.sync != sync || !SamePlace(warp.where, where)) {
    Stop(FaultKind::kDivergentWarp, Place(where),
         absl::StrCat("comes here while others of the warp are at ", Place(warp.where)));
  } else if (warp.mask != mask) {
    Stop(FaultKind::kDivergentWarp, Place(where),
         absl::StrCat("an exchange of the lanes ", Mask(mask),
                      " while others of the warp have one of ", Mask(warp.mask)));
  }
  const uint64_t* values = warp.value[warp.phase];
  warp.value[warp.phase][lane] = value;
  warp.arrived |= Bit(lane);
  if (warp.arrived != warp.mask) {
    Wait(LaneState::kInWarp, where);
    return values;
  }
  // The others read this half after they have gone on; the next exchange fills the other one.
  warp.phase ^= 1;
  warp.arrived = 0;
  if (sync) ++warp.syncs;
  const int first = warp_of(current()) * info_.warp;
  for (int i = 0; i < info_.warp; ++i) {
    if ((mask & Bit(i)) != 0 && i != lane) lanes_[first + i].state = LaneState::kReady;
  }
  return values;
}

bool BlockRunner::IsLastOfWarp() const {
  const Warp& warp = warps_[warp_of(current())];
  return (warp.arrived | Bit(current() % info_.warp)) == warp.lanes;
}

// ---- what kernels call

int ThreadIndex() { return t_runner->info().thread; }
int BlockThreads() { return t_runner->info().threads; }
Dim3 BlockIndex() { return t_runner->info().block; }

void SyncThreads(const std::source_location& where) {
  const BlockRunner::Pause pause(*t_runner);
  t_runner->SyncThreads(where);
}

uint64_t Exchange(uint64_t value, int from, uint64_t mask, const std::source_location& where) {
  const BlockRunner::Pause pause(*t_runner);
  const ThreadInfo& info = t_runner->info();
  t_runner->CheckMask(mask, where);
  if (from < 0 || from >= info.warp) {
    t_runner->Stop(FaultKind::kOutsideWarp, Place(where),
                   absl::StrCat("a shuffle from lane ", from, " of a warp of ", info.warp));
  }
  const int first = info.thread / info.warp * info.warp;
  if (first + from >= info.threads || (mask & Bit(from)) == 0) {
    t_runner->Stop(FaultKind::kOutsideWarp, Place(where),
                   absl::StrCat("a shuffle from lane ", from, ", which takes no part"));
  }
  return t_runner->Exchange(value, mask, false, where)[from];
}

uint64_t Ballot(bool predicate, uint64_t mask, const std::source_location& where) {
  const BlockRunner::Pause pause(*t_runner);
  const ThreadInfo& info = t_runner->info();
  const int first = info.thread / info.warp * info.warp;
  const int lanes = std::min(info.warp, info.threads - first);
  const uint64_t* values = t_runner->Exchange(predicate ? 1 : 0, mask, false, where);
  uint64_t ballot = 0;
  for (int i = 0; i < lanes; ++i) {
    if ((mask & Bit(i)) != 0 && values[i] != 0) ballot |= Bit(i);
  }
  return ballot;
}

void Collective(uint64_t value, absl::FunctionRef<void(const uint64_t*)> work,
                const std::source_location& where) {
  const BlockRunner::Pause pause(*t_runner);
  const bool last = t_runner->IsLastOfWarp();
  const uint64_t* values = t_runner->Exchange(value, ~uint64_t{0}, false, where);
  if (last) work(values);
}

void SyncWarp(uint64_t mask, const std::source_location& where) {
  const BlockRunner::Pause pause(*t_runner);
  t_runner->Exchange(0, mask, true, where);
}

void* SharedVariable(const void* key, size_t bytes, size_t align) {
  const BlockRunner::Pause pause(*t_runner);
  std::byte* data = t_runner->shared().Variable(key, bytes, align);
  if (data == nullptr) {
    t_runner->Stop(FaultKind::kSharedMemory, "a shared variable",
                   absl::StrCat(bytes, " bytes of shared memory beside ", t_runner->shared().used(),
                                "; a block has ", kMaxSharedBytes));
  }
  return data;
}

void* DynamicShared() { return t_runner->shared().dynamic(); }

}  // namespace fairlead::simt
