// SPDX-License-Identifier: Apache-2.0
#include "server/delivery.h"

#include <utility>

#include "kernels/thread_name.h"

namespace fairlead {

void Delivery::Queue(const std::shared_ptr<Item>& item) {
  if (item->queued_.exchange(true, std::memory_order_acq_rel)) return;
  item->keep_alive_ = item;
  item->next_ = head_.load(std::memory_order_relaxed);
  while (!head_.compare_exchange_weak(item->next_, item.get(), std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
}

void Delivery::Flush() {
  if (head_.load(std::memory_order_relaxed) != nullptr) Signal();
}

Delivery::~Delivery() {
  for (Item* item = TakeQueued(); item != nullptr;) {
    const std::shared_ptr<Item> last = std::move(item->keep_alive_);
    item = item->next_;
  }
}

Delivery::Item* Delivery::TakeQueued() {
  Item* newest = head_.exchange(nullptr, std::memory_order_acquire);
  Item* oldest = nullptr;  // reversed: first come, first served
  while (newest != nullptr) {
    Item* next = newest->next_;
    newest->next_ = oldest;
    oldest = newest;
    newest = next;
  }
  return oldest;
}

bool Delivery::DeliverQueued() {
  Item* oldest = TakeQueued();
  if (oldest == nullptr) return false;
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
  return true;
}

DeliveryThread::DeliveryThread() : thread_([this] { Loop(); }) {}

DeliveryThread::~DeliveryThread() {
  stop_.store(true);
  Signal();
  thread_.join();
}

void DeliveryThread::Signal() {
  wake_ups_.fetch_add(1, std::memory_order_release);
  wake_ups_.notify_one();
}

void DeliveryThread::Loop() {
  SetThreadName("delivery");
  while (true) {
    const uint32_t seen = wake_ups_.load(std::memory_order_acquire);
    if (DeliverQueued()) continue;
    if (stop_.load()) return;
    wake_ups_.wait(seen, std::memory_order_acquire);
  }
}

}  // namespace fairlead
