// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/host_info.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace fairlead {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number at the start of a file; nothing for "max", garbage and missing files.
std::optional<int64_t> ReadNumber(const std::string& path) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadText(path)), &value) || value < 0) {
    return std::nullopt;
  }
  return value;
}

// The number after `key` in lines of "key value" or "key: value kB".
std::optional<int64_t> FindNumber(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    absl::ConsumePrefix(&line, ":");
    const absl::string_view number =
        *absl::StrSplit(absl::StripLeadingAsciiWhitespace(line), ' ').begin();
    int64_t value = 0;
    if (absl::SimpleAtoi(number, &value) && value >= 0) return value;
  }
  return std::nullopt;
}

// What differs between the two versions of the interface.
struct MemoryFiles {
  const char* limit;
  const char* usage;
  const char* droppable;  // key in memory.stat
};
constexpr MemoryFiles kMemoryV1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file "};
constexpr MemoryFiles kMemoryV2 = {"memory.max", "memory.current", "inactive_file "};

void ApplyMemory(const std::string& folder, const MemoryFiles& files, CgroupLimits& limits) {
  const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, "/", files.limit));
  const std::optional<int64_t> usage = ReadNumber(absl::StrCat(folder, "/", files.usage));
  if (!limit || !usage) return;
  const int64_t droppable =
      FindNumber(ReadText(absl::StrCat(folder, "/memory.stat")), files.droppable).value_or(0);
  const int64_t used = std::max<int64_t>(0, *usage - droppable);
  limits.memory_limit = std::min(limits.memory_limit, static_cast<size_t>(*limit));
  limits.memory_free =
      std::min(limits.memory_free, static_cast<size_t>(std::max<int64_t>(0, *limit - used)));
}

void ApplyCpuQuota(double quota, double period, CgroupLimits& limits) {
  if (quota <= 0 || period <= 0) return;
  const double cpus = quota / period;
  limits.cpus = limits.cpus == 0 ? cpus : std::min(limits.cpus, cpus);
}

void ApplyCpuV1(const std::string& folder, CgroupLimits& limits) {
  const std::optional<int64_t> quota = ReadNumber(absl::StrCat(folder, "/cpu.cfs_quota_us"));
  const std::optional<int64_t> period = ReadNumber(absl::StrCat(folder, "/cpu.cfs_period_us"));
  if (quota && period) ApplyCpuQuota(*quota, *period, limits);
}

void ApplyCpuV2(const std::string& folder, CgroupLimits& limits) {
  const std::string text = ReadText(absl::StrCat(folder, "/cpu.max"));
  const std::vector<absl::string_view> parts =
      absl::StrSplit(absl::StripAsciiWhitespace(text), ' ');
  double quota = 0;
  double period = 0;
  if (parts.size() == 2 && absl::SimpleAtod(parts[0], &quota) &&
      absl::SimpleAtod(parts[1], &period)) {
    ApplyCpuQuota(quota, period, limits);
  }
}

// The group's folder and those of its ancestors up to `root`. Inside a container the path may be
// that of the host and not exist here; `root` is then the container's own group.
template <typename Apply>
void ForEachAncestor(const std::string& root, absl::string_view path, Apply apply) {
  for (;;) {
    while (absl::ConsumeSuffix(&path, "/")) {
    }
    apply(absl::StrCat(root, path));
    if (path.empty()) return;
    path = path.substr(0, path.rfind('/') == path.npos ? 0 : path.rfind('/'));
  }
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& membership, const std::string& root) {
  CgroupLimits limits;
  for (const absl::string_view line : absl::StrSplit(membership, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) {
      ForEachAncestor(root, fields[2], [&](const std::string& folder) {
        ApplyMemory(folder, kMemoryV2, limits);
        ApplyCpuV2(folder, limits);
      });
      continue;
    }
    for (const absl::string_view controller : absl::StrSplit(fields[1], ',')) {
      const std::string mount = absl::StrCat(root, "/", controller);
      ForEachAncestor(mount, fields[2], [&](const std::string& folder) {
        if (controller == "memory") ApplyMemory(folder, kMemoryV1, limits);
        if (controller == "cpu") ApplyCpuV1(folder, limits);
      });
    }
  }
  return limits;
}

namespace {

CgroupLimits OwnLimits() {
  return ReadCgroupLimits(ReadText("/proc/self/cgroup"), "/sys/fs/cgroup");
}

size_t MemInfoBytes(absl::string_view key) {
  return static_cast<size_t>(FindNumber(ReadText("/proc/meminfo"), key).value_or(0)) * 1024;
}

}  // namespace

int UsableCpus() {
  cpu_set_t set;
  int cpus = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  const double quota = OwnLimits().cpus;
  if (quota > 0) cpus = std::min(cpus, static_cast<int>(std::ceil(quota)));
  return std::max(cpus, 1);
}

size_t TotalMemoryBytes() { return std::min(MemInfoBytes("MemTotal"), OwnLimits().memory_limit); }

size_t FreeMemoryBytes() { return std::min(MemInfoBytes("MemAvailable"), OwnLimits().memory_free); }

std::string CpuModelName() {
  const std::string text = ReadText("/proc/cpuinfo");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "model name")) continue;
    const size_t colon = line.find(':');
    if (colon != line.npos) return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "CPU";
}

}  // namespace fairlead
