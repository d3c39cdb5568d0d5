// SPDX-License-Identifier: Apache-2.0
#include "server/delivery.h"

#include <utility>

#include "kernels/thread_name.h"

namespace fairlead {

Delivery::Delivery() : thread_([this] { Loop(); }) {}

Delivery::~Delivery() {
  stop_.store(true);
  wake_ups_.fetch_add(1);
  wake_ups_.notify_one();
  thread_.join();
}

void Delivery::Wake(const std::shared_ptr<Item>& item) {
  if (item->queued_.exchange(true, std::memory_order_acq_rel)) return;
  item->keep_alive_ = item;
  item->next_ = head_.load(std::memory_order_relaxed);
  while (!head_.compare_exchange_weak(item->next_, item.get(), std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
  wake_ups_.fetch_add(1, std::memory_order_release);
  wake_ups_.notify_one();
}

void Delivery::Loop() {
  SetThreadName("delivery");
  while (true) {
    const uint32_t seen = wake_ups_.load(std::memory_order_acquire);
    Item* newest = head_.exchange(nullptr, std::memory_order_acquire);
    if (newest == nullptr) {
      if (stop_.load()) return;
      wake_ups_.wait(seen, std::memory_order_acquire);
      continue;
    }
    Item* oldest = nullptr;  // reversed: first come, first served
    while (newest != nullptr) {
      Item* next = newest->next_;
      newest->next_ = oldest;
      oldest = newest;
      newest = next;
    }
    while (oldest != nullptr) {
      Item* next = oldest->next_;
      const std::shared_ptr<Item> item = std::move(oldest->keep_alive_);
      // Cleared before the call: news that arrives during it queues the item again. An exchange,
      // not a store: it reads what a Wake that found the flag set has written, so this call sees
      // the news of that Wake.
      item->queued_.exchange(false, std::memory_order_acq_rel);
      item->Deliver();
      oldest = next;
    }
  }
}

}  // namespace fairlead
