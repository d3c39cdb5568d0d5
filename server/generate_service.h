// SPDX-License-Identifier: Apache-2.0
// The one meaning of "generate": validate, template, tokenize, submit, detokenize. The gRPC and
// HTTP adapters translate bytes to proto messages and call this; they decide nothing themselves.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fairlead/v1/inference.pb.h"
#include "models/chat_template.h"
#include "models/tokenizer.h"
#include "runtime/engine.h"
#include "server/auth/keys.h"

namespace fairlead {

namespace pb = ::fairlead::v1;

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

// What is served; everything outlives the service. tokenizer is null under --skip-tokenizer (token
// ids only).
struct ServedModel {
  std::string name;
  std::string architecture;
  int64_t parameters = 0;
  int64_t created = 0;  // unix seconds
  const Tokenizer* tokenizer = nullptr;
  const ChatFormat* chat_format = nullptr;
  int vocab_size = 0;
  int max_logprobs = 20;
};

class GenerateService {
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

  // May take long for megabytes of text: call them on Run's threads, not on a transport's.
  // kCancelled soon after `cancelled` becomes true.
  absl::StatusOr<pb::TokenizeResponse> Tokenize(const pb::TokenizeRequest& request,
                                                const std::atomic<bool>& cancelled) const;
  absl::StatusOr<pb::DetokenizeResponse> Detokenize(const pb::DetokenizeRequest& request) const;
  pb::ListModelsResponse ListModels() const;
  const ServedModel& model() const;

  // Runs `work` for a request of so many bytes on a service thread; large requests have one of
  // their own, so that small ones do not wait for them. The queues are bounded: kResourceExhausted
  // when one is full.
  absl::Status Run(size_t bytes, std::function<void()> work);
  // Choices that run or wait at most.
  int max_requests() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fairlead
