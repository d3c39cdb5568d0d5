// SPDX-License-Identifier: Apache-2.0
#include "server/embed_service.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/time/clock.h"
#include "server/errors.h"

namespace fairlead {
namespace {

// Below it, a vector's length counts as this (as torch.nn.functional.normalize's eps).
constexpr double kLeastLength = 1e-12;

// A float in JSON, with its comma, is seldom longer; base64 and protobuf are shorter.
constexpr size_t kBytesANumber = 14;

absl::Status NoRoom() {
  return absl::ResourceExhaustedError("the server is busy: clients have yet to read its answers");
}

// The first columns of each row of `size`, of length 1 if asked for. False where one is not finite.
bool MakeVectors(absl::Span<const float> rows, size_t size, bool normalize, EmbedAnswer& answer) {
  const auto count = static_cast<size_t>(answer.dimensions);
  answer.values.resize(rows.size() / size * count);
  float* out = answer.values.data();
  bool finite = true;
  for (; !rows.empty(); rows.remove_prefix(size), out += count) {
    double squares = 0;
    for (size_t i = 0; i < count; ++i) squares += static_cast<double>(rows[i]) * rows[i];
    finite = finite && std::isfinite(squares);
    const double scale = normalize ? 1 / std::max(std::sqrt(squares), kLeastLength) : 1;
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(rows[i] * scale);
  }
  return finite;
}

const char* ReasonOf(const absl::Status& status) {
  if (status.ok()) return "stop";
  if (absl::IsCancelled(status)) return "cancelled";
  return absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status) ||
                 absl::IsNotFound(status)
             ? "rejected"
             : "error";
}

}  // namespace

struct EmbedService::Active {
  absl::Time arrival = absl::Now();
  PreparedEmbed prepared;  // without the texts
  std::shared_ptr<const void> room;
  Done done;
};

EmbedService::EmbedService(ServedModel model, EmbedTraits traits, EmbeddingEngine& engine,
                           Metrics& metrics, int service_threads, size_t max_answer_bytes)
    : ModelService(std::move(model), traits.max_tokens, service_threads),
      traits_(std::move(traits)),
      engine_(engine),
      metrics_(metrics),
      room_(max_answer_bytes),
      // room_ bounds what comes here.
      answers_(
          std::make_unique<WorkQueue>("embed answers", 1, std::numeric_limits<size_t>::max())) {}

EmbedService::~EmbedService() {
  StopThreads();
  answers_ = nullptr;
}

absl::StatusOr<uint64_t> EmbedService::Start(const pb::EmbedRequest& request,
                                             const std::atomic<bool>& cancelled, Done done,
                                             const InputName& names) {
  const auto active = std::make_shared<Active>();
  absl::StatusOr<uint64_t> id = absl::InternalError("not started");
  try {
    auto prepared = PrepareEmbed(model(), traits_, request, cancelled, names);
    if (prepared.ok()) {
      std::vector<std::vector<Token>> texts = std::move(prepared->texts);
      active->prepared = *std::move(prepared);
      active->done = std::move(done);
      const auto columns = static_cast<size_t>(active->prepared.dimensions);
      active->room = room_.Take(texts.size() * columns * kBytesANumber);
      id = active->room == nullptr
               ? NoRoom()
               : engine_.Submit(
                     std::move(texts),
                     [this, active](absl::StatusOr<std::vector<float>> vectors) {
                       answers_->TryPost([this, active, vectors = std::move(vectors)] {
                         Complete(*active, vectors);
                       });
                     },
                     request.ByteSizeLong());
    } else {
      id = prepared.status();
    }
  } catch (const std::exception& error) {  // a library's: out of memory
    id = absl::InternalError(error.what());
  }
  if (id.ok()) return id;
  metrics_.RequestFinished(ReasonOf(id.status()));
  const bool full = absl::IsResourceExhausted(id.status());
  return full ? WithDetail(id.status(), "", "queue_full") : id.status();
}

void EmbedService::Cancel(uint64_t id) { engine_.Cancel(id); }

void EmbedService::Complete(Active& active, const absl::StatusOr<std::vector<float>>& vectors) {
  absl::StatusOr<EmbedAnswer> answer = absl::InternalError("no answer");
  try {
    if (vectors.ok()) {
      answer = EmbedAnswer{.dimensions = active.prepared.dimensions,
                           .values = {},
                           .prompt_tokens = active.prepared.prompt_tokens,
                           .room = std::move(active.room)};
      if (!MakeVectors(*vectors, static_cast<size_t>(model().dimensions), active.prepared.normalize,
                       *answer))
        answer = absl::InternalError("the model's vector is not finite");
    } else {
      answer = vectors.status();
    }
  } catch (const std::exception& error) {  // out of memory
    answer = absl::InternalError(error.what());
  }
  metrics_.RequestFinished(ReasonOf(answer.status()));
  if (answer.ok()) {
    metrics_.ObserveEndToEnd(absl::ToDoubleSeconds(absl::Now() - active.arrival));
    metrics_.ObservePromptTokens(static_cast<int>(active.prepared.prompt_tokens));
  }
  try {
    active.done(std::move(answer));
  } catch (const std::exception& error) {  // out of memory: what it would have sent was not sent
    active.done(absl::InternalError(error.what()));
  }
}

}  // namespace fairlead
