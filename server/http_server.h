// SPDX-License-Identifier: Apache-2.0
// The HTTP/1.1 port: OpenAI's API, health and metrics. Owns its threads and connections.
// Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/json.h"
#include "server/auth/keys.h"
#include "server/auth/tls.h"
#include "server/http/connection.h"
#include "server/metrics.h"
#include "server/services.h"

namespace fairlead {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0 takes a free one
  int threads = 2;  // each with connections of its own; accepting has one more
  HttpLimits limits;
  const TlsIdentity* tls = nullptr;  // null: plain HTTP
  Json config;                       // what /config shows, secrets already hidden
  std::string version;
  std::string fingerprint;  // system_fingerprint of answers
};

class HttpServer {
 public:
  // Binds and serves. keys, the service and metrics outlive the server. kUnavailable when the
  // address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           const KeyStore& keys,
                                                           const Services& services,
                                                           Metrics& metrics);
  virtual ~HttpServer() = default;  // closes every connection, joins the threads

  virtual int port() const = 0;
  // /ready answers 503 until the first call with true, and after one with false. /health says that
  // the process lives.
  virtual void SetReady(bool ready) = 0;
  // Stops accepting, closes idle connections; answers in progress go on, each as its connection's
  // last.
  virtual void StopAccepting() = 0;
  // Waits until every connection is closed, at most until `deadline`; then closes the rest.
  virtual void Drain(absl::Time deadline) = 0;
};

struct RouteInfo {
  std::string method, path;
  bool is_public;
};
// Every route, for tests that must reach all of them.
std::vector<RouteInfo> HttpRoutes();

}  // namespace fairlead
