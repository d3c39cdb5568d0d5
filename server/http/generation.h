// SPDX-License-Identifier: Apache-2.0
// An OpenAI generation over HTTP: starts every prompt of a request at the service, turns their
// events into one JSON answer or a stream, and cancels all of them when the client leaves.
// Thread-safe; lives as long as a prompt runs.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/generate_service.h"
#include "server/http/exchange.h"
#include "server/openai_request.h"
#include "server/openai_response.h"

namespace fairlead {

// The answer to a request that failed before anything was sent, with Retry-After where a retry
// makes sense.
HttpResponse ErrorResponse(const absl::Status& status);

class HttpGeneration : public std::enable_shared_from_this<HttpGeneration> {
 public:
  HttpGeneration(GenerateService& service, std::shared_ptr<HttpExchange> exchange,
                 OpenAiRequest request, AnswerIdentity identity);

  void Start(const Principal& principal, const std::string& request_id);

 private:
  class PromptSink;

  void OnEvent(int prompt_index, const pb::GenerateEvent& event);
  void OnDone(int prompt_index, const absl::Status& status);
  void CancelAll();
  void Fail(absl::Status status);
  void Stream(const std::string& chunks);

  GenerateService& service_;
  const std::shared_ptr<HttpExchange> exchange_;
  const OpenAiRequest request_;
  const HttpHeaders headers_;

  std::mutex mutex_;
  OpenAiAnswer answer_;
  std::vector<uint64_t> service_ids_;
  size_t num_started_ = 0, num_done_ = 0;
  std::string held_;        // chunks that wait until every prompt is accepted
  bool streaming_ = false;  // the status line is out
  bool over_ = false;       // answered, failed or abandoned
};

}  // namespace fairlead
