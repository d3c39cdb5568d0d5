// SPDX-License-Identifier: Apache-2.0
// The thread between the engine and the clients. The engine thread says "this item has news"
// without blocking or allocating; the delivery thread then calls the item. Wake-ups of one item
// that come before it is looked at are one call.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

namespace fairlead {

class Delivery {
 public:
  // Something that can have news. Kept alive by its own pointer while it is queued.
  class Item {
   public:
    virtual ~Item() = default;
    virtual void Deliver() = 0;  // delivery thread

   private:
    friend class Delivery;
    std::atomic<bool> queued_{false};
    Item* next_ = nullptr;
    std::shared_ptr<Item> keep_alive_;
  };

  Delivery();
  ~Delivery();  // delivers what is queued, then joins

  // Any thread; lock-free.
  void Wake(const std::shared_ptr<Item>& item);

 private:
  void Loop();

  std::atomic<Item*> head_{nullptr};  // newest first
  std::atomic<uint32_t> wake_ups_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace fairlead
