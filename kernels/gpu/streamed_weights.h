// SPDX-License-Identifier: Apache-2.0
// A device's weights that stay in host memory, in the order in which they were packed, which is
// taken for the order of their use. Thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace fairlead {

class StreamedWeights {
 public:
  static constexpr uint64_t kNone = 0;
  struct Entry {
    uint64_t id = kNone;  // never given twice
    const std::byte* host = nullptr;
    size_t bytes = 0;
  };

  uint64_t Add(const std::byte* host, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t id = ++last_id_;
    entries_[id] = {id, host, bytes};
    largest_ = std::max(largest_, bytes);
    return id;
  }
  void Remove(uint64_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.erase(id);
  }
  // The one after `id`, after the last the first; kNone where there is no other.
  Entry After(uint64_t id) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto next = entries_.upper_bound(id);
    if (next == entries_.end()) next = entries_.begin();
    return next == entries_.end() || next->first == id ? Entry{} : next->second;
  }
  // Bytes of the largest there has been.
  size_t largest() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return largest_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, Entry> entries_;
  uint64_t last_id_ = kNone;
  size_t largest_ = 0;
};

}  // namespace fairlead
