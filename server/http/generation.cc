// SPDX-License-Identifier: Apache-2.0
#include "server/http/generation.h"

#include <utility>

#include "server/errors.h"

namespace fairlead {

HttpResponse ErrorResponse(const absl::Status& status) {
  HttpResponse response{.status = HttpStatusOf(status), .body = DumpJson(ErrorBody(status))};
  if (response.status == 429 || response.status == 503)
    response.headers.emplace_back("Retry-After", "1");
  return response;
}

class HttpGeneration::PromptSink : public EventSink {
 public:
  PromptSink(std::shared_ptr<HttpGeneration> generation, int index)
      : generation_(std::move(generation)), index_(index) {}
  void OnEvent(pb::GenerateEvent event) override { generation_->OnEvent(index_, event); }
  void OnDone(const absl::Status& status) override { generation_->OnDone(index_, status); }

 private:
  const std::shared_ptr<HttpGeneration> generation_;
  const int index_;
};

HttpGeneration::HttpGeneration(GenerateService& service, std::shared_ptr<HttpExchange> exchange,
                               OpenAiRequest request, AnswerIdentity identity)
    : service_(service),
      exchange_(std::move(exchange)),
      request_(std::move(request)),
      headers_({{"X-Request-Id", identity.id}}),
      answer_(request_, std::move(identity)) {}

void HttpGeneration::Start(const Principal& principal, const std::string& request_id) {
  const auto self = shared_from_this();
  // What is streamed goes straight to the socket. A whole answer may be large: other connections of
  // this one's thread do not wait until it is made.
  const bool large = request_.prompts.front().output().has_prompt_logprobs();
  Delivery* delivery = request_.stream && !large ? &exchange_->delivery() : nullptr;
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    pb::GenerateRequest prompt = request_.prompts[i];
    prompt.set_request_id(request_id);
    const uint64_t id =
        service_.Start(std::move(prompt), principal, absl::InfiniteFuture(),
                       std::make_shared<PromptSink>(self, static_cast<int>(i)), delivery);
    bool over;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      service_ids_.push_back(id);
      over = over_;
    }
    if (!over) continue;
    service_.Cancel(id);
    return;
  }
  exchange_->OnAbandoned([self] {
    {
      const std::lock_guard<std::mutex> lock(self->mutex_);
      self->over_ = true;
    }
    self->CancelAll();
  });
}

void HttpGeneration::CancelAll() {
  std::vector<uint64_t> ids;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ids = service_ids_;
  }
  for (const uint64_t id : ids) service_.Cancel(id);
}

void HttpGeneration::Stream(const std::string& chunks) {
  if (!streaming_) {
    held_ += chunks;
    if (num_started_ < request_.prompts.size()) return;
    streaming_ = true;
    exchange_->StartStream(headers_);
    exchange_->Write(std::exchange(held_, {}));
    return;
  }
  exchange_->Write(chunks);
}

void HttpGeneration::OnEvent(int prompt_index, const pb::GenerateEvent& event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (over_) return;
  if (event.has_started()) ++num_started_;
  if (request_.stream) {
    Stream(answer_.Chunks(prompt_index, event));
  } else {
    answer_.Add(prompt_index, event);
  }
}

// With mutex_ held.
void HttpGeneration::Fail(absl::Status status) {
  over_ = true;
  for (const auto& [ours, theirs] : request_.renamed) status = RenameField(status, ours, theirs);
  if (streaming_) {
    exchange_->Write(OpenAiAnswer::ErrorChunks(ErrorBody(status)));
    exchange_->EndStream();
    return;
  }
  HttpResponse response = ErrorResponse(status);
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  exchange_->Respond(std::move(response));
}

void HttpGeneration::OnDone(int prompt_index, const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (over_) return;
    if (status.ok()) {
      if (++num_done_ < request_.prompts.size()) return;
      over_ = true;
      if (request_.stream) {
        exchange_->Write(answer_.LastChunks());
        exchange_->EndStream();
      } else {
        exchange_->Respond({.status = 200, .body = DumpJson(answer_.Body()), .headers = headers_});
      }
      return;
    }
    Fail(status);
  }
  CancelAll();
}

}  // namespace fairlead
