// SPDX-License-Identifier: Apache-2.0
// What the server does with a model whatever the model is for: says what it is, tokenizes, and has
// threads for what takes too long for a transport's. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fairlead/v1/inference.pb.h"
#include "models/chat_template.h"
#include "models/tokenizer.h"
#include "server/work_queue.h"

namespace fairlead {

namespace pb = ::fairlead::v1;

// What is served; everything outlives the service. tokenizer is null under --skip-tokenizer (token
// ids only).
struct ServedModel {
  std::string name;
  std::string architecture;
  int64_t parameters = 0;
  int64_t created = 0;  // unix seconds
  const Tokenizer* tokenizer = nullptr;
  const ChatFormat* chat_format = nullptr;
  int vocab_size = 0;
  int max_logprobs = 20;
  int dimensions = 0;  // of its embeddings; 0: it generates
};

class ModelService {
 public:
  // max_model_len: tokens of a request. service_threads for small requests; one more is for large
  // ones.
  ModelService(ServedModel model, int max_model_len, int service_threads);

  // May take long for megabytes of text: call them on Run's threads, not on a transport's.
  // kCancelled soon after `cancelled` becomes true.
  absl::StatusOr<pb::TokenizeResponse> Tokenize(const pb::TokenizeRequest& request,
                                                const std::atomic<bool>& cancelled) const;
  absl::StatusOr<pb::DetokenizeResponse> Detokenize(const pb::DetokenizeRequest& request) const;
  pb::ListModelsResponse ListModels() const;
  const ServedModel& model() const { return model_; }
  int max_model_len() const { return max_model_len_; }

  // Runs `work` for a request of so many bytes on a service thread; large requests have one of
  // their own, so that small ones do not wait for them. The queues are bounded: kResourceExhausted
  // when one is full.
  absl::Status Run(size_t bytes, std::function<void()> work);

 protected:
  ~ModelService() = default;
  // Runs what is queued and joins the threads; Run is no more. For destructors: what the work uses
  // must still be there.
  void StopThreads();

 private:
  struct Threads {
    explicit Threads(int count);
    WorkQueue small, large;
  };

  const ServedModel model_;
  const int max_model_len_;
  std::unique_ptr<Threads> threads_;
};

// A request for what the model is not made for, kFailedPrecondition. wanted: "generates text".
absl::Status WrongTask(const ServedModel& model, std::string_view wanted);

}  // namespace fairlead
