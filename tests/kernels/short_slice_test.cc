// SPDX-License-Identifier: Apache-2.0
#include "kernels/short_slice.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <thread>

namespace fairlead {
namespace {

// What sched_getattr(2) answers; runtime is the slice in ns, 0 from kernels that do not tell.
struct Attr {
  uint32_t size = 0, policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0, deadline = 0, period = 0;
};

Attr Mine() {
  Attr attr;
  EXPECT_EQ(syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0), 0);
  return attr;
}

TEST(ShortSlice, IsTheCallersAloneAndNothingElseChanges) {
  const Attr others = Mine();
  std::thread([] {
    const int nice = std::min(Mine().nice + 1, 19);
    ASSERT_EQ(setpriority(PRIO_PROCESS, 0, nice), 0);
    const Attr before = Mine();
    AskForShortSlice();
    const Attr after = Mine();
    EXPECT_EQ(after.policy, before.policy);
    EXPECT_EQ(after.nice, nice);
    EXPECT_EQ(after.flags, before.flags);
    // Kernels that tell a slice, from 6.12 on, take one.
    EXPECT_EQ(after.runtime, before.runtime == 0 ? 0u : 100'000u);
  }).join();
  EXPECT_EQ(Mine().runtime, others.runtime);
}

TEST(ShortSlice, AnotherPolicyStays) {
  std::thread([] {
    sched_param none = {};
    ASSERT_EQ(sched_setscheduler(0, SCHED_BATCH, &none), 0);
    const Attr before = Mine();
    AskForShortSlice();
    EXPECT_EQ(Mine().policy, static_cast<uint32_t>(SCHED_BATCH));
    EXPECT_EQ(Mine().runtime, before.runtime);
  }).join();
}

}  // namespace
}  // namespace fairlead
