// SPDX-License-Identifier: Apache-2.0
#include "server/delivery.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace fairlead {
namespace {

// Counts what a producer has published before it woke the item.
class Counter : public Delivery::Item {
 public:
  explicit Counter(std::atomic<int>* destroyed = nullptr) : destroyed_(destroyed) {}
  ~Counter() override {
    if (destroyed_ != nullptr) ++*destroyed_;
  }
  void Deliver() override {
    seen_ = published;  // not atomic: Wake has to make it visible
    ++calls_;
  }
  int published = 0;
  int seen() const { return seen_; }
  int calls() const { return calls_; }

 private:
  std::atomic<int>* destroyed_;
  int seen_ = 0, calls_ = 0;
};

TEST(Delivery, TheLastNewsIsAlwaysSeen) {
  // Relaxed: the order has to come from Wake.
  struct Published : Delivery::Item {
    void Deliver() override { last = count.load(std::memory_order_relaxed); }
    std::atomic<int> count{0};
    int last = 0;
  };
  constexpr size_t kItems = 16, kProducers = 4;
  constexpr int kRounds = 5000;
  std::vector<std::shared_ptr<Published>> items;
  for (size_t i = 0; i < kItems; ++i) items.push_back(std::make_shared<Published>());
  {
    DeliveryThread delivery;
    std::vector<std::thread> producers;
    for (size_t p = 0; p < kProducers; ++p) {
      producers.emplace_back([&, p] {
        for (int round = 0; round < kRounds; ++round) {
          for (size_t i = p; i < kItems; i += kProducers) {
            items[i]->count.fetch_add(1, std::memory_order_relaxed);
            delivery.Wake(items[i]);
          }
        }
      });
    }
    for (std::thread& producer : producers) producer.join();
  }
  for (const auto& item : items) EXPECT_EQ(item->last, kRounds);
}

TEST(Delivery, WakeMakesWhatWasWrittenVisible) {
  for (int round = 0; round < 200; ++round) {
    const auto item = std::make_shared<Counter>();
    {
      DeliveryThread delivery;
      item->published = 7;
      delivery.Wake(item);
    }
    EXPECT_EQ(item->seen(), 7);
    EXPECT_EQ(item->calls(), 1);
  }
}

TEST(Delivery, KeepsQueuedItemsAliveAndDeliversThemBeforeItEnds) {
  std::atomic<int> destroyed{0};
  {
    DeliveryThread delivery;
    for (int i = 0; i < 100; ++i) delivery.Wake(std::make_shared<Counter>(&destroyed));
  }
  EXPECT_EQ(destroyed.load(), 100);
}

}  // namespace
}  // namespace fairlead
