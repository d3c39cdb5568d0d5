// SPDX-License-Identifier: Apache-2.0
#include "server/http/loop.h"

#include <boost/asio/post.hpp>
#include <memory>

namespace fairlead {

// Gives a posted DeliverNow the one piece of memory that it needs.
template <typename T>
struct HttpLoop::LoopDelivery::Memory {
  using value_type = T;
  explicit Memory(LoopDelivery* owner) : owner(owner) {}
  template <typename U>
  Memory(const Memory<U>& other) : owner(other.owner) {}  // as allocators convert

  T* allocate(size_t n) {
    if (n * sizeof(T) <= kMemory && alignof(T) <= alignof(std::max_align_t))
      return reinterpret_cast<T*>(owner->memory_);
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, size_t n) {
    if (reinterpret_cast<std::byte*>(p) != owner->memory_) std::allocator<T>().deallocate(p, n);
  }
  friend bool operator==(const Memory& a, const Memory& b) { return a.owner == b.owner; }

  LoopDelivery* owner;
};

struct HttpLoop::LoopDelivery::DeliverNow {
  using allocator_type = Memory<DeliverNow>;
  allocator_type get_allocator() const { return allocator_type(delivery); }
  void operator()() const {
    // An exchange, for the reason given in DeliverQueued: this call sees what was queued by who
    // found the flag set.
    delivery->posted_.exchange(false, std::memory_order_acq_rel);
    delivery->DeliverQueued();
  }
  LoopDelivery* delivery;
};

void HttpLoop::LoopDelivery::Signal() {
  if (posted_.exchange(true, std::memory_order_acq_rel)) return;
  boost::asio::post(io_, DeliverNow{this});
}

}  // namespace fairlead
