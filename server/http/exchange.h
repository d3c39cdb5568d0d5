// SPDX-License-Identifier: Apache-2.0
// One HTTP request and the way to answer it: the seam between connections (bytes, TLS, timeouts)
// and handlers (JSON).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/auth/keys.h"
#include "server/delivery.h"

namespace fairlead {

struct HttpRequest {
  std::string method;      // "GET"
  std::string path;        // without the query
  std::string request_id;  // X-Request-Id, if the client sent a sane one
  std::string body;
  Principal principal;
};

// Ids that clients choose go back out in a header and into logs: visible ASCII of bounded length
// only.
bool IsSaneRequestId(std::string_view id);

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers = {};
  std::shared_ptr<const void> room = nullptr;  // kept until the answer is sent
};

// Thread-safe: every call is passed to the connection's executor. Either Respond once, or
// StartStream, any number of Write, and EndStream. When the client has gone, calls do nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  // Delivers where the connection runs: calls from there are carried out at once.
  virtual Delivery& delivery() = 0;
  virtual void Respond(HttpResponse response) = 0;
  // Status 200, text/event-stream. Writes of one turn, or while the socket is busy, leave together.
  virtual void StartStream(HttpHeaders headers) = 0;
  virtual void Write(std::string data) = 0;
  virtual void EndStream() = 0;
  // Called once, on the connection's executor, if the client leaves before the answer is complete;
  // at once if it already has.
  virtual void OnAbandoned(std::function<void()> callback) = 0;
  // Whether the client has left; work for it can end. As long as the exchange lives.
  virtual const std::atomic<bool>& abandoned() const = 0;
};

// What a connection asks of the server: thread-safe.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Before the body is read: nullopt with 401 as the answer, or the caller. Public requests need
  // no key.
  virtual std::optional<Principal> Authenticate(std::string_view method, std::string_view path,
                                                std::string_view authorization) = 0;
  // Open to everybody: such requests need no body worth the name. HEAD counts as GET.
  virtual bool IsPublic(std::string_view method, std::string_view path) const = 0;
  virtual void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) = 0;
  // Every answer is counted once; `path` may be anything a client sent.
  virtual void Answered(std::string_view path, int status) = 0;
  virtual bool draining() const = 0;
};

}  // namespace fairlead
