// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/embed_call.h"

#include <utility>

#include "server/errors.h"

namespace fairlead {

void EmbedCall::OnRequest(grpc::ByteBuffer& bytes) {
  if (absl::Status status = ParseRequest(bytes, request_); !status.ok()) return Finish(status);
  const auto self = std::static_pointer_cast<EmbedCall>(shared_from_this());
  const absl::Status posted = service_.Run(request_.ByteSizeLong(), [self] { self->Start(); });
  if (!posted.ok()) Finish(posted);
}

void EmbedCall::Start() {
  if (abandoned()) return Finish(RequestCancelled());
  const auto self = std::static_pointer_cast<EmbedCall>(shared_from_this());
  const auto id =
      service_.Start(request_, abandoned(),
                     [self](const absl::StatusOr<EmbedAnswer>& answer) { self->Complete(answer); });
  if (!id.ok()) return Finish(id.status());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    id_ = *id;
  }
  if (abandoned()) service_.Cancel(*id);
}

void EmbedCall::OnAbandoned() {
  uint64_t id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    id = id_;
  }
  if (id != 0) service_.Cancel(id);
}

void EmbedCall::Complete(const absl::StatusOr<EmbedAnswer>& answer) {
  if (answer.ok()) {
    room_ = answer->room;
    pb::EmbedResponse response;
    response.set_model(service_.model().name);
    response.set_prompt_tokens(answer->prompt_tokens);
    for (size_t i = 0; i < answer->size(); ++i) {
      const absl::Span<const float> vector = (*answer)[i];
      response.add_embeddings()->mutable_values()->Add(vector.begin(), vector.end());
    }
    Send(response);
  }
  Finish(answer.status());
}

}  // namespace fairlead
