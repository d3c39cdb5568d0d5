// SPDX-License-Identifier: Apache-2.0
// The functions that a compiler calls before every access of code compiled with -fsanitize=thread
// (their names and signatures: LLVM's compiler-rt, tsan_interface.h, which GCC shares). Linked
// instead of the sanitizer's own library, they check what kernels touch: shared memory (its
// variables' bounds, races between barriers, reads of what nobody wrote) and global memory (the
// bounds of what was allocated). Code that runs outside of a kernel is not looked at.
#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/host/block.h"
#include "kernels/gpu/host/memory.h"

namespace fairlead::simt {
namespace {

[[maybe_unused]] const bool kChecked = g_accesses_checked = true;

// Where the process has its code and constants.
bool IsModule(const void* address) {
  struct Segments {
    std::vector<std::pair<uintptr_t, uintptr_t>> all;
    Segments() {
      dl_iterate_phdr(
          [](dl_phdr_info* info, size_t, void* self) {
            for (int i = 0; i < info->dlpi_phnum; ++i) {
              const auto& header = info->dlpi_phdr[i];
              const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
              if (header.p_type == PT_LOAD) {
                static_cast<Segments*>(self)->all.emplace_back(begin, begin + header.p_memsz);
              }
            }
            return 0;
          },
          this);
    }
  };
  static const auto* segments = new Segments;
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const auto& [begin, end] : segments->all) {
    if (at >= begin && at < end) return true;
  }
  return false;
}

// "norm.cu:31", by binutils' addr2line; without it the module and the offset.
std::string Place(const void* pc) {
  Dl_info info{};
  if (dladdr(pc, &info) == 0 || info.dli_fname == nullptr) return "unknown";
  const auto offset =
      reinterpret_cast<uintptr_t>(pc) - 1 - reinterpret_cast<uintptr_t>(info.dli_fbase);
  const std::string place = absl::StrCat(info.dli_fname, "+0x", absl::Hex(offset));
  const std::string command = absl::StrCat("addr2line -s -i -e '", info.dli_fname, "' 0x",
                                           absl::Hex(offset), " 2>/dev/null");
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return place;
  // The calls that were inlined, innermost first: the first that is not a helper of gpu.h.
  std::string found;
  for (char line[512]; fgets(line, sizeof(line), pipe) != nullptr;) {
    if (found.empty() || found.rfind("gpu.h:", 0) == 0)
      found.assign(line, std::strcspn(line, " \n"));
  }
  pclose(pipe);
  return !found.empty() && found[0] != '?' ? found : place;
}

void Check(const void* address, size_t bytes, bool write, const void* pc) {
  BlockRunner* block = BlockRunner::Current();
  if (block == nullptr || !block->in_kernel() || block->OnStack(address)) return;
  const BlockRunner::Pause pause(*block);
  const int thread = block->current();
  if (block->shared().Holds(address)) {
    const SharedMemory::Accessor by = {.thread = thread,
                                       .warp = block->warp_of(thread),
                                       .barriers = block->barriers(),
                                       .warp_syncs = block->warp_syncs(thread)};
    SharedMemory::Finding finding = write ? block->shared().Write(address, bytes, by)
                                          : block->shared().Read(address, bytes, by);
    if (!finding.what.empty()) block->Stop(finding.kind, Place(pc), std::move(finding.what));
    return;
  }
  if (IsGlobal(address, bytes) || (!write && IsModule(address))) return;
  block->Stop(
      FaultKind::kGlobalMemory, Place(pc),
      absl::StrCat(write ? "a write" : "a read", " of ", bytes, " bytes at 0x",
                   absl::Hex(reinterpret_cast<uintptr_t>(address)), ", which no allocation holds"));
}

}  // namespace
}  // namespace fairlead::simt

#define FAIRLEAD_ACCESS(kind, is_write, bytes)                                    \
  extern "C" void __tsan_##kind##bytes(void* address) {                           \
    fairlead::simt::Check(address, bytes, is_write, __builtin_return_address(0)); \
  }                                                                               \
  extern "C" void __tsan_unaligned_##kind##bytes(void* address) {                 \
    fairlead::simt::Check(address, bytes, is_write, __builtin_return_address(0)); \
  }
#define FAIRLEAD_ACCESSES(bytes)      \
  FAIRLEAD_ACCESS(read, false, bytes) \
  FAIRLEAD_ACCESS(write, true, bytes)
FAIRLEAD_ACCESSES(1)
FAIRLEAD_ACCESSES(2)
FAIRLEAD_ACCESSES(4)
FAIRLEAD_ACCESSES(8)
FAIRLEAD_ACCESSES(16)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* address, size_t bytes) {
  fairlead::simt::Check(address, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  fairlead::simt::Check(address, bytes, true, __builtin_return_address(0));
}
}

// Atomics of the C++ code around kernels, which have none. The order is the strictest.
#define FAIRLEAD_ATOMIC(bits)                                                                   \
  using Atomic##bits = uint##bits##_t;                                                          \
  extern "C" Atomic##bits __tsan_atomic##bits##_load(const volatile Atomic##bits* at, int) {    \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                               \
  }                                                                                             \
  extern "C" void __tsan_atomic##bits##_store(volatile Atomic##bits* at, Atomic##bits v, int) { \
    __atomic_store_n(at, v, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                             \
  FAIRLEAD_ATOMIC_RMW(bits, exchange, __atomic_exchange_n)                                      \
  FAIRLEAD_ATOMIC_RMW(bits, fetch_add, __atomic_fetch_add)                                      \
  FAIRLEAD_ATOMIC_RMW(bits, fetch_sub, __atomic_fetch_sub)                                      \
  FAIRLEAD_ATOMIC_RMW(bits, fetch_and, __atomic_fetch_and)                                      \
  FAIRLEAD_ATOMIC_RMW(bits, fetch_or, __atomic_fetch_or)                                        \
  FAIRLEAD_ATOMIC_RMW(bits, fetch_xor, __atomic_fetch_xor)                                      \
  FAIRLEAD_ATOMIC_CAS(bits, strong)                                                             \
  FAIRLEAD_ATOMIC_CAS(bits, weak)
#define FAIRLEAD_ATOMIC_RMW(bits, name, builtin)                                                  \
  extern "C" Atomic##bits __tsan_atomic##bits##_##name(volatile Atomic##bits* at, Atomic##bits v, \
                                                       int) {                                     \
    return builtin(at, v, __ATOMIC_SEQ_CST);                                                      \
  }
#define FAIRLEAD_ATOMIC_CAS(bits, name)                                              \
  extern "C" int __tsan_atomic##bits##_compare_exchange_##name(                      \
      volatile Atomic##bits* at, Atomic##bits* expected, Atomic##bits v, int, int) { \
    return __atomic_compare_exchange_n(at, expected, v, false, __ATOMIC_SEQ_CST,     \
                                       __ATOMIC_SEQ_CST);                            \
  }
FAIRLEAD_ATOMIC(8)
FAIRLEAD_ATOMIC(16)
FAIRLEAD_ATOMIC(32)
FAIRLEAD_ATOMIC(64)
extern "C" void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
