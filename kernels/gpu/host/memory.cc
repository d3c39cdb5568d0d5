// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/host/memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

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
  void Remove(const void* data) {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    const auto at = ranges_.find(static_cast<const std::byte*>(data));
    if (at != ranges_.end()) ranges_.erase(at);
    ++version_;
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

}  // namespace

void* AllocateGlobal(size_t bytes) {
  constexpr size_t kAlign = 256;
  // A page's worth of nothing between two allocations, so that an overrun meets no neighbour.
  const size_t padded = (bytes + kAlign - 1) / kAlign * kAlign + 4096;
  void* data = std::aligned_alloc(kAlign, padded);
  if (data == nullptr) return nullptr;
  std::memset(data, 0, padded);
  AllRanges().Add(data, bytes);
  return data;
}

void FreeGlobal(void* data) {
  if (data == nullptr) return;
  AllRanges().Remove(data);
  std::free(data);
}

GlobalRange::GlobalRange(const void* data, size_t bytes) : data_(data) {
  AllRanges().Add(data, bytes);
}

GlobalRange::~GlobalRange() { AllRanges().Remove(data_); }

bool IsGlobal(const void* data, size_t bytes) { return AllRanges().Holds(data, bytes); }

}  // namespace fairlead::simt
