// SPDX-License-Identifier: Apache-2.0
#include "server/openai_request.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "kernels/strings.h"
#include "server/errors.h"
#include "server/json_fields.h"
#include "server/prepare.h"

namespace fairlead {
namespace {

constexpr int64_t kMaxToken = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxPrompts = 1024;
constexpr size_t kMaxSharedBytes = 64 << 10;
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxMessageKeys = 64;

// Fields that change what comes back and that this server does not have: refused by name, never
// ignored.
void RefuseUnsupported(JsonFields& fields) {
  for (const char* name :
       {"functions", "function_call", "audio", "prediction", "web_search_options",
        "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "use_beam_search", "prompt_embeds", "suffix", "bad_words", "allowed_token_ids",
        "truncate_prompt_tokens"}) {
    const Json* value = fields.Find(name);
    if (value == nullptr || *value == false || *value == "" ||
        (value->is_structured() && value->empty()))
      continue;
    fields.Fail(name, "is not supported by this server");
  }
  if (const Json* format = fields.Object("response_format")) {
    if (JsonFields(*format).String("type").value_or("") != "text") {
      fields.Fail("response_format",
                  "is not supported by this server, except {\"type\": \"text\"}");
    }
  }
  if (const Json* modalities = fields.Array("modalities")) {
    if (*modalities != Json::array({"text"})) fields.Fail("modalities", "must be [\"text\"]");
  }
}

// Fields that change nothing here; a wrong type is an error all the same.
void CheckUnused(JsonFields& fields) {
  for (const char* name : {"user", "service_tier", "reasoning_effort", "verbosity",
                           "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}) {
    fields.String(name);
  }
  for (const char* name : {"store", "parallel_tool_calls"}) fields.Bool(name);
  fields.Object("metadata");
}

void ReadStop(JsonFields& fields, OpenAiRequest& out, pb::StopConditions& stop) {
  if (const Json* value = fields.Find("stop")) {
    if (value->is_string()) {
      if (!value->get_ref<const std::string&>().empty()) stop.add_stop(value->get<std::string>());
    } else if (value->is_array()) {
      for (const Json& item : *value) {
        if (!item.is_string())
          return fields.Fail("stop", "must be a string or an array of strings");
        stop.add_stop(item.get<std::string>());
      }
    } else {
      return fields.Fail("stop", "must be a string or an array of strings");
    }
  }
  if (const Json* ids = fields.Array("stop_token_ids")) {
    for (const Json& item : *ids) {
      const auto id = JsonInteger(item, std::numeric_limits<int32_t>::min(), kMaxToken);
      if (!id) return fields.Fail("stop_token_ids", "must be an array of token ids");
      stop.add_stop_token_ids(static_cast<int32_t>(*id));
    }
  }
  stop.set_ignore_eos(fields.Bool("ignore_eos").value_or(false));
  stop.set_include_stop_str_in_output(fields.Bool("include_stop_str_in_output").value_or(false));
  if (const auto min_tokens = fields.Int("min_tokens")) stop.set_min_tokens(*min_tokens);
  if (const auto max_tokens = fields.Int("max_tokens")) stop.set_max_tokens(*max_tokens);
  if (const auto max_tokens = fields.Int("max_completion_tokens")) {
    stop.set_max_tokens(*max_tokens);
    out.renamed.emplace_back("max_tokens", "max_completion_tokens");
  }
}

void ReadSampling(JsonFields& fields, pb::SamplingParams& sampling) {
  if (const auto value = fields.Float("temperature")) sampling.set_temperature(*value);
  if (const auto value = fields.Float("top_p")) sampling.set_top_p(*value);
  if (const auto value = fields.Float("min_p")) sampling.set_min_p(*value);
  if (const auto value = fields.Int("top_k")) sampling.set_top_k(*value);
  if (const auto value = fields.Float("repetition_penalty"))
    sampling.set_repetition_penalty(*value);
  if (const auto value = fields.Float("presence_penalty")) sampling.set_presence_penalty(*value);
  if (const auto value = fields.Float("frequency_penalty")) sampling.set_frequency_penalty(*value);
  if (const auto value = fields.Int64("seed")) sampling.set_seed(*value);
  const Json* biases = fields.Object("logit_bias");
  if (biases == nullptr) return;
  if (biases->size() > kMaxBiases) {
    return fields.Fail("logit_bias",
                       StrCat("has ", biases->size(), " entries; at most ", kMaxBiases));
  }
  for (const auto& [key, value] : biases->items()) {
    int32_t token = 0;
    // SimpleAtoi allows white space and signs.
    const bool digits = !key.empty() && std::all_of(key.begin(), key.end(), absl::ascii_isdigit);
    if (!digits || !absl::SimpleAtoi(key, &token))
      return fields.Fail("logit_bias", "must map token ids to numbers");
    const auto bias = JsonFields(*biases).Float(key);
    if (!bias) return fields.Fail("logit_bias", "must map token ids to finite numbers");
    (*sampling.mutable_logit_bias())[token] = *bias;
  }
}

void ReadStreaming(JsonFields& fields, OpenAiRequest& out) {
  out.stream = fields.Bool("stream").value_or(false);
  const Json* options = fields.Object("stream_options");
  if (options == nullptr) return;
  if (!out.stream) return fields.Fail("stream_options", "is only allowed with stream: true");
  JsonFields nested(*options, "stream_options.");
  out.include_usage = nested.Bool("include_usage").value_or(false);
  out.continuous_usage = nested.Bool("continuous_usage_stats").value_or(false);
  if (!nested.status().ok())
    fields.Fail("stream_options", "holds a value that is not true or false");
}

// What chat and completions have in common.
void ReadCommon(JsonFields& fields, OpenAiRequest& out, pb::GenerateRequest& request) {
  RefuseUnsupported(fields);
  CheckUnused(fields);
  ReadStop(fields, out, *request.mutable_stop());
  ReadSampling(fields, *request.mutable_sampling());
  ReadStreaming(fields, out);
  request.set_model(fields.String("model").value_or(""));
  if (const auto n = fields.Int("n")) {
    request.set_n(*n);
    // Here already: the answer makes room for every choice.
    if (*n < 1 || *n > kMaxChoices)
      fields.Fail("n", StrCat("is ", *n, "; allowed: 1 to ", kMaxChoices));
  }
  request.set_priority(fields.Int("priority").value_or(0));
  request.set_request_id(fields.String("request_id").value_or(""));
  pb::OutputOptions& output = *request.mutable_output();
  out.echo = fields.Bool("echo").value_or(false);
  output.set_echo(out.echo);
  out.return_token_ids = fields.Bool("return_token_ids").value_or(false);
  output.set_return_token_ids(out.return_token_ids);
  out.tokens_as_ids = fields.Bool("return_tokens_as_token_ids").value_or(false);
  if (const auto skip = fields.Bool("skip_special_tokens")) output.set_skip_special_tokens(*skip);
  if (const auto add = fields.Bool("add_special_tokens")) request.set_add_special_tokens(*add);
  if (const auto parse = fields.Bool("parse_special")) request.set_parse_special(*parse);
  if (const auto n = fields.Int("prompt_logprobs")) {
    output.set_prompt_logprobs(*n);
    out.prompt_logprobs = true;
    if (out.stream) fields.Fail("prompt_logprobs", "is not allowed with stream: true");
  }
}

// A list of text parts goes to the template, so it is among the further keys; other kinds of part
// need a model that takes them.
absl::Status ReadContent(const Json& content, const std::string& where, pb::Message& message,
                         Json& extra) {
  if (content.is_null()) return absl::OkStatus();
  if (content.is_string()) {
    message.set_content(content.get<std::string>());
    return absl::OkStatus();
  }
  if (!content.is_array())
    return FieldError(where, StrCat(where, " must be a string or an array of parts"));
  for (const Json& part : content) {
    if (!part.is_object())
      return FieldError(where, StrCat(where, " holds a part that is not an object"));
    JsonFields fields(part);
    const std::string type = fields.String("type").value_or("");
    const auto part_text = fields.String("text");
    if (type != "text" || !part_text) {
      return FieldError(
          where, StrCat(where, " holds a part of type '", type, "'; this model takes text parts"));
    }
  }
  extra["content"] = content;
  return absl::OkStatus();
}

absl::Status ReadMessage(const Json& value, size_t index, pb::Message& message) {
  const std::string where = StrCat("messages[", index, "]");
  if (!value.is_object()) return FieldError("messages", StrCat(where, " must be an object"));
  JsonFields fields(value, where + ".");
  const auto role = fields.String("role");
  if (!fields.status().ok()) return fields.status();
  if (!role) return FieldError("messages", StrCat(where, ".role is missing"));
  message.set_role(*role);
  if (value.size() > kMaxMessageKeys) {
    return FieldError("messages",
                      StrCat(where, " has ", value.size(), " keys; at most ", kMaxMessageKeys));
  }
  Json extra = Json::object();
  for (const auto& [key, item] : value.items()) {
    if (key == "content") {
      if (absl::Status status = ReadContent(item, where + ".content", message, extra); !status.ok())
        return status;
    } else if (key != "role" && !item.is_null()) {
      extra[key] = item;
    }
  }
  const bool may_be_empty = extra.contains("tool_calls") || extra.contains("function_call");
  if (!message.has_content() && !extra.contains("content") && !may_be_empty) {
    return FieldError("messages", StrCat(where, ".content is missing"));
  }
  // Arguments come as JSON text; templates print objects.
  if (extra.contains("tool_calls") && extra["tool_calls"].is_array()) {
    for (Json& call : extra["tool_calls"]) {
      if (!call.is_object() || !call.contains("function") || !call["function"].is_object())
        continue;
      Json& function = call["function"];
      if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
      auto arguments = ParseJson(function["arguments"].get_ref<const std::string&>());
      if (arguments.ok() && arguments->is_object()) function["arguments"] = *std::move(arguments);
    }
  }
  if (!extra.empty()) message.set_extra_json(DumpJson(extra));
  return absl::OkStatus();
}

void ReadTools(JsonFields& fields, pb::ChatInput& chat) {
  const Json* tools = fields.Array("tools");
  bool use_tools = tools != nullptr && !tools->empty();
  if (const Json* choice = fields.Find("tool_choice")) {
    if (*choice == "none") {
      use_tools = false;
    } else if (*choice != "auto") {
      fields.Fail("tool_choice",
                  "must be \"auto\" or \"none\"; a forced call is not supported by this server");
    }
  }
  if (!use_tools) return;
  for (const Json& tool : *tools) {
    if (!tool.is_object()) return fields.Fail("tools", "must be an array of objects");
  }
  chat.set_tools_json(DumpJson(*tools));
}

// messages, tools and template variables, as /v1/chat/completions and /tokenize have them.
absl::Status ReadChat(JsonFields& fields, pb::ChatInput& chat) {
  const Json* messages = fields.Array("messages");
  if (!fields.status().ok()) return fields.status();
  if (messages == nullptr) return FieldError("messages", "messages is missing");
  if (messages->empty()) return FieldError("messages", "messages is empty");
  for (size_t i = 0; i < messages->size(); ++i) {
    if (absl::Status status = ReadMessage((*messages)[i], i, *chat.add_messages()); !status.ok())
      return status;
  }
  ReadTools(fields, chat);
  if (const Json* documents = fields.Array("documents")) {
    for (const Json& document : *documents) {
      if (!document.is_object() && !document.is_string())
        fields.Fail("documents", "must be an array of objects or strings");
    }
    chat.set_documents_json(DumpJson(*documents));
  }
  if (const Json* variables = fields.Object("chat_template_kwargs")) {
    chat.set_template_variables_json(DumpJson(*variables));
  }
  // A name: whether the model has it is seen later.
  if (const auto name = fields.String("chat_template")) chat.set_chat_template(*name);
  if (const auto add = fields.Bool("add_generation_prompt")) chat.set_add_generation_prompt(*add);
  chat.set_continue_final_message(fields.Bool("continue_final_message").value_or(false));
  return fields.status();
}

absl::Status ReadTokenIds(const Json& ids, std::string_view field,
                          google::protobuf::RepeatedField<int32_t>& out) {
  out.Reserve(static_cast<int>(ids.size()));
  for (const Json& item : ids) {
    const auto id = JsonInteger(item, std::numeric_limits<int32_t>::min(), kMaxToken);
    if (!id) {
      return FieldError(
          field, StrCat(std::string(field), " must be text, token ids, or a list of either"));
    }
    out.Add(static_cast<int32_t>(*id));
  }
  return absl::OkStatus();
}

absl::Status AddPrompt(const Json& prompt, const pb::GenerateRequest& base, OpenAiRequest& out) {
  pb::GenerateRequest& request = out.prompts.emplace_back(base);
  if (prompt.is_string()) {
    request.set_prompt(prompt.get<std::string>());
    return absl::OkStatus();
  }
  if (!prompt.is_array())
    return FieldError("prompt", "prompt must be text, token ids, or a list of either");
  if (prompt.empty()) return FieldError("prompt", "prompt is empty");
  return ReadTokenIds(prompt, "prompt", *request.mutable_prompt_tokens()->mutable_ids());
}

absl::Status ReadPrompts(const Json* prompt, const pb::GenerateRequest& base, OpenAiRequest& out) {
  if (prompt == nullptr) return FieldError("prompt", "prompt is missing");
  const bool is_list = prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (!is_list) return AddPrompt(*prompt, base, out);
  if (prompt->size() > kMaxPrompts) {
    return FieldError("prompt",
                      StrCat("prompt lists ", prompt->size(), " prompts; at most ", kMaxPrompts));
  }
  // Every prompt carries what the request says beside it.
  if (const size_t shared = base.ByteSizeLong(); shared > kMaxSharedBytes) {
    return FieldError("prompt",
                      StrCat("a request with a list of prompts may have ", kMaxSharedBytes,
                             " bytes beside them; this one has ", shared));
  }
  for (const Json& item : *prompt) {
    if (absl::Status status = AddPrompt(item, base, out); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status RequireObject(const Json& body) {
  return body.is_object() ? absl::OkStatus() : FieldError("", "the body must be a JSON object");
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  OpenAiRequest out;
  out.is_chat = true;
  JsonFields fields(body);
  pb::GenerateRequest& request = out.prompts.emplace_back();
  ReadCommon(fields, out, request);
  out.logprobs = fields.Bool("logprobs").value_or(false);
  if (const auto top = fields.Int("top_logprobs")) {
    out.top_logprobs = *top;
    out.renamed.emplace_back("logprobs", "top_logprobs");
    if (*top != 0 && !out.logprobs)
      fields.Fail("top_logprobs", "is only allowed with logprobs: true");
  }
  if (out.logprobs) request.mutable_output()->set_logprobs(out.top_logprobs);
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = ReadChat(fields, *request.mutable_chat()); !status.ok()) return status;
  return out;
}

absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  OpenAiRequest out;
  JsonFields fields(body);
  pb::GenerateRequest base;
  ReadCommon(fields, out, base);
  if (const auto n = fields.Int("logprobs")) {
    out.logprobs = true;
    out.top_logprobs = *n;
    base.mutable_output()->set_logprobs(*n);
    // The legacy arrays cover the echoed prompt too.
    if (out.echo && !out.prompt_logprobs) base.mutable_output()->set_prompt_logprobs(*n);
  }
  if (const auto best_of = fields.Int("best_of");
      best_of && *best_of != (base.has_n() ? base.n() : 1)) {
    fields.Fail("best_of",
                "must equal n: choosing the best of several is not supported by this server");
  }
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = ReadPrompts(fields.Find("prompt"), base, out); !status.ok())
    return status;
  return out;
}

absl::StatusOr<pb::TokenizeRequest> ParseTokenizeRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  JsonFields fields(body);
  pb::TokenizeRequest request;
  request.set_model(fields.String("model").value_or(""));
  if (const auto add = fields.Bool("add_special_tokens")) request.set_add_special_tokens(*add);
  if (const auto parse = fields.Bool("parse_special")) request.set_parse_special(*parse);
  request.set_return_token_strs(fields.Bool("return_token_strs").value_or(false));
  if (!fields.status().ok()) return fields.status();
  if (fields.Find("messages") != nullptr) {
    if (fields.Find("prompt") != nullptr)
      return FieldError("prompt", "prompt and messages exclude each other");
    if (absl::Status status = ReadChat(fields, *request.mutable_chat()); !status.ok())
      return status;
    return request;
  }
  const auto prompt = fields.String("prompt");
  if (!fields.status().ok()) return fields.status();
  if (!prompt) return FieldError("prompt", "prompt or messages is missing");
  request.set_text(*prompt);
  return request;
}

absl::StatusOr<pb::DetokenizeRequest> ParseDetokenizeRequest(const Json& body) {
  if (absl::Status status = RequireObject(body); !status.ok()) return status;
  JsonFields fields(body);
  pb::DetokenizeRequest request;
  request.set_model(fields.String("model").value_or(""));
  request.set_skip_special_tokens(fields.Bool("skip_special_tokens").value_or(false));
  const Json* tokens = fields.Array("tokens");
  if (!fields.status().ok()) return fields.status();
  if (tokens == nullptr) return FieldError("tokens", "tokens is missing");
  if (absl::Status status = ReadTokenIds(*tokens, "tokens", *request.mutable_tokens());
      !status.ok())
    return status;
  return request;
}

}  // namespace fairlead
