// SPDX-License-Identifier: Apache-2.0
#include "server/prepare.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/chat_messages.h"
#include "models/detokenizer.h"
#include "models/json.h"
#include "server/errors.h"

namespace fairlead {
namespace {

constexpr int kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 1024;
constexpr int kMaxBiases = 1024;
// (token, logprob) pairs that one request may ask for: 256 MiB held until they are sent.
constexpr int64_t kMaxLogprobEntries = int64_t{1} << 25;

absl::Status RangeError(std::string_view field, double value, std::string_view allowed) {
  return FieldError(field, absl::StrFormat("%s is %g; allowed: %s", std::string(field), value,
                                           std::string(allowed)));
}

uint64_t RandomSeed() {
  thread_local std::mt19937_64 generator{(uint64_t{std::random_device()()} << 32) ^
                                         std::random_device()()};
  return generator() >> 1;  // fits int64, as the field that returns it
}

absl::Status ReadSampling(const pb::SamplingParams& in, int vocab_size, SamplingParams& out) {
  const auto read = [](bool present, float value, float& field) {
    if (present) field = value;
  };
  out.temperature = in.has_temperature() ? in.temperature() : 1.0f;
  read(in.has_top_p(), in.top_p(), out.top_p);
  read(in.has_min_p(), in.min_p(), out.min_p);
  read(in.has_repetition_penalty(), in.repetition_penalty(), out.repetition_penalty);
  read(in.has_presence_penalty(), in.presence_penalty(), out.presence_penalty);
  read(in.has_frequency_penalty(), in.frequency_penalty(), out.frequency_penalty);
  // Written so that NaN fails every check.
  if (!(out.temperature >= 0 && out.temperature <= 2))
    return RangeError("temperature", out.temperature, "0 to 2");
  if (!(out.top_p > 0 && out.top_p <= 1)) return RangeError("top_p", out.top_p, "above 0, up to 1");
  if (!(out.min_p >= 0 && out.min_p <= 1)) return RangeError("min_p", out.min_p, "0 to 1");
  if (!(out.repetition_penalty >= 0.01f && out.repetition_penalty <= 2)) {
    return RangeError("repetition_penalty", out.repetition_penalty, "0.01 to 2");
  }
  if (!(std::abs(out.presence_penalty) <= 2))
    return RangeError("presence_penalty", out.presence_penalty, "-2 to 2");
  if (!(std::abs(out.frequency_penalty) <= 2))
    return RangeError("frequency_penalty", out.frequency_penalty, "-2 to 2");
  if (in.has_top_k()) {
    if (in.top_k() < -1)
      return RangeError("top_k", in.top_k(), "-1 or 0 (off), or a positive number");
    out.top_k = std::clamp(in.top_k(), 0, vocab_size);
  }
  if (in.logit_bias_size() > kMaxBiases) {
    return FieldError("logit_bias", absl::StrCat("logit_bias has ", in.logit_bias_size(),
                                                 " entries; at most ", kMaxBiases));
  }
  for (const auto& [token, bias] : in.logit_bias()) {
    if (token < 0 || token >= vocab_size) {
      return FieldError("logit_bias", absl::StrCat("logit_bias names token ", token,
                                                   "; the vocabulary has 0 to ", vocab_size - 1));
    }
    if (!(std::abs(bias) <= 100)) return RangeError("logit_bias", bias, "-100 to 100");
    out.logit_bias.emplace_back(token, bias);
  }
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  out.seed = in.has_seed() ? static_cast<uint64_t>(in.seed()) : RandomSeed();
  return absl::OkStatus();
}

absl::Status ReadStop(const pb::StopConditions& in, const ServedModel& model,
                      PreparedRequest& out) {
  if (in.stop_size() > kMaxStopStrings) {
    return FieldError(
        "stop", absl::StrCat("stop has ", in.stop_size(), " strings; at most ", kMaxStopStrings));
  }
  for (const std::string& stop : in.stop()) {
    if (stop.empty()) return FieldError("stop", "stop holds an empty string");
    if (stop.size() > kMaxStopBytes) {
      return FieldError("stop", absl::StrCat("a stop string has ", stop.size(), " bytes; at most ",
                                             kMaxStopBytes));
    }
    out.stop_strings.push_back(stop);
  }
  if (!out.stop_strings.empty() && model.tokenizer == nullptr) {
    return FieldError("stop",
                      "stop strings need a tokenizer, and the server runs with --skip-tokenizer");
  }
  for (const int32_t token : in.stop_token_ids()) {
    if (token < 0 || token >= model.vocab_size) {
      return FieldError("stop_token_ids",
                        absl::StrCat("stop_token_ids holds ", token, "; the vocabulary has 0 to ",
                                     model.vocab_size - 1));
    }
    out.engine.stop_tokens.push_back(token);
  }
  if (!in.ignore_eos() && model.tokenizer != nullptr) {
    const absl::Span<const Token> own = model.tokenizer->stop_tokens();
    // Ids that the model has no logits for can never be drawn.
    std::copy_if(own.begin(), own.end(), std::back_inserter(out.engine.stop_tokens),
                 [&model](Token token) { return token < model.vocab_size; });
  }
  std::sort(out.engine.stop_tokens.begin(), out.engine.stop_tokens.end());
  out.engine.stop_tokens.erase(
      std::unique(out.engine.stop_tokens.begin(), out.engine.stop_tokens.end()),
      out.engine.stop_tokens.end());
  out.include_stop_text = in.include_stop_str_in_output();
  return absl::OkStatus();
}

absl::Status TooLong(bool is_chat, const std::string& prompt, int max_model_len) {
  return FieldError(is_chat ? "messages" : "prompt",
                    absl::StrCat("the prompt has ", prompt, " tokens; this server's context is ",
                                 max_model_len, " tokens, prompt and output together"),
                    "context_length_exceeded");
}

// Tokens of a prompt that are counted exactly for an error message.
size_t EnoughTokens(int max_model_len) {
  constexpr size_t kExact = 64 << 10;
  return std::max(kExact, 4 * static_cast<size_t>(max_model_len));
}

// Whether a text is too long whatever its tokens: megabytes need not be tokenized to say so.
absl::Status CheckBytes(const ServedModel& model, std::string_view text, bool is_chat,
                        int max_model_len) {
  const size_t tokens = model.tokenizer->MinTokens(text);
  if (tokens <= static_cast<size_t>(max_model_len)) return absl::OkStatus();
  return TooLong(is_chat, absl::StrCat(text.size(), " bytes, at least ", tokens), max_model_len);
}

absl::Status ReadLengths(const pb::GenerateRequest& in, int max_model_len, PreparedRequest& out) {
  const bool is_chat = in.has_chat();
  if (const size_t enough = EnoughTokens(max_model_len);
      !in.has_prompt_tokens() && out.engine.prompt.size() > enough)
    return TooLong(is_chat, absl::StrCat("more than ", enough), max_model_len);
  const int prompt_tokens = static_cast<int>(out.engine.prompt.size());
  // A prompt that fills the context can still be scored (max_tokens 0), never continued.
  const int room = max_model_len - prompt_tokens;
  if (room < 0 || (room == 0 && !(in.stop().has_max_tokens() && in.stop().max_tokens() == 0))) {
    return TooLong(is_chat, absl::StrCat(prompt_tokens), max_model_len);
  }
  if (in.stop().has_max_tokens()) {
    const int max_tokens = in.stop().max_tokens();
    if (max_tokens < (is_chat ? 1 : 0)) {
      return RangeError("max_tokens", max_tokens, is_chat ? "1 or more" : "0 or more");
    }
    if (max_tokens > room) {
      return FieldError("max_tokens",
                        absl::StrCat("the prompt has ", prompt_tokens, " tokens and max_tokens is ",
                                     max_tokens, ": ", int64_t{prompt_tokens} + max_tokens,
                                     " in all; this server's context is ", max_model_len),
                        "context_length_exceeded");
    }
    out.engine.max_tokens = max_tokens;
  } else {
    constexpr int kDefaultCompletionTokens = 16;
    out.engine.max_tokens = is_chat ? room : std::min(room, kDefaultCompletionTokens);
  }
  const int min_tokens = in.stop().min_tokens();
  if (min_tokens < 0 || min_tokens > out.engine.max_tokens) {
    return RangeError(
        "min_tokens", min_tokens,
        absl::StrCat("0 to the most tokens to generate (", out.engine.max_tokens, ")"));
  }
  out.engine.min_tokens = min_tokens;
  return absl::OkStatus();
}

absl::Status ReadOutput(const pb::OutputOptions& in, const ServedModel& model,
                        PreparedRequest& out) {
  const auto read = [&](const char* field, bool present, int value, int& target) {
    if (!present) return absl::OkStatus();
    if (value < 0) return RangeError(field, value, "0 or more");
    if (value > model.max_logprobs) {
      return FieldError(field, absl::StrCat(field, " is ", value, "; this server allows up to ",
                                            model.max_logprobs, " (--max-logprobs)"));
    }
    target = std::min(value, model.vocab_size);
    return absl::OkStatus();
  };
  absl::Status status = read("logprobs", in.has_logprobs(), in.logprobs(), out.engine.logprobs);
  status.Update(read("prompt_logprobs", in.has_prompt_logprobs(), in.prompt_logprobs(),
                     out.engine.prompt_logprobs));
  if (!status.ok()) return status;
  const int64_t entries =
      int64_t{std::max(out.engine.logprobs, 0)} * out.engine.max_tokens * out.num_choices +
      int64_t{std::max(out.engine.prompt_logprobs, 0)} *
          static_cast<int64_t>(out.engine.prompt.size());
  if (entries > kMaxLogprobEntries) {
    return FieldError(
        in.has_prompt_logprobs() ? "prompt_logprobs" : "logprobs",
        absl::StrCat("the request asks for ", entries, " logprobs; at most ", kMaxLogprobEntries));
  }
  out.skip_special_tokens = in.has_skip_special_tokens() ? in.skip_special_tokens() : true;
  out.return_token_ids = in.return_token_ids();
  return absl::OkStatus();
}

absl::Status ReadPrompt(const pb::GenerateRequest& in, const ServedModel& model,
                        const PrepareLimits& limits, PreparedRequest& out) {
  std::string text;
  switch (in.input_case()) {
    case pb::GenerateRequest::kPrompt: {
      if (model.tokenizer == nullptr) {
        return FieldError("prompt", "the server runs with --skip-tokenizer: send token ids");
      }
      if (in.prompt().empty()) return FieldError("prompt", "prompt is empty");
      if (absl::Status status = CheckBytes(model, in.prompt(), false, limits.max_model_len);
          !status.ok())
        return status;
      text = in.prompt();
      out.engine.prompt = model.tokenizer->Encode(
          text, {.add_special_tokens = in.has_add_special_tokens() ? in.add_special_tokens() : true,
                 .parse_special = in.has_parse_special() ? in.parse_special() : true,
                 .enough_tokens = EnoughTokens(limits.max_model_len),
                 .cancelled = limits.cancelled});
      break;
    }
    case pb::GenerateRequest::kPromptTokens: {
      for (const int32_t token : in.prompt_tokens().ids()) {
        if (token < 0 || token >= model.vocab_size) {
          return FieldError("prompt",
                            absl::StrCat("prompt holds token ", token, "; the vocabulary has 0 to ",
                                         model.vocab_size - 1));
        }
      }
      out.engine.prompt.assign(in.prompt_tokens().ids().begin(), in.prompt_tokens().ids().end());
      if (in.output().echo() && model.tokenizer != nullptr) {
        text = model.tokenizer->Decode(out.engine.prompt, !in.output().has_skip_special_tokens() ||
                                                              in.output().skip_special_tokens());
      }
      break;
    }
    case pb::GenerateRequest::kChat: {
      auto chat = RenderChat(model, in.chat(), in.add_special_tokens(), limits);
      if (!chat.ok()) return chat.status();
      text = std::move(chat->text);
      out.engine.prompt = std::move(chat->tokens);
      break;
    }
    case pb::GenerateRequest::INPUT_NOT_SET:
      return FieldError("prompt", "prompt is missing");
  }
  // Whatever else may be said of a prompt whose tokens are not all there.
  if (limits.cancelled != nullptr && *limits.cancelled) return RequestCancelled();
  if (out.engine.prompt.empty()) return FieldError("prompt", "prompt has no tokens");
  if (in.output().echo()) out.echo_text = std::move(text);
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseField(const std::string& text, std::string_view field, Json::value_t type,
                                std::string_view type_name) {
  auto value = ParseJson(text);
  if (!value.ok())
    return FieldError(field, absl::StrCat(std::string(field), ": ", value.status().message()));
  if (value->type() != type) {
    return FieldError(field,
                      absl::StrCat(std::string(field), " must be a JSON ", std::string(type_name)));
  }
  return value;
}

// A message as the template sees it. `where`: what errors call it.
absl::StatusOr<Json> MessageVariables(const pb::Message& message, const std::string& where) {
  Json entry = {{"role", message.role()}, {"content", nullptr}};
  if (message.has_content()) entry["content"] = message.content();
  if (message.extra_json().empty()) return entry;
  auto extra =
      ParseField(message.extra_json(), where + ".extra_json", Json::value_t::object, "object");
  if (!extra.ok()) return extra.status();
  constexpr size_t kMaxMessageKeys = 64;  // each is looked for among the others
  if (extra->size() > kMaxMessageKeys) {
    return FieldError("messages", absl::StrCat(where, " has ", extra->size(),
                                               " extra keys; at most ", kMaxMessageKeys));
  }
  for (auto& [key, value] : extra->items()) {
    if (value.is_null()) continue;
    if (key == "role") return FieldError("messages", where + ".extra_json has a role of its own");
    if (key != "content") {
      entry[key] = std::move(value);
      continue;
    }
    Json parts = OnlyTextParts(value);
    if (parts.is_null() || message.has_content()) {
      return FieldError("messages",
                        where + (message.has_content() ? ".content is there twice"
                                                       : ".content must be a string or a list of "
                                                         "text parts"));
    }
    entry["content"] = std::move(parts);
  }
  return entry;
}

absl::StatusOr<Json> TemplateVariables(const ServedModel& model, const pb::ChatInput& chat) {
  Json variables = Json::object();
  if (!chat.template_variables_json().empty()) {
    auto extra = ParseField(chat.template_variables_json(), "chat_template_kwargs",
                            Json::value_t::object, "object");
    if (!extra.ok()) return extra.status();
    variables = *std::move(extra);
  }
  Json messages = Json::array();
  for (const pb::Message& message : chat.messages()) {
    if (message.role().empty())
      return FieldError("messages", absl::StrCat("messages[", messages.size(), "].role is empty"));
    auto entry = MessageVariables(message, absl::StrCat("messages[", messages.size(), "]"));
    if (!entry.ok()) return entry.status();
    messages.push_back(*std::move(entry));
  }
  variables["messages"] = std::move(messages);
  if (!chat.tools_json().empty()) {
    auto tools = ParseField(chat.tools_json(), "tools", Json::value_t::array, "array");
    if (!tools.ok()) return tools.status();
    variables["tools"] = *std::move(tools);
  }
  if (!chat.documents_json().empty()) {
    auto documents = ParseField(chat.documents_json(), "documents", Json::value_t::array, "array");
    if (!documents.ok()) return documents.status();
    variables["documents"] = *std::move(documents);
  }
  variables["add_generation_prompt"] = chat.has_add_generation_prompt()
                                           ? chat.add_generation_prompt()
                                           : !chat.continue_final_message();
  model.chat_format->SetSpecialTokens(variables);
  return variables;
}

// Contents that are lists stay so where the template takes them. Of more roles than a chat has, and
// once `cancelled`, they are joined: each role costs a rendering.
void JoinParts(const ChatTemplate& chosen, const std::atomic<bool>* cancelled, Json& variables) {
  constexpr size_t kMaxRoles = 5;  // system, developer, user, assistant, tool
  Json messages = std::move(variables["messages"]);
  std::map<std::string, bool> takes_parts;  // by role
  for (Json& message : messages) {
    if (!message.at("content").is_array()) continue;
    const auto& role = message.at("role").get_ref<const std::string&>();
    auto known = takes_parts.find(role);
    if (known == takes_parts.end() && takes_parts.size() < kMaxRoles &&
        (cancelled == nullptr || !*cancelled)) {
      known = takes_parts.emplace(role, TakesTextParts(chosen, role, variables)).first;
    }
    if (known == takes_parts.end() || !known->second)
      message["content"] = JoinedTextParts(message["content"]);
  }
  variables["messages"] = std::move(messages);
}

absl::StatusOr<RenderedPrompt> Render(const ChatTemplate& chosen, const pb::ChatInput& chat,
                                      const std::atomic<bool>* cancelled, Json variables) {
  JoinParts(chosen, cancelled, variables);
  absl::StatusOr<RenderedPrompt> prompt = chat.continue_final_message()
                                              ? RenderUpToFinalContent(chosen, std::move(variables))
                                              : chosen.Render(variables);
  if (prompt.ok()) return prompt;
  const absl::string_view message = prompt.status().message();
  if (absl::IsFailedPrecondition(prompt.status()))
    return FieldError("continue_final_message", std::string(message));
  return WithDetail(absl::InvalidArgumentError(absl::StrCat("chat template: ", message)),
                    "messages", "");
}

}  // namespace

absl::Status CheckModelName(const ServedModel& model, const std::string& name) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  return WithDetail(absl::NotFoundError(absl::StrCat(
                        "the model '", name, "' is not served here; served: '", model.name, "'")),
                    "model", "model_not_found");
}

absl::StatusOr<ChatPrompt> RenderChat(const ServedModel& model, const pb::ChatInput& chat,
                                      bool add_special_tokens, const PrepareLimits& limits) {
  if (chat.messages_size() == 0) return FieldError("messages", "messages is empty");
  if (chat.continue_final_message() && chat.add_generation_prompt()) {
    return FieldError("continue_final_message",
                      "continue_final_message excludes add_generation_prompt");
  }
  if (model.tokenizer == nullptr) {
    return FieldError("messages",
                      "the server runs with --skip-tokenizer: send token ids to /v1/completions");
  }
  if (model.chat_format == nullptr || !model.chat_format->has_template()) {
    const bool unusable = model.chat_format != nullptr && model.chat_format->unusable;
    return FieldError("messages", unusable
                                      ? "the model's chat template cannot be used: the server's "
                                        "log says why"
                                      : "the model's files have no chat template");
  }
  auto variables = TemplateVariables(model, chat);
  if (!variables.ok()) return variables.status();
  const bool has_tools = variables->contains("tools") && !(*variables)["tools"].is_null();
  const auto chosen = model.chat_format->Choose(chat.chat_template(), has_tools);
  if (!chosen.ok()) return FieldError("chat_template", std::string(chosen.status().message()));
  auto rendered = Render(**chosen, chat, limits.cancelled, *std::move(variables));
  if (!rendered.ok()) return rendered.status();
  ChatPrompt prompt;
  EncodeOptions options = {.add_special_tokens = add_special_tokens,
                           .parse_special = true,
                           .cancelled = limits.cancelled};
  if (limits.max_model_len > 0) {
    if (absl::Status status = CheckBytes(model, rendered->text, true, limits.max_model_len);
        !status.ok())
      return status;
    options.enough_tokens = EnoughTokens(limits.max_model_len);
  }
  prompt.tokens = model.tokenizer->Encode(rendered->Pieces(), options);
  prompt.text = std::move(rendered->text);
  return prompt;
}

absl::StatusOr<PreparedRequest> PrepareRequest(const ServedModel& model,
                                               const pb::GenerateRequest& request,
                                               const PrepareLimits& limits) {
  if (absl::Status status = CheckModelName(model, request.model()); !status.ok()) return status;
  PreparedRequest prepared;
  prepared.request_id = request.request_id();
  prepared.num_choices = request.has_n() ? request.n() : 1;
  if (prepared.num_choices < 1 || prepared.num_choices > kMaxChoices) {
    return RangeError("n", prepared.num_choices, absl::StrCat("1 to ", kMaxChoices));
  }
  prepared.engine.priority = request.priority();
  // The cheap checks come first: a request with a bad number is refused before a megabyte is
  // tokenized.
  absl::Status status =
      ReadSampling(request.sampling(), model.vocab_size, prepared.engine.sampling);
  if (status.ok()) status = ReadStop(request.stop(), model, prepared);
  if (status.ok()) status = ReadPrompt(request, model, limits, prepared);
  if (status.ok()) status = ReadLengths(request, limits.max_model_len, prepared);
  if (status.ok()) status = ReadOutput(request.output(), model, prepared);
  if (!status.ok()) return status;
  return prepared;
}

}  // namespace fairlead
