// SPDX-License-Identifier: Apache-2.0
#include "server/model_service.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/strings.h"
#include "server/errors.h"
#include "server/prepare.h"

namespace fairlead {
namespace {

constexpr size_t kMaxQueuedWork = 4096;
// Requests with more bytes than this take longer than a step of the engine to prepare.
constexpr size_t kLargeRequest = 64 << 10;
constexpr int kLargeNiceness = 10;

}  // namespace

ModelService::Threads::Threads(int count)
    : small("prepare", count, kMaxQueuedWork),
      large("prepare large", 1, kMaxQueuedWork, kLargeNiceness) {}

ModelService::ModelService(ServedModel model, int max_model_len, int service_threads)
    : model_(std::move(model)),
      max_model_len_(max_model_len),
      threads_(std::make_unique<Threads>(service_threads)) {}

void ModelService::StopThreads() {
  threads_->small.Stop();
  threads_->large.Stop();
}

absl::Status ModelService::Run(size_t bytes, std::function<void()> work) {
  WorkQueue& queue = bytes > kLargeRequest ? threads_->large : threads_->small;
  if (queue.TryPost(std::move(work))) return absl::OkStatus();
  return WithDetail(absl::ResourceExhaustedError(absl::StrCat(
                        "the server is busy: ", kMaxQueuedWork, " requests wait to be tokenized")),
                    "", "queue_full");
}

absl::StatusOr<pb::TokenizeResponse> ModelService::Tokenize(
    const pb::TokenizeRequest& request, const std::atomic<bool>& cancelled) const {
  if (absl::Status status = CheckModelName(model_, request.model()); !status.ok()) return status;
  if (model_.tokenizer == nullptr)
    return FieldError("prompt", "the server runs with --skip-tokenizer");
  std::vector<Token> tokens;
  if (request.has_chat()) {
    auto chat =
        RenderChat(model_, request.chat(), request.add_special_tokens(), {.cancelled = &cancelled});
    if (!chat.ok()) return chat.status();
    tokens = std::move(chat->tokens);
  } else if (request.input_case() == pb::TokenizeRequest::kText) {
    tokens = model_.tokenizer->Encode(
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
  response.set_max_model_len(max_model_len_);
  if (request.return_token_strs()) {
    for (const Token token : tokens)
      response.add_token_strs(std::string(model_.tokenizer->Spelling(token)));
  }
  return response;
}

absl::StatusOr<pb::DetokenizeResponse> ModelService::Detokenize(
    const pb::DetokenizeRequest& request) const {
  if (absl::Status status = CheckModelName(model_, request.model()); !status.ok()) return status;
  if (model_.tokenizer == nullptr)
    return FieldError("tokens", "the server runs with --skip-tokenizer");
  for (const int32_t token : request.tokens()) {
    if (token < 0 || token >= model_.vocab_size) {
      return FieldError("tokens", absl::StrCat("tokens holds ", token, "; the vocabulary has 0 to ",
                                               model_.vocab_size - 1));
    }
  }
  pb::DetokenizeResponse response;
  response.set_text(
      model_.tokenizer->Decode(absl::MakeConstSpan(request.tokens().data(), request.tokens_size()),
                               request.skip_special_tokens()));
  return response;
}

pb::ListModelsResponse ModelService::ListModels() const {
  pb::ListModelsResponse response;
  pb::ModelInfo& info = *response.add_models();
  info.set_id(model_.name);
  info.set_created(model_.created);
  info.set_max_model_len(max_model_len_);
  info.set_architecture(model_.architecture);
  info.set_parameters(model_.parameters);
  info.set_task(model_.dimensions > 0 ? "embed" : "generate");
  info.set_dimensions(model_.dimensions);
  return response;
}

absl::Status WrongTask(const ServedModel& model, std::string_view wanted) {
  const char* made_for = model.dimensions > 0 ? "makes embeddings" : "generates text";
  return WithDetail(absl::FailedPreconditionError(StrCat("the model '", model.name, "' ", made_for,
                                                         "; this request needs one that ", wanted)),
                    "model", "wrong_task");
}

}  // namespace fairlead
