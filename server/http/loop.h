// SPDX-License-Identifier: Apache-2.0
// What one HTTP thread runs: the connections it was given, and the delivery of their requests'
// news, so that the news of a step for all of them wakes the thread once and goes straight to the
// sockets.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>

#include "server/delivery.h"

namespace fairlead {

class HttpLoop {
 public:
  boost::asio::io_context& io() { return io_; }
  // Delivers on the loop's thread, which must run until the last item is gone.
  Delivery& delivery() { return delivery_; }

  void Run() { io_.run(); }    // until Stop
  void Stop() { io_.stop(); }  // any thread

 private:
  class LoopDelivery final : public Delivery {
   public:
    explicit LoopDelivery(boost::asio::io_context& io) : io_(io) {}

   private:
    struct DeliverNow;
    template <typename T>
    struct Memory;
    static constexpr size_t kMemory = 128;

    void Signal() override;

    boost::asio::io_context& io_;
    // Whether a DeliverNow is posted that has not begun; its memory is free before it begins.
    std::atomic<bool> posted_{false};
    alignas(std::max_align_t) std::byte memory_[kMemory];
  };

  LoopDelivery delivery_{io_};  // outlives what is posted
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      boost::asio::make_work_guard(io_)};
};

}  // namespace fairlead
