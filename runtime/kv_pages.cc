// SPDX-License-Identifier: Apache-2.0
#include "runtime/kv_pages.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "kernels/thread_name.h"

namespace fairlead {
namespace {

constexpr size_t kStop = ~size_t{0};
constexpr int kLowestPriority = 19;

}  // namespace

KvPages::KvPages(std::byte* data, size_t bytes, size_t window, Populate populate)
    : data_(data),
      bytes_(bytes),
      window_(window),
      populate_(std::move(populate)),
      wanted_(std::min(bytes, window)) {
  thread_ = std::thread([this] { Loop(); });
}

KvPages::~KvPages() {
  wanted_.store(kStop);
  wanted_.notify_one();
  thread_.join();
}

void KvPages::Reached(size_t bytes) {
  const size_t wanted = std::min(bytes_, bytes + window_);
  const size_t before = wanted_.load(std::memory_order_relaxed);
  if (wanted < before + kStep && wanted != bytes_) return;
  if (wanted <= before) return;
  wanted_.store(wanted);
  wanted_.notify_one();
}

void KvPages::Loop() {
  SetThreadName("kv pages");
  setpriority(PRIO_PROCESS, 0, kLowestPriority);  // of this thread; a refusal costs little
  for (size_t done = 0; done < bytes_;) {
    const size_t wanted = wanted_.load();
    if (wanted == kStop) return;
    if (done >= wanted) {
      wanted_.wait(wanted);
      continue;
    }
    const size_t bytes = std::min(kStep, bytes_ - done);
    if (!populate_(data_ + done, bytes)) return;
    done += bytes;
  }
}

size_t KvPagesWindow(size_t cache_bytes, size_t step_bytes) {
  constexpr size_t kLeast = size_t{64} << 20, kSteps = 4;
  return std::min(cache_bytes / 8, std::max(kLeast, kSteps * step_bytes));
}

}  // namespace fairlead
