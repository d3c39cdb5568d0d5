// SPDX-License-Identifier: Apache-2.0
// The one meaning of "generate": validate, template, tokenize, submit, detokenize. The gRPC and
// HTTP adapters translate bytes to proto messages and call this; they decide nothing themselves.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "fairlead/v1/inference.pb.h"
#include "runtime/engine.h"
#include "server/auth/keys.h"
#include "server/model_service.h"

namespace fairlead {

class Delivery;
class Metrics;

// One request's events, in order, from the thread that delivers them. Calls must not block; OnDone
// comes exactly once, last. A status other than OK before any event means that the request was
// refused.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void OnEvent(pb::GenerateEvent event) = 0;
  virtual void OnDone(const absl::Status& status) = 0;
};

class GenerateService : public ModelService {
 public:
  // service_threads render templates and tokenize, and one more what is large; another delivers
  // the events of requests that have no delivery of their own.
  GenerateService(ServedModel model, Engine& engine, Metrics& metrics, int service_threads);
  ~GenerateService();  // after Engine::Drain; waits for the last OnDone

  // Returns at once; the work happens on service threads. `deadline` is the client's. Events are
  // delivered by `delivery`, which outlives the sink, or by the service's own if that is null.
  uint64_t Start(pb::GenerateRequest request, const Principal& principal, absl::Time deadline,
                 std::shared_ptr<EventSink> sink, Delivery* delivery = nullptr);
  // Idempotent; the sink gets OnDone(kCancelled) unless it is done already.
  void Cancel(uint64_t id);

  // Choices that run or wait at most.
  int max_requests() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead
