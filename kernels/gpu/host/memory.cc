// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/host/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "kernels/check.h"

namespace fairlead::simt {
namespace {

struct Range {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  bool Holds(const void* data, size_t bytes) const {
    const auto* at = static_cast<const std::byte*>(data);
    return at >= begin && at + bytes <= end;
  }
};

// All ranges by where they begin; they may overlap only by being the same.
class Ranges {
 public:
  void Add(const void* data, size_t bytes) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto* begin = static_cast<const std::byte*>(data);
    ranges_.emplace(begin, Range{begin, begin + bytes});
    ++version_;
  }
  size_t Remove(const void* data) {  // returns its bytes
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto at = ranges_.find(static_cast<const std::byte*>(data));
    FAIRLEAD_CHECK(at != ranges_.end());
    const size_t bytes = at->second.end - at->second.begin;
    ranges_.erase(at);
    ++version_;
    return bytes;
  }
  bool Holds(const void* data, size_t bytes) {
    // The last one found, as long as nothing has changed.
    thread_local Range t_last;
    thread_local uint64_t t_version = ~uint64_t{0};
    if (t_version == version_.load() && t_last.Holds(data, bytes)) return true;
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    auto after = ranges_.upper_bound(static_cast<const std::byte*>(data));
    while (after != ranges_.begin()) {
      --after;
      if (after->second.Holds(data, bytes)) {
        t_last = after->second;
        t_version = version_.load();
        return true;
      }
      if (after->second.begin != after->second.end) return false;
    }
    return false;
  }

 private:
  std::shared_mutex mutex_;
  std::multimap<const std::byte*, Range> ranges_;
  std::atomic<uint64_t> version_{0};
};

Ranges& AllRanges() {
  static auto* ranges = new Ranges;  // outlives every user
  return *ranges;
}

// Pages of its own, handed out by the system when they are touched. One more than needed, so that
// an overrun meets no neighbour.
size_t MappedBytes(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + 2 * page - 1) / page * page;
}

}  // namespace

void* AllocateGlobal(size_t bytes) {
  void* data = mmap(nullptr, MappedBytes(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  AllRanges().Add(data, bytes);
  return data;
}

void FreeGlobal(void* data) {
  if (data == nullptr) return;
  munmap(data, MappedBytes(AllRanges().Remove(data)));
}

GlobalRange::GlobalRange(const void* data, size_t bytes) : data_(data) {
  AllRanges().Add(data, bytes);
}

GlobalRange::~GlobalRange() { AllRanges().Remove(data_); }

bool IsGlobal(const void* data, size_t bytes) { return AllRanges().Holds(data, bytes); }

}  // namespace fairlead::simt
