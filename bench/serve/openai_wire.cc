// SPDX-License-Identifier: Apache-2.0
#include "bench/serve/openai_wire.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace fairlead::serve_bench {
namespace {

constexpr size_t kMessageBytes = 200;

// The text of a choice of either API; reasoning counts, since it is made of tokens.
std::string TextOf(const Json& choice) {
  std::string text;
  const auto add = [&text](const Json& object, const char* key) {
    if (const auto it = object.find(key); it != object.end() && it->is_string())
      text += it->get_ref<const std::string&>();
  };
  add(choice, "text");
  if (const auto delta = choice.find("delta"); delta != choice.end() && delta->is_object()) {
    add(*delta, "reasoning_content");
    add(*delta, "reasoning");
    add(*delta, "content");
  }
  return text;
}

bool HasToolCalls(const Json& choice) {
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  const auto calls = delta->find("tool_calls");
  return calls != delta->end() && calls->is_array() && !calls->empty();
}

// A count that is absent, null or no integer is 0.
int CountIn(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int>() : 0;
}

}  // namespace

void Fail(Record& record, std::string kind, std::string message) {
  if (record.outcome == Outcome::kError) return;
  record.outcome = Outcome::kError;
  record.error_kind = std::move(kind);
  record.error_message = std::move(message);
}

std::string ErrorMessage(std::string_view body) {
  if (const absl::StatusOr<Json> json = ParseJson(body); json.ok() && json->is_object()) {
    const Json& error = json->contains("error") ? (*json)["error"] : *json;
    if (error.is_string()) return error.get<std::string>();
    if (error.is_object() && error.contains("message") && error["message"].is_string())
      return error["message"].get<std::string>();
  }
  return std::string(body.substr(0, kMessageBytes));
}

const char* PathOf(const Request& request) {
  return std::holds_alternative<Chat>(request.prompt) ? "/v1/chat/completions" : "/v1/completions";
}

std::string BodyOf(const Request& request, const TargetOptions& options) {
  Json body = {{"model", options.model}};
  if (const auto* ids = std::get_if<TokenIds>(&request.prompt)) {
    body["prompt"] = *ids;
  } else if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    body["prompt"] = *text;
  } else {
    body["messages"] = Json::array();
    for (const ChatMessage& message : std::get<Chat>(request.prompt))
      body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  body["max_tokens"] = request.max_tokens;
  body["temperature"] = options.temperature;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  if (options.return_token_ids || request.wants_answer_ids) body["return_token_ids"] = true;
  body.update(options.extra_body);
  return DumpJson(body);
}

void AnswerReader::OnData(std::string_view data, Time now) {
  if (failed() || done_) return;
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  const absl::StatusOr<Json> event = ParseJson(data);
  if (!event.ok() || !event->is_object()) {
    return Fail(
        record_, "protocol",
        absl::StrCat("an event is no JSON object: ", std::string(data.substr(0, kMessageBytes))));
  }
  if (const auto error = event->find("error"); error != event->end() && !error->is_null())
    return Fail(record_, "stream_error", ErrorMessage(data));
  if (const auto choices = event->find("choices"); choices != event->end() && choices->is_array()) {
    for (const Json& choice : *choices) {
      if (choice.is_object()) ReadChoice(choice, now);
    }
  }
  if (const auto usage = event->find("usage"); usage != event->end() && usage->is_object())
    ReadUsage(*usage);
}

void AnswerReader::ReadChoice(const Json& choice, Time now) {
  const std::string text = TextOf(choice);
  bool has_ids = false;
  if (const auto ids = choice.find("token_ids"); ids != choice.end() && ids->is_array()) {
    for (const Json& id : *ids) {
      if (id.is_number_integer()) record_.answer_ids.push_back(id.get<int32_t>());
    }
    has_ids = !ids->empty();
  }
  if (text.empty() && !has_ids && !HasToolCalls(choice)) return;
  record_.token_events.push_back(now);
  record_.answer_text += text;
}

// Servers that count along send usage in every event: the last one stands.
void AnswerReader::ReadUsage(const Json& usage) {
  const auto completion = usage.find("completion_tokens");
  if (completion == usage.end() || !completion->is_number_integer()) return;
  has_usage_ = true;
  record_.completion_tokens = completion->get<int>();
  record_.prompt_tokens = CountIn(usage, "prompt_tokens");
  const auto details = usage.find("prompt_tokens_details");
  record_.cached_tokens =
      details != usage.end() && details->is_object() ? CountIn(*details, "cached_tokens") : 0;
}

void AnswerReader::OnEnd() {
  if (!done_) return Fail(record_, "incomplete", "the stream ended without [DONE]");
  if (!has_usage_) {
    Fail(record_, "no_usage",
         "the server sent no usage, though stream_options.include_usage asked for it");
  }
}

}  // namespace fairlead::serve_bench
