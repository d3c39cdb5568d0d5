// SPDX-License-Identifier: Apache-2.0
// Has the memory of the KV cache at hand before it is needed, where a system hands out pages when
// they are first touched: some milliseconds for each 2 MiB on a virtual machine, which a step would
// wait for. A thread of the lowest priority keeps a window populated ahead of the highest block in
// use, so an idle cache takes no more than that.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>

namespace fairlead {

class KvPages {
 public:
  // Of `bytes` from `data` on, which outlive this; as Device::Populate. Starts with the window.
  using Populate = std::function<bool(std::byte* data, size_t bytes)>;
  KvPages(std::byte* data, size_t bytes, size_t window, Populate populate);
  ~KvPages();  // waits for a call of Populate that runs
  KvPages(const KvPages&) = delete;
  KvPages& operator=(const KvPages&) = delete;

  // The first `bytes` may be in use by now. One thread; does not block or allocate.
  void Reached(size_t bytes);

  static constexpr size_t kStep = size_t{2} << 20;  // bytes of one call of Populate

 private:
  void Loop();

  std::byte* const data_;
  const size_t bytes_;
  const size_t window_;
  const Populate populate_;
  std::atomic<size_t> wanted_;  // bytes that should be populated; ~0: stop
  std::thread thread_;
};

// How far ahead: what the tokens of a few steps take, at least 64 MiB, at most an eighth of the
// cache.
size_t KvPagesWindow(size_t cache_bytes, size_t step_bytes);

}  // namespace fairlead
