// SPDX-License-Identifier: Apache-2.0
// The call of fairlead.v1.Inference that embeds: one request, one answer, cancelled when the client
// leaves.
#pragma once

#include <memory>

#include "fairlead/v1/inference.pb.h"
#include "server/embed_service.h"
#include "server/grpc/call.h"

namespace fairlead {

class EmbedCall final : public QueuedCall {
 public:
  explicit EmbedCall(EmbedService& service) : service_(service) {}

 private:
  void OnRequest(grpc::ByteBuffer& bytes) override;
  void OnAbandoned() override;
  void Start();  // a service thread
  void Complete(const absl::StatusOr<EmbedAnswer>& answer);

  EmbedService& service_;
  pb::EmbedRequest request_;
  uint64_t id_ = 0;                   // guarded by mutex_; 0 until started
  std::shared_ptr<const void> room_;  // until the call is over, its answer sent
};

}  // namespace fairlead
