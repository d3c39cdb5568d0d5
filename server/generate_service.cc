// SPDX-License-Identifier: Apache-2.0
#include "server/generate_service.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/active_request.h"
#include "server/delivery.h"
#include "server/errors.h"
#include "server/metrics.h"
#include "server/prepare.h"
#include "server/work_queue.h"

namespace fairlead {
namespace {

constexpr size_t kMaxQueuedWork = 4096;
// Requests with more bytes than this take longer than a step of the engine to prepare.
constexpr size_t kLargeRequest = 64 << 10;
constexpr int kLargeNiceness = 10;

absl::Status BusyError() {
  return WithDetail(absl::ResourceExhaustedError(absl::StrCat(
                        "the server is busy: ", kMaxQueuedWork, " requests wait to be tokenized")),
                    "", "queue_full");
}

}  // namespace

class GenerateService::Impl {
 public:
  Impl(ServedModel model, Engine& engine, Metrics& metrics, int service_threads)
      : model(std::move(model)),
        engine_(engine),
        metrics_(metrics),
        work_("prepare", service_threads, kMaxQueuedWork),
        large_work_("prepare large", 1, kMaxQueuedWork, kLargeNiceness) {}

  ~Impl() {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return active_.empty(); });
  }

  uint64_t Start(pb::GenerateRequest request, const Principal& principal, absl::Time deadline,
                 std::shared_ptr<EventSink> sink, Delivery* delivery) {
    std::shared_ptr<ActiveRequest> active;
    uint64_t id;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      id = next_id_++;
      active = std::make_shared<ActiveRequest>(
          model, engine_, metrics_, delivery == nullptr ? delivery_ : *delivery, std::move(sink),
          deadline, principal.cache_salt, [this, id] { Forget(id); });
      active_.emplace(id, active);
    }
    const int n = request.has_n() ? request.n() : 1;
    if (n > max_requests() && n <= kMaxChoices) {
      active->Refuse(FieldError("n", absl::StrCat("n is ", n, "; this server holds at most ",
                                                  max_requests(), " choices at once")));
      return id;
    }
    if (request.request_id().empty())
      request.set_request_id(absl::StrCat("req-", absl::Hex(id, absl::kZeroPad8)));
    const size_t bytes = request.ByteSizeLong();
    const bool posted = Post(bytes, [this, active, request = std::move(request)] {
      if (active->cancelled()) return active->Refuse(RequestCancelled());
      absl::StatusOr<PreparedRequest> prepared = absl::InternalError("not prepared");
      try {
        prepared = PrepareRequest(
            model, request,
            {.max_model_len = engine_.max_model_len(), .cancelled = &active->cancelled()});
      } catch (const std::exception& error) {  // a library's: out of memory
        prepared = absl::InternalError(error.what());
      }
      if (prepared.ok()) {
        active->Submit(*std::move(prepared), model.name);
      } else {
        active->Refuse(prepared.status());
      }
    });
    if (!posted) active->Refuse(BusyError());
    return id;
  }

  void Cancel(uint64_t id) {
    std::shared_ptr<ActiveRequest> active;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = active_.find(id);
      if (found == active_.end()) return;
      active = found->second;
    }
    active->Cancel();
  }

  bool Post(size_t bytes, std::function<void()> work) {
    return (bytes > kLargeRequest ? large_work_ : work_).TryPost(std::move(work));
  }

  int max_model_len() const { return engine_.max_model_len(); }
  int max_requests() const { return engine_.max_requests(); }

  const ServedModel model;

 private:
  void Forget(uint64_t id) {
    std::shared_ptr<ActiveRequest> last;  // destroyed outside the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = active_.find(id);
    last = std::move(found->second);
    active_.erase(found);
    if (active_.empty()) idle_.notify_all();
  }

  Engine& engine_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::unordered_map<uint64_t, std::shared_ptr<ActiveRequest>> active_;
  uint64_t next_id_ = 1;
  DeliveryThread delivery_;
  WorkQueue work_, large_work_;  // last: their threads end first
};

GenerateService::GenerateService(ServedModel model, Engine& engine, Metrics& metrics,
                                 int service_threads)
    : impl_(std::make_unique<Impl>(std::move(model), engine, metrics, service_threads)) {}
GenerateService::~GenerateService() = default;

uint64_t GenerateService::Start(pb::GenerateRequest request, const Principal& principal,
                                absl::Time deadline, std::shared_ptr<EventSink> sink,
                                Delivery* delivery) {
  return impl_->Start(std::move(request), principal, deadline, std::move(sink), delivery);
}

void GenerateService::Cancel(uint64_t id) { impl_->Cancel(id); }

absl::Status GenerateService::Run(size_t bytes, std::function<void()> work) {
  return impl_->Post(bytes, std::move(work)) ? absl::OkStatus() : BusyError();
}

int GenerateService::max_requests() const { return impl_->max_requests(); }

const ServedModel& GenerateService::model() const { return impl_->model; }

absl::StatusOr<pb::TokenizeResponse> GenerateService::Tokenize(
    const pb::TokenizeRequest& request, const std::atomic<bool>& cancelled) const {
  const ServedModel& model = impl_->model;
  if (absl::Status status = CheckModelName(model, request.model()); !status.ok()) return status;
  if (model.tokenizer == nullptr)
    return FieldError("prompt", "the server runs with --skip-tokenizer");
  std::vector<Token> tokens;
  if (request.has_chat()) {
    auto chat =
        RenderChat(model, request.chat(), request.add_special_tokens(), {.cancelled = &cancelled});
    if (!chat.ok()) return chat.status();
    tokens = std::move(chat->tokens);
  } else if (request.input_case() == pb::TokenizeRequest::kText) {
    tokens = model.tokenizer->Encode(
        request.text(),
        {.add_special_tokens =
             request.has_add_special_tokens() ? request.add_special_tokens() : true,
         .parse_special = request.has_parse_special() ? request.parse_special() : true,
         .cancelled = &cancelled});
  } else {
    return FieldError("prompt", "prompt is missing");
  }
  if (cancelled) return RequestCancelled();
  pb::TokenizeResponse response;
  response.mutable_tokens()->Add(tokens.begin(), tokens.end());
  response.set_max_model_len(impl_->max_model_len());
  if (request.return_token_strs()) {
    for (const Token token : tokens)
      response.add_token_strs(std::string(model.tokenizer->Spelling(token)));
  }
  return response;
}

absl::StatusOr<pb::DetokenizeResponse> GenerateService::Detokenize(
    const pb::DetokenizeRequest& request) const {
  const ServedModel& model = impl_->model;
  if (absl::Status status = CheckModelName(model, request.model()); !status.ok()) return status;
  if (model.tokenizer == nullptr)
    return FieldError("tokens", "the server runs with --skip-tokenizer");
  for (const int32_t token : request.tokens()) {
    if (token < 0 || token >= model.vocab_size) {
      return FieldError("tokens", absl::StrCat("tokens holds ", token, "; the vocabulary has 0 to ",
                                               model.vocab_size - 1));
    }
  }
  pb::DetokenizeResponse response;
  response.set_text(
      model.tokenizer->Decode(absl::MakeConstSpan(request.tokens().data(), request.tokens_size()),
                              request.skip_special_tokens()));
  return response;
}

pb::ListModelsResponse GenerateService::ListModels() const {
  const ServedModel& model = impl_->model;
  pb::ListModelsResponse response;
  pb::ModelInfo& info = *response.add_models();
  info.set_id(model.name);
  info.set_created(model.created);
  info.set_max_model_len(impl_->max_model_len());
  info.set_architecture(model.architecture);
  info.set_parameters(model.parameters);
  return response;
}

}  // namespace fairlead
