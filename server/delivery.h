// SPDX-License-Identifier: Apache-2.0
// The way from the engine to the clients. The engine thread says "this item has news", which costs
// it next to nothing; a thread that belongs to the clients' side then calls the item. Wake-ups
// of one item that come before it is looked at are one call.
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
    virtual void Deliver() = 0;  // the delivering thread

   private:
    friend class Delivery;
    std::atomic<bool> queued_{false};
    Item* next_ = nullptr;
    std::shared_ptr<Item> keep_alive_;
  };

  virtual ~Delivery();  // lets go of what is queued

  // Any thread. Queue leaves it to a Flush that follows to wake the delivering thread.
  void Queue(const std::shared_ptr<Item>& item);
  void Flush();
  void Wake(const std::shared_ptr<Item>& item) {
    Queue(item);
    Flush();
  }

 protected:
  // Something is queued: DeliverQueued is to be called soon. Any thread; must
  // not allocate, nor wait for more than a lock that is held for a moment.
  virtual void Signal() = 0;
  // The delivering thread. False where nothing was queued.
  bool DeliverQueued();

 private:
  Item* TakeQueued();  // oldest first

  std::atomic<Item*> head_{nullptr};  // newest first
};

// With a thread of its own.
class DeliveryThread final : public Delivery {
 public:
  DeliveryThread();
  ~DeliveryThread() override;  // delivers what is queued, then joins

 private:
  void Signal() override;
  void Loop();

  std::atomic<uint32_t> wake_ups_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace fairlead
