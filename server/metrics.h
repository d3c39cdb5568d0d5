// SPDX-License-Identifier: Apache-2.0
// Every metric, declared in one place (metrics.cc), prefix fairlead_. Thread-safe. No label carries
// a user or a prompt.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/telemetry.h"
#include "runtime/embedding_engine.h"
#include "runtime/engine.h"

namespace fairlead {

struct BuildInfo {
  std::string version, device, device_description, model, numerics;
};

class Metrics {
 public:
  explicit Metrics(const BuildInfo& build);
  ~Metrics();

  // Gauges and the engine's counters are read from here when somebody scrapes. `stats` must stay
  // callable.
  void SetEngine(std::function<EngineStats()> stats, int kv_block_tokens);
  // Instead of SetEngine, of a server that makes embeddings.
  void SetEmbeddingEngine(std::function<EmbeddingStats()> stats);
  // Likewise a device's telemetry, where it has some.
  void SetTelemetry(std::function<DeviceTelemetry()> telemetry);
  void SetDraining(bool draining);

  // reason: "stop", "length", "cancelled", "deadline", "rejected", "error".
  void RequestFinished(std::string_view reason);
  void ObserveTimeToFirstToken(double seconds);
  void ObserveInterTokenLatency(double seconds);
  void ObserveQueueTime(double seconds);
  void ObserveEndToEnd(double seconds);
  void ObservePromptTokens(int tokens);
  void ObserveGeneratedTokens(int tokens);
  // protocol: "http" or "grpc"; code: the HTTP status or the gRPC code's name.
  void Responded(std::string_view protocol, std::string_view route, std::string_view code);
  void AuthDenied(std::string_view protocol);
  void ConnectionOpened(std::string_view protocol);
  void ConnectionClosed(std::string_view protocol);

  // Prometheus text format 0.0.4.
  std::string Scrape();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead
