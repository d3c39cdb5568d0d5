// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/amx.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fairlead {

// Linux keeps the tiles' state for a process that asks for it (arch_prctl(2),
// ARCH_REQ_XCOMP_PERM).
bool HasAmx([[maybe_unused]] uint32_t bits) {
#if defined(__x86_64__)
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & bits) != bits) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
#else
  return false;
#endif
}

}  // namespace fairlead
