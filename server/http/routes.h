// SPDX-License-Identifier: Apache-2.0
// The one list of HTTP routes: method, path, whether it needs a key, and what answers it.
// Immutable: any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/exchange.h"
#include "server/http/generation.h"
#include "server/metrics.h"
#include "server/services.h"

namespace fairlead {

// What handlers use; everything outlives the table.
struct RouteContext {
  Services services;
  Metrics& metrics;
  Json config;
  std::string version;
  std::string fingerprint;
  const std::atomic<bool>& ready;
};

class RouteTable {
 public:
  using Handler = void (*)(const RouteContext&, HttpRequest, std::shared_ptr<HttpExchange>);
  struct Route {
    const char* method;
    const char* path;  // ends with '*': a prefix
    bool is_public;
    Handler handler;
  };

  explicit RouteTable(RouteContext context) : context_(std::move(context)) {}

  static absl::Span<const Route> Routes();
  bool IsPublic(std::string_view method, std::string_view path) const;
  // 404 for an unknown path, 405 for a known path with another method.
  void Dispatch(HttpRequest request, std::shared_ptr<HttpExchange> exchange) const;
  // The route's path, or "unknown": a label that clients cannot make up.
  std::string_view MetricName(std::string_view path) const;

 private:
  RouteContext context_;
};

inline RouteTable MakeRoutes(RouteContext context) { return RouteTable(std::move(context)); }

}  // namespace fairlead
