// SPDX-License-Identifier: Apache-2.0
// What this process may use of the machine: cores and memory, as the kernel and the container's
// limits say. Read at call time; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace fairlead {

inline constexpr size_t kNoMemoryLimit = std::numeric_limits<size_t>::max();

// Limits of control groups v1 and v2, the tightest of the group and its ancestors.
struct CgroupLimits {
  size_t memory_limit = kNoMemoryLimit;
  size_t memory_free = kNoMemoryLimit;  // limit - (usage - file cache that can be dropped)
  double cpus = 0;                      // quota / period; 0: none
};
// `membership` is the text of /proc/self/cgroup, `root` the folder /sys/fs/cgroup. What is missing
// or not readable sets no limit.
CgroupLimits ReadCgroupLimits(const std::string& membership, const std::string& root);

int UsableCpus();  // CPUs of the affinity mask, at most the quota rounded up; at least 1
size_t TotalMemoryBytes();
size_t FreeMemoryBytes();  // without swapping
std::string CpuModelName();

}  // namespace fairlead
