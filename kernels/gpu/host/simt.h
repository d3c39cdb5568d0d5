// SPDX-License-Identifier: Apache-2.0
// A SIMT executor on CPU threads: what gpu.h maps to on a machine without a GPU. A launch runs its
// blocks on the machine's cores, one after another on each, and every GPU thread of a block on a
// fiber of its own: a fiber runs until it waits for its block (SyncThreads) or its warp (Exchange).
// Warps are of 32 or 64 lanes, as the caller says, so code that holds for one vendor alone shows.
//
// Always found, and a fault: threads that end or wait elsewhere while others wait for them, a
// shuffle from outside the warp or of a lane outside its mask. In code that is compiled with
// -fsanitize=thread and linked to access.cc, every access is looked at too: of shared memory for
// its variables' bounds, races and bytes that nobody wrote, of all other memory for the bounds of
// allocations. Not seen: calls of memcpy and memset, and races and unwritten bytes in global
// memory.
//
// Called from kernels: the functions that say "kernel". All others: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>

#include "absl/functional/function_ref.h"

namespace fairlead::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline constexpr int kMaxBlockThreads = 1024;
inline constexpr size_t kMaxSharedBytes = size_t{228} << 10;  // of a block, red zones included

struct LaunchArgs {
  const char* kernel;  // name, for faults
  Dim3 grid;
  int threads;              // of a block, 1 to kMaxBlockThreads
  size_t shared_bytes = 0;  // dynamic
  int warp;                 // 32 or 64
};

enum class FaultKind {
  kDivergentBarrier,  // not all threads of the block come to this SyncThreads
  kDivergentWarp,     // not all lanes of the mask come to this exchange
  kOutsideWarp,       // a shuffle from a lane that the warp does not have
  kOutsideMask,       // a lane that its own mask leaves out
  kSharedMemory,      // more than a block may have, or an access between its variables
  kUninitialised,     // shared memory that no thread of the block has written
  kRace,              // shared memory, two threads, one of them writing, no barrier between
  kGlobalMemory,      // an access outside of what was allocated
};

struct Fault {
  FaultKind kind;
  std::string kernel;
  Dim3 block;
  int thread = 0;
  std::string where;  // "norm.cu:31"
  std::string what;   // one sentence with the values

  std::string ToString() const;
};

// Runs body() for every thread of the grid. Returns the first fault; the grid has then stopped at
// some point. Launches of different threads take turns.
std::optional<Fault> TryLaunch(const LaunchArgs& args, absl::FunctionRef<void()> body);

// Says it on stderr and aborts.
[[noreturn]] void Die(const Fault& fault);

// Kernel: of the running thread. By value, as kernels may not look at the executor's memory.
int ThreadIndex();
int BlockThreads();
Dim3 BlockIndex();

// Kernel: waits for all threads of the block that have not ended.
void SyncThreads(const std::source_location& where);

// Kernel: waits for the lanes of `mask` (bit i: lane i; lanes that the block does not have do not
// count) and returns the value of lane `from`. All of them pass the same mask.
uint64_t Exchange(uint64_t value, int from, uint64_t mask, const std::source_location& where);
// Kernel: likewise; a bit for each lane of the mask whose predicate holds.
uint64_t Ballot(bool predicate, uint64_t mask, const std::source_location& where);
// Kernel: likewise of all lanes; when all have come, one of them calls work() with their values,
// and then all go on.
void Collective(uint64_t value, absl::FunctionRef<void(const uint64_t*)> work,
                const std::source_location& where);
// Kernel: likewise; orders the lanes' memory accesses.
void SyncWarp(uint64_t mask, const std::source_location& where);

// Kernel: the block's memory for the variable that `key` names, the same for all threads; not
// initialised.
void* SharedVariable(const void* key, size_t bytes, size_t align);
// Kernel: the launch's dynamic shared memory, 128-byte aligned.
void* DynamicShared();

}  // namespace fairlead::simt
