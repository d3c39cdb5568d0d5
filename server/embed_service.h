// SPDX-License-Identifier: Apache-2.0
// The one meaning of "embed": validate, tokenize, submit, cut and normalize. The gRPC and HTTP
// adapters translate bytes to proto messages and call this; they decide nothing themselves.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/embedding_engine.h"
#include "server/answer_room.h"
#include "server/embed_prepare.h"
#include "server/metrics.h"
#include "server/model_service.h"

namespace fairlead {

struct EmbedAnswer {
  int dimensions = 0;
  std::vector<float> values;  // [texts, dimensions]
  int64_t prompt_tokens = 0;
  // Whoever sends the answer keeps it until that is done: it is what bounds answers nobody reads.
  std::shared_ptr<const void> room = nullptr;

  size_t size() const { return values.size() / static_cast<size_t>(dimensions); }
  absl::Span<const float> operator[](size_t text) const {
    const auto count = static_cast<size_t>(dimensions);
    return absl::MakeConstSpan(values).subspan(text * count, count);
  }
};

class EmbedService : public ModelService {
 public:
  // Once, on a thread of the service for what is made of answers.
  using Done = std::function<void(absl::StatusOr<EmbedAnswer>)>;

  // engine and metrics outlive it. max_answer_bytes: of all answers, as JSON, until they are sent;
  // one that exceeds it may be alone.
  EmbedService(ServedModel model, EmbedTraits traits, EmbeddingEngine& engine, Metrics& metrics,
               int service_threads, size_t max_answer_bytes = size_t{512} << 20);
  ~EmbedService();  // after EmbeddingEngine::Drain; after the last Done

  // Tokenizes: call it on Run's threads, not on a transport's. On an error `done` is not called.
  // The vectors are all finite.
  absl::StatusOr<uint64_t> Start(const pb::EmbedRequest& request,
                                 const std::atomic<bool>& cancelled, Done done,
                                 const InputName& names = OpenAiInputName);
  // Idempotent; done(kCancelled) unless it is done already.
  void Cancel(uint64_t id);

 private:
  struct Active;

  void Complete(Active& active, const absl::StatusOr<std::vector<float>>& vectors);

  const EmbedTraits traits_;
  EmbeddingEngine& engine_;
  Metrics& metrics_;
  AnswerRoom room_;
  std::unique_ptr<WorkQueue> answers_;
};

}  // namespace fairlead
