// SPDX-License-Identifier: Apache-2.0
// One HTTP/1.1 connection, plain or TLS: keep-alive, pipelining, Expect: 100-continue, size limits,
// deadlines for reading and writing, and notice of a client that leaves. All of it runs on the
// socket's executor, one call at a time.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "server/http/exchange.h"

namespace fairlead {

struct HttpLimits {
  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 32 << 20;
  size_t max_unsent_bytes = 64 << 20;  // of one stream whose client does not read
  int max_connections = 1024;
  std::chrono::milliseconds handshake_timeout{10'000};
  // From the first byte of a request to the end of its header.
  std::chrono::milliseconds header_timeout{20'000};
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds idle_timeout{75'000};   // between requests
  std::chrono::milliseconds write_timeout{30'000};  // without any progress
};

// Counts open connections and reaches them all; thread-safe.
class ConnectionHandle {
 public:
  virtual ~ConnectionHandle() = default;
  // Once; until then nothing is read. From then on it keeps itself alive until it is closed.
  virtual void Start() = 0;
  // Idle: closes. Busy: the answer in progress is the last one.
  virtual void CloseWhenIdle() = 0;
  virtual void CloseNow() = 0;
};

// A connection on an accepted socket whose executor runs one call at a time: a thread's loop or a
// strand. When it is gone `on_closed` has been called once. tls may be null. handler, limits, tls
// and delivery, which is on the same executor, outlive it.
std::shared_ptr<ConnectionHandle> MakeConnection(boost::asio::ip::tcp::socket socket,
                                                 boost::asio::ssl::context* tls,
                                                 HttpHandler& handler, const HttpLimits& limits,
                                                 Delivery& delivery,
                                                 std::function<void()> on_closed);

}  // namespace fairlead
