// SPDX-License-Identifier: Apache-2.0
// Events of the service as OpenAI's answer: one JSON object, or the chunks of a stream. One HTTP
// exchange owns one; one thread at a time.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "fairlead/v1/inference.pb.h"
#include "models/json.h"
#include "server/openai_request.h"

namespace fairlead {

struct AnswerIdentity {
  std::string id;  // without the "chatcmpl-" or "cmpl-"
  std::string model;
  std::string fingerprint;
  int64_t created = 0;
  bool has_tokenizer = true;  // without one, tokens have no text
};

class OpenAiAnswer {
 public:
  OpenAiAnswer(const OpenAiRequest& request, AnswerIdentity identity);

  // Not streaming: collects.
  void Add(int prompt_index, const pb::GenerateEvent& event);
  // After the last event of every prompt.
  Json Body() const;

  // Streaming: the chunks an event makes, ready to be sent ("data: {...}\n\n"); may be empty.
  std::string Chunks(int prompt_index, const pb::GenerateEvent& event);
  // After the last event of every prompt: the usage chunk if asked for, and [DONE].
  std::string LastChunks() const;
  static std::string ErrorChunks(const Json& error_body);

  pb::Usage usage() const { return usage_; }

 private:
  struct Choice {
    std::string text;
    Json token_ids = Json::array();
    Json logprobs = Json::array();  // chat: entries of content; completions: see LegacyLogprobs
    Json prompt_logprobs;           // null unless asked for
    Json prompt_token_ids;          // null unless asked for
    Json finish_reason, stop_reason;
    bool role_sent = false;
    bool prompt_ids_sent = false;
  };

  int IndexOf(int prompt_index, int choice) const {
    return prompt_index * choices_per_prompt_ + choice;
  }
  Json Envelope(const char* chat_object, const char* completion_object) const;
  Json UsageJson() const;
  Json LogprobsOf(const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const;
  Json LegacyLogprobs(const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const;
  Json ChatLogprobs(const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const;
  std::string TokenName(const pb::TokenLogprob& token) const;
  // `more`: members of the chunk itself.
  std::string Chunk(Json choice, const Json& more = Json::object()) const;
  std::string DeltaChunks(int index, const pb::Delta& delta);
  std::string TextChunk(int index, const std::string& text) const;
  Json ChoiceBody(int index, const Choice& choice) const;
  void AddPromptLogprobs(int prompt_index, const pb::PromptLogprobs& event);

  const OpenAiRequest& request_;
  AnswerIdentity identity_;
  std::string chunk_head_;  // of a chunk with one choice, up to that choice's index
  int choices_per_prompt_;
  std::vector<Choice> choices_;
  pb::Usage usage_;
  int streamed_tokens_ = 0;
};

}  // namespace fairlead
