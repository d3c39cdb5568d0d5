// SPDX-License-Identifier: Apache-2.0
#include "server/openai_response.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/detokenizer.h"
#include "server/json_append.h"

namespace fairlead {
namespace {

// JSON has no -infinity; OpenAI's floor.
double FiniteLogprob(float logprob) { return std::max(static_cast<double>(logprob), -9999.0); }

Json Bytes(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json FinishReasonName(pb::FinishReason reason) {
  return reason == pb::FINISH_REASON_LENGTH ? "length" : "stop";
}

Json StopReason(const pb::Finish& finish) {
  switch (finish.matched_case()) {
    case pb::Finish::kStopString:
      return finish.stop_string();
    case pb::Finish::kStopTokenId:
      return finish.stop_token_id();
    default:
      return nullptr;
  }
}

Json PromptLogprobEntries(const pb::PromptLogprobs& event, bool has_tokenizer) {
  Json list = Json::array();
  for (const pb::TokenLogprob& token : event.tokens()) {
    if (token.rank() == 0) {
      list.push_back(nullptr);
      continue;
    }
    Json entry = Json::object();
    const auto add = [&entry, has_tokenizer](const pb::TokenLogprob& t) {
      entry[absl::StrCat(t.token())] = {
          {"logprob", FiniteLogprob(t.logprob())},
          {"rank", t.rank()},
          {"decoded_token", has_tokenizer ? Json(ReplaceInvalidUtf8(t.text())) : Json(nullptr)}};
    };
    add(token);
    for (const pb::TokenLogprob& top : token.top()) add(top);
    list.push_back(std::move(entry));
  }
  return list;
}

void Append(Json& list, Json more) {
  for (Json& item : more) list.push_back(std::move(item));
}

std::string Event(const Json& json) { return absl::StrCat("data: ", DumpJson(json), "\n\n"); }

}  // namespace

OpenAiAnswer::OpenAiAnswer(const OpenAiRequest& request, AnswerIdentity identity)
    : request_(request),
      identity_(std::move(identity)),
      choices_per_prompt_(request.prompts.front().has_n() ? std::max(request.prompts.front().n(), 1)
                                                          : 1),
      choices_(request.prompts.size() * static_cast<size_t>(choices_per_prompt_)) {
  std::string envelope = DumpJson(Envelope("chat.completion.chunk", "text_completion"));
  envelope.pop_back();  // the closing brace
  chunk_head_ = absl::StrCat("data: ", envelope, ",\"choices\":[{\"index\":");
}

std::string OpenAiAnswer::TokenName(const pb::TokenLogprob& token) const {
  return request_.tokens_as_ids || !identity_.has_tokenizer
             ? absl::StrCat("token_id:", token.token())
             : ReplaceInvalidUtf8(token.text());
}

Json OpenAiAnswer::ChatLogprobs(
    const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const {
  Json content = Json::array();
  for (const pb::TokenLogprob& token : tokens) {
    const auto entry = [this](const pb::TokenLogprob& t) {
      return Json{{"token", TokenName(t)},
                  {"logprob", FiniteLogprob(t.logprob())},
                  {"bytes", Bytes(t.text())}};
    };
    Json item = entry(token);
    item["top_logprobs"] = Json::array();
    for (const pb::TokenLogprob& top : token.top()) item["top_logprobs"].push_back(entry(top));
    content.push_back(std::move(item));
  }
  return content;
}

// Parallel arrays. The best tokens come as a map, which always holds the chosen token as well.
Json OpenAiAnswer::LegacyLogprobs(
    const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const {
  Json out = {{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  for (const pb::TokenLogprob& token : tokens) {
    out["tokens"].push_back(TokenName(token));
    out["text_offset"].push_back(token.text_offset());
    if (token.rank() == 0) {
      out["token_logprobs"].push_back(nullptr);
      out["top_logprobs"].push_back(nullptr);
      continue;
    }
    out["token_logprobs"].push_back(FiniteLogprob(token.logprob()));
    Json top = Json::object();
    for (const pb::TokenLogprob& best : token.top())
      top[TokenName(best)] = FiniteLogprob(best.logprob());
    top[TokenName(token)] = FiniteLogprob(token.logprob());
    out["top_logprobs"].push_back(std::move(top));
  }
  return out;
}

Json OpenAiAnswer::LogprobsOf(
    const google::protobuf::RepeatedPtrField<pb::TokenLogprob>& tokens) const {
  if (!request_.is_chat) return LegacyLogprobs(tokens);
  return Json{{"content", ChatLogprobs(tokens)}, {"refusal", nullptr}};
}

void OpenAiAnswer::AddPromptLogprobs(int prompt_index, const pb::PromptLogprobs& event) {
  for (int i = 0; i < choices_per_prompt_; ++i) {
    Choice& choice = choices_[IndexOf(prompt_index, i)];
    if (request_.prompt_logprobs)
      choice.prompt_logprobs = PromptLogprobEntries(event, identity_.has_tokenizer);
    if (request_.echo && request_.logprobs && !request_.is_chat) {
      choice.logprobs.push_back(LegacyLogprobs(event.tokens()));
    }
  }
}

void OpenAiAnswer::Add(int prompt_index, const pb::GenerateEvent& event) {
  switch (event.event_case()) {
    case pb::GenerateEvent::kStarted:
      if (!request_.return_token_ids) break;
      for (int i = 0; i < choices_per_prompt_; ++i) {
        const auto& ids = event.started().prompt_token_ids();
        choices_[IndexOf(prompt_index, i)].prompt_token_ids =
            std::vector<int32_t>(ids.begin(), ids.end());
      }
      break;
    case pb::GenerateEvent::kPromptLogprobs:
      AddPromptLogprobs(prompt_index, event.prompt_logprobs());
      break;
    case pb::GenerateEvent::kDelta: {
      Choice& choice = choices_[IndexOf(prompt_index, event.delta().choice())];
      choice.text += event.delta().text();
      for (const int32_t id : event.delta().token_ids()) choice.token_ids.push_back(id);
      if (event.delta().logprobs_size() > 0)
        choice.logprobs.push_back(LogprobsOf(event.delta().logprobs()));
      break;
    }
    case pb::GenerateEvent::kFinish: {
      Choice& choice = choices_[IndexOf(prompt_index, event.finish().choice())];
      choice.finish_reason = FinishReasonName(event.finish().reason());
      choice.stop_reason = StopReason(event.finish());
      break;
    }
    case pb::GenerateEvent::kUsage:
      usage_.set_prompt_tokens(usage_.prompt_tokens() + event.usage().prompt_tokens());
      usage_.set_completion_tokens(usage_.completion_tokens() + event.usage().completion_tokens());
      usage_.set_cached_prompt_tokens(usage_.cached_prompt_tokens() +
                                      event.usage().cached_prompt_tokens());
      break;
    case pb::GenerateEvent::EVENT_NOT_SET:
      break;
  }
}

Json OpenAiAnswer::Envelope(const char* chat_object, const char* completion_object) const {
  return Json{{"id", absl::StrCat(request_.is_chat ? "chatcmpl-" : "cmpl-", identity_.id)},
              {"object", request_.is_chat ? chat_object : completion_object},
              {"created", identity_.created},
              {"model", identity_.model},
              {"system_fingerprint", identity_.fingerprint}};
}

Json OpenAiAnswer::UsageJson() const {
  return Json{{"prompt_tokens", usage_.prompt_tokens()},
              {"completion_tokens", usage_.completion_tokens()},
              {"total_tokens", usage_.prompt_tokens() + usage_.completion_tokens()},
              {"prompt_tokens_details", {{"cached_tokens", usage_.cached_prompt_tokens()}}}};
}

Json OpenAiAnswer::ChoiceBody(int index, const Choice& choice) const {
  Json out = {{"index", index}};
  if (request_.is_chat) {
    out["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
  } else {
    out["text"] = choice.text;
  }
  out["logprobs"] = nullptr;
  if (request_.logprobs) {
    Json merged = request_.is_chat ? Json{{"content", Json::array()}, {"refusal", nullptr}}
                                   : Json{{"tokens", Json::array()},
                                          {"token_logprobs", Json::array()},
                                          {"top_logprobs", Json::array()},
                                          {"text_offset", Json::array()}};
    for (const Json& part : choice.logprobs) {
      for (const auto& [key, list] : part.items()) {
        if (list.is_array()) Append(merged[key], list);
      }
    }
    out["logprobs"] = std::move(merged);
  }
  out["finish_reason"] = choice.finish_reason;
  out["stop_reason"] = choice.stop_reason;
  if (request_.return_token_ids) {
    out["token_ids"] = choice.token_ids;
    if (!request_.is_chat) out["prompt_token_ids"] = choice.prompt_token_ids;
  }
  if (request_.prompt_logprobs) out["prompt_logprobs"] = choice.prompt_logprobs;
  return out;
}

Json OpenAiAnswer::Body() const {
  Json body = Envelope("chat.completion", "text_completion");
  body["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i)
    body["choices"].push_back(ChoiceBody(static_cast<int>(i), choices_[i]));
  body["usage"] = UsageJson();
  if (request_.return_token_ids && request_.is_chat)
    body["prompt_token_ids"] = choices_.front().prompt_token_ids;
  return body;
}

std::string OpenAiAnswer::Chunk(Json choice, const Json& more) const {
  Json chunk = Envelope("chat.completion.chunk", "text_completion");
  chunk["choices"] = Json::array({std::move(choice)});
  chunk.update(more);
  if (request_.continuous_usage) {
    const int completion = streamed_tokens_;
    chunk["usage"] = {{"prompt_tokens", usage_.prompt_tokens()},
                      {"completion_tokens", completion},
                      {"total_tokens", usage_.prompt_tokens() + completion}};
  } else if (request_.include_usage) {
    chunk["usage"] = nullptr;
  }
  return Event(chunk);
}

// The bytes of Chunk for a delta that is text alone, as nearly all are, without a tree of values.
std::string OpenAiAnswer::TextChunk(int index, const std::string& text) const {
  std::string chunk;
  chunk.reserve(chunk_head_.size() + text.size() + 128);
  absl::StrAppend(&chunk, chunk_head_, index,
                  request_.is_chat ? ",\"delta\":{\"content\":" : ",\"text\":");
  AppendJsonString(text, &chunk);
  absl::StrAppend(&chunk, request_.is_chat ? "}" : "",
                  ",\"logprobs\":null,\"finish_reason\":null}]",
                  request_.include_usage ? ",\"usage\":null" : "", "}\n\n");
  return chunk;
}

std::string OpenAiAnswer::DeltaChunks(int index, const pb::Delta& delta) {
  Choice& choice = choices_[index];
  streamed_tokens_ += delta.num_tokens();
  std::string chunks;
  // The role comes with the first token, not at admission: clients time the first chunk.
  if (request_.is_chat && !std::exchange(choice.role_sent, true)) {
    chunks += Chunk({{"index", index},
                     {"delta", {{"role", "assistant"}, {"content", ""}}},
                     {"logprobs", nullptr},
                     {"finish_reason", nullptr}});
  }
  if (delta.logprobs_size() == 0 && !request_.return_token_ids && !request_.continuous_usage)
    return chunks + TextChunk(index, delta.text());
  Json more = Json::object();
  Json out = {{"index", index}};
  if (request_.is_chat) {
    out["delta"] = {{"content", delta.text()}};
  } else {
    out["text"] = delta.text();
  }
  out["logprobs"] = nullptr;
  if (delta.logprobs_size() > 0) out["logprobs"] = LogprobsOf(delta.logprobs());
  out["finish_reason"] = nullptr;
  if (request_.return_token_ids) {
    out["token_ids"] = std::vector<int32_t>(delta.token_ids().begin(), delta.token_ids().end());
    if (!std::exchange(choice.prompt_ids_sent, true)) {
      (request_.is_chat ? more : out)["prompt_token_ids"] = choice.prompt_token_ids;
    }
  }
  return chunks + Chunk(std::move(out), more);
}

std::string OpenAiAnswer::Chunks(int prompt_index, const pb::GenerateEvent& event) {
  switch (event.event_case()) {
    case pb::GenerateEvent::kStarted:
      Add(prompt_index, event);
      if (request_.continuous_usage)
        usage_.set_prompt_tokens(usage_.prompt_tokens() + event.started().prompt_tokens());
      return "";
    case pb::GenerateEvent::kPromptLogprobs: {
      if (!request_.echo || !request_.logprobs || request_.is_chat) return "";
      std::string chunks;
      for (int i = 0; i < choices_per_prompt_; ++i) {
        const int index = IndexOf(prompt_index, i);
        chunks += Chunk({{"index", index},
                         {"text", ""},
                         {"logprobs", LegacyLogprobs(event.prompt_logprobs().tokens())},
                         {"finish_reason", nullptr}});
      }
      return chunks;
    }
    case pb::GenerateEvent::kDelta:
      return DeltaChunks(IndexOf(prompt_index, event.delta().choice()), event.delta());
    case pb::GenerateEvent::kFinish: {
      const int index = IndexOf(prompt_index, event.finish().choice());
      Json out = {{"index", index}};
      if (request_.is_chat) {
        // A choice without any token still has a role.
        out["delta"] = choices_[index].role_sent ? Json::object()
                                                 : Json{{"role", "assistant"}, {"content", ""}};
      } else {
        out["text"] = "";
      }
      out["logprobs"] = nullptr;
      out["finish_reason"] = FinishReasonName(event.finish().reason());
      out["stop_reason"] = StopReason(event.finish());
      return Chunk(std::move(out));
    }
    case pb::GenerateEvent::kUsage:
      if (request_.continuous_usage)
        usage_.set_prompt_tokens(usage_.prompt_tokens() - event.usage().prompt_tokens());
      Add(prompt_index, event);
      return "";
    case pb::GenerateEvent::EVENT_NOT_SET:
      return "";
  }
  return "";
}

std::string OpenAiAnswer::LastChunks() const {
  std::string chunks;
  if (request_.include_usage) {
    Json chunk = Envelope("chat.completion.chunk", "text_completion");
    chunk["choices"] = Json::array();
    chunk["usage"] = UsageJson();
    chunks = Event(chunk);
  }
  return chunks + "data: [DONE]\n\n";
}

std::string OpenAiAnswer::ErrorChunks(const Json& error_body) {
  return Event(error_body) + "data: [DONE]\n\n";
}

}  // namespace fairlead
