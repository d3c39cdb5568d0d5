// SPDX-License-Identifier: Apache-2.0
#include "server/active_request.h"

#include <algorithm>
#include <utility>

#include "server/errors.h"

namespace fairlead {
namespace {

// Word for fairlead_requests_finished_total.
std::string_view OutcomeOf(const absl::Status& status, bool stopped) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return stopped ? "stop" : "length";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kInternal:
      return "error";
    default:
      return "rejected";
  }
}

}  // namespace

ActiveRequest::ActiveRequest(const ServedModel& model, Engine& engine, Metrics& metrics,
                             Delivery& delivery, std::shared_ptr<EventSink> sink,
                             absl::Time deadline, uint64_t cache_salt,
                             std::function<void()> on_done)
    : model_(model),
      engine_(engine),
      metrics_(metrics),
      delivery_(delivery),
      sink_(std::move(sink)),
      deadline_(deadline),
      cache_salt_(cache_salt),
      on_done_(std::move(on_done)) {}

void ActiveRequest::MakeOpening(const PreparedRequest& prepared, const std::string& model_name) {
  pb::Started& started = *opening_.emplace_back().mutable_started();
  started.set_request_id(prepared.request_id);
  started.set_model(model_name);
  started.set_seed(static_cast<int64_t>(prepared.engine.sampling.seed));
  started.set_prompt_tokens(static_cast<int>(prepared.engine.prompt.size()));
  if (prepared.return_token_ids) {
    started.mutable_prompt_token_ids()->Add(prepared.engine.prompt.begin(),
                                            prepared.engine.prompt.end());
  }
  if (prepared.echo_text.empty()) return;
  for (int i = 0; i < prepared.num_choices; ++i) {
    pb::Delta& echo = *opening_.emplace_back().mutable_delta();
    echo.set_choice(i);
    echo.set_text(prepared.echo_text);
  }
}

// Submits; the client is told nothing yet: a full queue is an error status, not a broken
// stream.
void ActiveRequest::SubmitChoices(PreparedRequest& prepared) {
  const std::weak_ptr<ActiveRequest> self = weak_from_this();
  const ChoiceStream::Listener listener = {
      .news =
          [self, &delivery = delivery_] {
            if (const auto request = self.lock()) delivery.Queue(request);
          },
      // While a request is queued it lives, and so does its delivery.
      .flush =
          [self, &delivery = delivery_] {
            if (const auto request = self.lock()) delivery.Flush();
          }};
  for (int i = 0; i < prepared.num_choices; ++i) {
    EngineRequest request = prepared.engine;
    request.deadline = deadline_;
    request.cache_salt = cache_salt_;
    request.sampling.seed += static_cast<uint64_t>(i);
    if (i > 0) request.prompt_logprobs = -1;
    ChoiceOptions options{
        .index = i,
        .prompt = request.prompt_logprobs >= 0 ? request.prompt : std::vector<Token>(),
        .echo_text = prepared.echo_text,
        .stop_tokens = request.stop_tokens,
        .stop_strings = prepared.stop_strings,
        .max_tokens = request.max_tokens,
        .logprobs = request.logprobs,
        .prompt_logprobs = request.prompt_logprobs,
        .include_stop_text = prepared.include_stop_text,
        .skip_special_tokens = prepared.skip_special_tokens,
        .return_token_ids = prepared.return_token_ids};
    auto choice = std::make_unique<Choice>();
    choice->stream = std::make_shared<ChoiceStream>(std::move(options), model_.tokenizer, listener);
    absl::StatusOr<uint64_t> id = engine_.Submit(std::move(request), choice->stream);
    if (!id.ok()) {
      const bool queue_full = id.status().code() == absl::StatusCode::kResourceExhausted;
      error_ = WithDetail(id.status(), "", queue_full ? "queue_full" : "");
      break;
    }
    choice->engine_id = *id;
    choices_.push_back(std::move(choice));
  }
}

void ActiveRequest::Submit(PreparedRequest prepared, const std::string& model_name) {
  usage_.set_prompt_tokens(static_cast<int>(prepared.engine.prompt.size()));
  if (cancelled_) error_ = RequestCancelled();
  if (error_.ok()) SubmitChoices(prepared);
  if (error_.ok()) {
    metrics_.ObservePromptTokens(usage_.prompt_tokens());
    MakeOpening(prepared, model_name);
  } else {
    for (const auto& choice : choices_) CancelChoice(*choice);
  }
  HandOver();
}

void ActiveRequest::Refuse(const absl::Status& status) {
  error_ = status;
  HandOver();
}

// Tokens, or a Cancel, may have come before: their news is looked at now.
void ActiveRequest::HandOver() {
  handed_over_.store(true, std::memory_order_release);
  delivery_.Wake(shared_from_this());
}

// Takes no lock: a sink may call it from inside OnEvent or OnDone.
void ActiveRequest::Cancel() {
  cancelled_ = true;
  delivery_.Wake(shared_from_this());
}

void ActiveRequest::CancelChoice(Choice& choice) {
  if (!std::exchange(choice.cancelled, true)) engine_.Cancel(choice.engine_id);
}

void ActiveRequest::RecordTokens(Choice& choice) {
  std::vector<absl::Time>& times = choice.stream->new_token_times();
  for (const absl::Time time : times) {
    if (!first_token_seen_) {
      first_token_seen_ = true;
      metrics_.ObserveTimeToFirstToken(absl::ToDoubleSeconds(time - arrival_));
    }
    if (choice.last_token != absl::InfinitePast()) {
      metrics_.ObserveInterTokenLatency(absl::ToDoubleSeconds(time - choice.last_token));
    }
    choice.last_token = time;
  }
  times.clear();
}

void ActiveRequest::DeliverChoice(Choice& choice) {
  if (choice.closed) return;
  ChoiceStream::Progress progress = choice.stream->Take();
  RecordTokens(choice);
  if (!done_ && !choice.finished) {
    if (progress.prompt_logprobs) {
      pb::GenerateEvent event;
      *event.mutable_prompt_logprobs() = *std::move(progress.prompt_logprobs);
      sink_->OnEvent(std::move(event));
    }
    if (progress.delta) {
      pb::GenerateEvent event;
      *event.mutable_delta() = *std::move(progress.delta);
      sink_->OnEvent(std::move(event));
    }
    if (progress.finish) {
      choice.finished = true;
      usage_.set_completion_tokens(usage_.completion_tokens() +
                                   progress.finish->completion_tokens());
      metrics_.ObserveGeneratedTokens(progress.finish->completion_tokens());
      pb::GenerateEvent event;
      *event.mutable_finish() = *std::move(progress.finish);
      sink_->OnEvent(std::move(event));
    }
  }
  if (progress.stop_string_matched) CancelChoice(choice);
  if (!progress.closed) return;
  choice.closed = true;
  const EngineResult& result = choice.stream->result();
  usage_.set_cached_prompt_tokens(
      std::max(usage_.cached_prompt_tokens(), result.cached_prompt_tokens));
  if (result.first_scheduled != absl::InfinitePast()) {
    metrics_.ObserveQueueTime(absl::ToDoubleSeconds(result.first_scheduled - arrival_));
  }
  if (!choice.finished && error_.ok()) {
    error_ =
        result.status.ok() ? absl::InternalError("a choice ended without a finish") : result.status;
    for (const auto& other : choices_) CancelChoice(*other);
  }
}

void ActiveRequest::Complete(const absl::Status& status) {
  if (done_) return;
  done_ = true;
  if (status.ok()) {
    pb::GenerateEvent event;
    *event.mutable_usage() = usage_;
    sink_->OnEvent(std::move(event));
    metrics_.ObserveEndToEnd(absl::ToDoubleSeconds(absl::Now() - arrival_));
  }
  sink_->OnDone(status);
}

void ActiveRequest::Deliver() {
  if (!handed_over_.load(std::memory_order_acquire)) return;  // HandOver will wake it
  if (!error_.ok()) Complete(error_);                         // refused: before any event
  for (pb::GenerateEvent& event : std::exchange(opening_, {})) sink_->OnEvent(std::move(event));
  bool all_closed = true;
  bool all_finished = true;
  for (const auto& choice : choices_) {
    if (cancelled_) CancelChoice(*choice);
    DeliverChoice(*choice);
    all_closed &= choice->closed;
    all_finished &= choice->finished;
  }
  if (!error_.ok()) {
    Complete(error_);
  } else if (all_finished && all_closed) {  // the engine's results are part of the usage
    Complete(absl::OkStatus());
  }
  if (!all_closed || !done_) return;
  const std::function<void()> on_done = std::exchange(on_done_, nullptr);
  if (!on_done) return;
  const bool stopped = std::any_of(choices_.begin(), choices_.end(), [](const auto& choice) {
    return choice->stream->result().reason != FinishReason::kLength;
  });
  metrics_.RequestFinished(OutcomeOf(error_, stopped));
  on_done();
}

}  // namespace fairlead
