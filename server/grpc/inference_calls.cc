// SPDX-License-Identifier: Apache-2.0
#include "server/grpc/inference_calls.h"

#include <iterator>
#include <utility>

namespace fairlead {
namespace {

// A joined delta stays far below the 4 MiB that clients accept by default, logprobs included.
constexpr int kMaxJoinedTokens = 256;

void Append(pb::Delta& delta, pb::Delta& more) {
  delta.mutable_text()->append(more.text());
  delta.mutable_token_ids()->MergeFrom(more.token_ids());
  for (pb::TokenLogprob& logprob : *more.mutable_logprobs()) delta.add_logprobs()->Swap(&logprob);
  delta.set_num_tokens(delta.num_tokens() + more.num_tokens());
}

}  // namespace

// What the service holds: keeps the call alive until the last event.
class GenerateCallBase::Sink final : public EventSink {
 public:
  explicit Sink(std::shared_ptr<GenerateCallBase> call) : call_(std::move(call)) {}
  void OnEvent(pb::GenerateEvent event) override { call_->Receive(std::move(event)); }
  void OnDone(const absl::Status& status) override { call_->Complete(status); }

 private:
  const std::shared_ptr<GenerateCallBase> call_;
};

void GenerateCallBase::OnRequest(grpc::ByteBuffer& bytes) {
  pb::GenerateRequest request;
  if (absl::Status status = ParseRequest(bytes, request); !status.ok()) return Finish(status);
  auto sink =
      std::make_shared<Sink>(std::static_pointer_cast<GenerateCallBase>(shared_from_this()));
  const uint64_t id = context_.service->Start(std::move(request), context_.principal,
                                              context_.deadline, std::move(sink));
  bool left;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    id_ = id;
    left = left_;
  }
  if (left) context_.service->Cancel(id);
}

void GenerateCallBase::OnAbandoned() {
  uint64_t id;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    left_ = true;
    id = id_;
  }
  if (id != 0) context_.service->Cancel(id);
}

// True if the event has become part of one that waits already. Only what belongs to the same choice
// is in an order.
bool GenerateCall::Join(pb::GenerateEvent& event) {
  if (!event.has_delta()) return false;
  for (auto waiting = events_.rbegin(); waiting != events_.rend(); ++waiting) {
    if (!waiting->has_delta() || waiting->delta().choice() != event.delta().choice()) continue;
    if (waiting->delta().num_tokens() + event.delta().num_tokens() > kMaxJoinedTokens) return false;
    Append(*waiting->mutable_delta(), *event.mutable_delta());
    return true;
  }
  return false;
}

void GenerateCall::Receive(pb::GenerateEvent event) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!Join(event)) events_.push_back(std::move(event));
  }
  Pump();
}

bool GenerateCall::TakeMessage(grpc::ByteBuffer& out) {
  if (events_.empty()) return false;
  out = QueuedCall::Serialize(events_.front());
  events_.pop_front();
  return true;
}

void GenerateOnceCall::Receive(pb::GenerateEvent event) {
  switch (event.event_case()) {
    case pb::GenerateEvent::kStarted:
      response_.mutable_started()->Swap(event.mutable_started());
      break;
    case pb::GenerateEvent::kPromptLogprobs:
      response_.mutable_prompt_logprobs()->Swap(event.mutable_prompt_logprobs());
      break;
    case pb::GenerateEvent::kDelta: {
      pb::Choice& choice = choices_[event.delta().choice()];
      choice.mutable_text()->append(event.delta().text());
      choice.mutable_token_ids()->MergeFrom(event.delta().token_ids());
      for (pb::TokenLogprob& logprob : *event.mutable_delta()->mutable_logprobs())
        choice.add_logprobs()->Swap(&logprob);
      break;
    }
    case pb::GenerateEvent::kFinish:
      choices_[event.finish().choice()].mutable_finish()->Swap(event.mutable_finish());
      break;
    case pb::GenerateEvent::kUsage:
      response_.mutable_usage()->Swap(event.mutable_usage());
      break;
    case pb::GenerateEvent::EVENT_NOT_SET:
      break;
  }
}

void GenerateOnceCall::Complete(const absl::Status& status) {
  if (status.ok()) {
    for (auto& [index, choice] : choices_) {
      choice.set_index(index);
      response_.add_choices()->Swap(&choice);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    complete_ = true;
  }
  Finish(status);
}

bool GenerateOnceCall::TakeMessage(grpc::ByteBuffer& out) {
  if (!std::exchange(complete_, false)) return false;
  out = QueuedCall::Serialize(response_);
  return true;
}

}  // namespace fairlead
