// SPDX-License-Identifier: Apache-2.0
#include "tests/guarded_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/ops.h"

namespace fairlead {
namespace {

constexpr size_t kAlignment = 64;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// The mapped buffers by address, and how many running ops have each one open. A buffer ends where
// its last page ends, up to its alignment, and a page that is never opened follows.
class GuardedMemory {
 public:
  // nullptr when the system has no more.
  void* Map(size_t bytes) {
    const size_t open_bytes = RoundUp(bytes, page_);
    void* base = mmap(nullptr, open_bytes + page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    auto* data = static_cast<std::byte*>(base) + open_bytes - RoundUp(bytes, kAlignment);
    const std::lock_guard lock(mutex_);
    regions_[data] = {static_cast<std::byte*>(base), open_bytes, bytes, 0};
    return data;
  }

  void Unmap(void* data) {
    const std::lock_guard lock(mutex_);
    const auto it = regions_.find(static_cast<std::byte*>(data));
    FAIRLEAD_CHECK(it != regions_.end());
    FAIRLEAD_CHECK(it->second.users == 0);
    munmap(it->second.base, it->second.open_bytes + page_);
    regions_.erase(it);
  }

  void Open(const void* pointer) { Use(pointer, +1); }
  void Close(const void* pointer) { Use(pointer, -1); }

 private:
  struct Region {
    std::byte* base;
    size_t open_bytes, bytes;
    int users;
  };

  void Use(const void* pointer, int change) {
    const auto* at = static_cast<const std::byte*>(pointer);
    const std::lock_guard lock(mutex_);
    auto it = regions_.upper_bound(const_cast<std::byte*>(at));
    FAIRLEAD_CHECK_MSG(it != regions_.begin(), absl::StrCat("not device memory: ", Address(at)));
    --it;
    Region& region = it->second;
    FAIRLEAD_CHECK_MSG(at <= it->first + region.bytes,
                       absl::StrCat("not device memory: ", Address(at)));
    const bool was_open = region.users > 0;
    region.users += change;
    const bool is_open = region.users > 0;
    if (was_open == is_open) return;
    FAIRLEAD_CHECK(mprotect(region.base, region.open_bytes,
                            is_open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
  }

  static std::string Address(const void* p) {
    return absl::StrCat("0x", absl::Hex(reinterpret_cast<uintptr_t>(p)));
  }

  const size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::mutex mutex_;
  std::map<std::byte*, Region> regions_;
};

// Opens the memory that an op or copy names for as long as it lives.
class OpenScope {
 public:
  OpenScope(GuardedMemory& memory, std::vector<const void*> pointers)
      : memory_(memory), pointers_(std::move(pointers)) {
    for (const void* p : pointers_) memory_.Open(p);
  }
  ~OpenScope() {
    for (const void* p : pointers_) memory_.Close(p);
  }
  OpenScope(const OpenScope&) = delete;
  OpenScope& operator=(const OpenScope&) = delete;

 private:
  GuardedMemory& memory_;
  std::vector<const void*> pointers_;
};

class GuardedStream : public Stream {
 public:
  GuardedStream(GuardedMemory& memory, std::mutex& execution, std::unique_ptr<Stream> inner)
      : memory_(memory),
        execution_(execution),
        inner_(std::move(inner)),
        thread_([this] { Run(); }) {}

  ~GuardedStream() override {
    Wait();
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // `touched`: every device pointer that the work names; null ones are left out.
  void Enqueue(std::vector<const void*> touched, std::function<void(Stream& inner)> work) {
    std::erase(touched, nullptr);
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(touched), std::move(work)});
  }

  void CopyToDevice(void* device, const void* host, size_t bytes) override {
    if (bytes == 0) return;
    Enqueue({device, static_cast<std::byte*>(device) + bytes},
            [=](Stream& inner) { inner.CopyToDevice(device, host, bytes); });
  }

  void CopyToHost(void* host, const void* device, size_t bytes) override {
    if (bytes == 0) return;
    std::memset(host, 0xcd, bytes);  // whoever reads it before Wait shall notice
    Enqueue({device, static_cast<const std::byte*>(device) + bytes},
            [=](Stream& inner) { inner.CopyToHost(host, device, bytes); });
  }

  void Wait() override {
    std::unique_lock lock(mutex_);
    released_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return queue_.empty() && !running_; });
    released_ = false;
  }

 private:
  struct Item {
    std::vector<const void*> touched;
    std::function<void(Stream& inner)> work;
  };

  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stop_ || (released_ && !queue_.empty()); });
      if (queue_.empty()) return;
      const Item item = std::move(queue_.front());
      queue_.pop_front();
      running_ = true;
      lock.unlock();
      {
        const std::lock_guard one_at_a_time(execution_);
        const OpenScope open(memory_, item.touched);
        item.work(*inner_);
        inner_->Wait();
      }
      lock.lock();
      running_ = false;
      if (queue_.empty()) changed_.notify_all();
    }
  }

  GuardedMemory& memory_;
  std::mutex& execution_;  // of the device: streams take turns, op by op
  std::unique_ptr<Stream> inner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  bool released_ = false;  // a Wait is in progress
  bool running_ = false;
  bool stop_ = false;
  std::thread thread_;  // last: starts when all else is there
};

// Args are captured by value: their tensors are views, and weights stay valid by contract.
class GuardedOps : public Ops {
 public:
  explicit GuardedOps(const Ops& inner) : inner_(inner) {}

#define FAIRLEAD_GUARDED_OP(name)                                       \
  void name(Stream& s, const name##Args& a) const override {            \
    Enqueue(s, a, [=, this](Stream& inner) { inner_.name(inner, a); }); \
  }
  FAIRLEAD_OPS(FAIRLEAD_GUARDED_OP)
#undef FAIRLEAD_GUARDED_OP

 private:
  template <typename Args>
  static void Enqueue(Stream& stream, const Args& args, std::function<void(Stream& inner)> work) {
    std::vector<const void*> touched;
    for (const Tensor& t : args.tensors()) touched.push_back(t.data);
    static_cast<GuardedStream&>(stream).Enqueue(std::move(touched), std::move(work));
  }

  const Ops& inner_;
};

class GuardedDevice : public Device {
 public:
  explicit GuardedDevice(std::unique_ptr<Device> inner)
      : inner_(std::move(inner)),
        info_(inner_->info()),
        guarded_ops_(inner_->ops()),
        checked_ops_(MakeCheckedOps(guarded_ops_)) {
    info_.name = "guarded";
    info_.description = absl::StrCat("guarded ", inner_->info().description);
  }

  const DeviceInfo& info() const override { return info_; }
  size_t FreeMemory() const override { return inner_->FreeMemory(); }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    void* data = bytes <= FreeMemory() ? memory_.Map(bytes) : nullptr;
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("guarded: ", bytes, " bytes do not fit in ", FreeMemory()));
    }
    return Buffer(data, bytes, [this](void* freed) { memory_.Unmap(freed); });
  }

  size_t KvBlockBytes(const KvShape& shape) const override { return inner_->KvBlockBytes(shape); }
  size_t PackedBytes(DType dtype, int64_t rows, int64_t cols, int groups) const override {
    return inner_->PackedBytes(dtype, rows, cols, groups);
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackWeight(const PackWeightArgs& args) override {
    const std::lock_guard one_at_a_time(execution_);
    return inner_->PackWeight(args);
  }

  std::unique_ptr<Stream> NewStream() override {
    return std::make_unique<GuardedStream>(memory_, execution_, inner_->NewStream());
  }

  const Ops& ops() const override { return *checked_ops_; }

 private:
  std::unique_ptr<Device> inner_;
  DeviceInfo info_;
  GuardedMemory memory_;
  std::mutex execution_;
  GuardedOps guarded_ops_;
  std::unique_ptr<Ops> checked_ops_;
};

}  // namespace

std::unique_ptr<Device> MakeGuardedDevice(std::unique_ptr<Device> inner) {
  return std::make_unique<GuardedDevice>(std::move(inner));
}

}  // namespace fairlead
