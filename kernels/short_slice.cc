// SPDX-License-Identifier: Apache-2.0
#include "kernels/short_slice.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace fairlead {
namespace {

// The kernel's `struct sched_attr`, first version: glibc declares it from 2.41 on.
struct SchedAttr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;  // ns
};

constexpr uint64_t kShortest = 100'000;  // the least that Linux takes

}  // namespace

void AskForShortSlice() {
  SchedAttr attr = {};
  if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) != 0) return;
  if (attr.policy != SCHED_OTHER) return;
  attr.size = sizeof(attr);
  attr.runtime = kShortest;
  syscall(SYS_sched_setattr, 0, &attr, 0);
}

}  // namespace fairlead
