// SPDX-License-Identifier: Apache-2.0
// OpenAI's request JSON, with the extension fields that vLLM's users know, as proto messages. Pure
// functions: any thread. Errors are kInvalidArgument with the field's name; value ranges are the
// service's business.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "fairlead/v1/inference.pb.h"
#include "models/json.h"

namespace fairlead {

namespace pb = ::fairlead::v1;

struct OpenAiRequest {
  bool is_chat = false;
  // One a prompt: a completion may hold several. Choices are numbered prompt * n + i.
  std::vector<pb::GenerateRequest> prompts;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool logprobs = false;  // the answer has a logprobs object
  int top_logprobs = 0;
  bool prompt_logprobs = false;  // the answer has prompt_logprobs
  bool echo = false;
  bool return_token_ids = false;
  bool tokens_as_ids = false;  // logprobs name tokens "token_id:123"
  // Fields that a later error is to name as the client did: the service's name, the client's.
  std::vector<std::pair<std::string, std::string>> renamed;
};

absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body);
absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body);
absl::StatusOr<pb::TokenizeRequest> ParseTokenizeRequest(const Json& body);
absl::StatusOr<pb::DetokenizeRequest> ParseDetokenizeRequest(const Json& body);

}  // namespace fairlead
