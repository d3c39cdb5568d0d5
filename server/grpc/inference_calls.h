// SPDX-License-Identifier: Apache-2.0
// The calls of fairlead.v1.Inference that generate: events of the service as messages of a stream,
// or as one answer.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "fairlead/v1/inference.pb.h"
#include "server/generate_service.h"
#include "server/grpc/call.h"

namespace fairlead {

// Where a call of Generate or GenerateOnce comes from.
struct GenerateContext {
  GenerateService* service;
  Principal principal;
  absl::Time deadline;
};

// Starts the request, and cancels it when the client leaves.
class GenerateCallBase : public GrpcCall {
 public:
  explicit GenerateCallBase(GenerateContext context) : context_(std::move(context)) {}

 private:
  class Sink;

  // As EventSink's.
  virtual void Receive(pb::GenerateEvent event) = 0;
  virtual void Complete(const absl::Status& status) = 0;

  void OnRequest(grpc::ByteBuffer& bytes) final;
  void OnAbandoned() final;

  const GenerateContext context_;
  uint64_t id_ = 0;  // guarded by mutex_; 0 until started
  bool left_ = false;
};

// Deltas that come while the client is slow are joined, so that what waits here is bounded by the
// number of choices and the tokens they may have, in few messages.
class GenerateCall final : public GenerateCallBase {
 public:
  using GenerateCallBase::GenerateCallBase;

 private:
  void Receive(pb::GenerateEvent event) override;
  void Complete(const absl::Status& status) override { Finish(status); }
  bool TakeMessage(grpc::ByteBuffer& out) override;
  bool Join(pb::GenerateEvent& event);

  std::deque<pb::GenerateEvent> events_;  // guarded by mutex_
};

class GenerateOnceCall final : public GenerateCallBase {
 public:
  using GenerateCallBase::GenerateCallBase;

 private:
  void Receive(pb::GenerateEvent event) override;
  void Complete(const absl::Status& status) override;
  bool TakeMessage(grpc::ByteBuffer& out) override;

  pb::GenerateResponse response_;      // the service's thread, until complete_
  std::map<int, pb::Choice> choices_;  // by index
  bool complete_ = false;              // guarded by mutex_: response_ is waiting to be written
};

}  // namespace fairlead
