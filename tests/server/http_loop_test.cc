// SPDX-License-Identifier: Apache-2.0
// Delivery by an HTTP thread. This program counts what its threads allocate.
#include "server/http/loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "server/once_event.h"

namespace {
thread_local int allocations = 0;
}  // namespace

// Not inlined: GCC would see free() take what operator new gave, and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  void* data = std::malloc(bytes);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, size_t) noexcept { std::free(data); }

namespace fairlead {
namespace {

constexpr int kRounds = 5000;

struct Reader : Delivery::Item {
  void Deliver() override {
    thread = std::this_thread::get_id();
    seen = news.load(std::memory_order_relaxed);  // the order has to come from Wake
  }
  std::atomic<int> news{0};
  int seen = 0;
  std::thread::id thread;
};

class HttpLoopTest : public testing::Test {
 protected:
  ~HttpLoopTest() override {
    loop_.Stop();
    thread_.join();
  }
  HttpLoop loop_;
  std::thread thread_{[this] { loop_.Run(); }};
};

TEST_F(HttpLoopTest, DeliversTheLastNewsOfEveryItemOnItsThreadAndWakeAllocatesNothing) {
  constexpr int kProducers = 4;
  std::vector<std::shared_ptr<Reader>> readers;
  std::vector<int> allocated(kProducers);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    readers.push_back(std::make_shared<Reader>());
    producers.emplace_back([this, reader = readers.back(), &count = allocated[p]] {
      const int before = allocations;
      for (int round = 0; round < kRounds; ++round) {
        reader->news.fetch_add(1, std::memory_order_relaxed);
        loop_.delivery().Wake(reader);
      }
      count = allocations - before;
    });
  }
  for (std::thread& producer : producers) producer.join();
  // What was queued before is delivered before this.
  OnceEvent done;
  boost::asio::post(loop_.io(), [&done] { done.Notify(); });
  done.Wait();
  for (const auto& reader : readers) {
    EXPECT_EQ(reader->seen, kRounds);
    EXPECT_EQ(reader->thread, thread_.get_id());
  }
  EXPECT_EQ(allocated, std::vector<int>(kProducers, 0));
}

}  // namespace
}  // namespace fairlead
