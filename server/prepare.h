// SPDX-License-Identifier: Apache-2.0
// From a proto request to what the engine takes: validation, chat template, tokenizing. Pure
// functions of the served model: any thread. Every error names the field, the value and what is
// allowed.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fairlead/v1/inference.pb.h"
#include "runtime/request.h"
#include "server/generate_service.h"

namespace fairlead {

// Choices of one prompt.
inline constexpr int kMaxChoices = 128;

struct PreparedRequest {
  std::string request_id;
  EngineRequest engine;  // choice 0; choice i draws with seed + i
  int num_choices = 1;
  std::string echo_text;  // with echo
  std::vector<std::string> stop_strings;
  bool include_stop_text = false;
  bool skip_special_tokens = true;
  bool return_token_ids = false;
};

absl::Status CheckModelName(const ServedModel& model, const std::string& name);

struct PrepareLimits {
  int max_model_len = 0;  // a prompt that is much longer is refused or cut; 0: none is
  const std::atomic<bool>* cancelled = nullptr;  // once true, the tokens are of no use
};
absl::StatusOr<PreparedRequest> PrepareRequest(const ServedModel& model,
                                               const pb::GenerateRequest& request,
                                               const PrepareLimits& limits);

// The prompt's token ids of a chat, and its text.
struct ChatPrompt {
  std::string text;
  std::vector<Token> tokens;
};
absl::StatusOr<ChatPrompt> RenderChat(const ServedModel& model, const pb::ChatInput& chat,
                                      bool add_special_tokens, const PrepareLimits& limits);

}  // namespace fairlead
