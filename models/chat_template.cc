// SPDX-License-Identifier: Apache-2.0
// The engine is our own (models/jinja/): no C++ library renders these templates with trust and
// limits.
#include "models/chat_template.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/strings.h"
#include "models/jinja/interpreter.h"
#include "models/jinja/parser.h"
#include "models/jinja/status_macros.h"
#include "models/jinja/unicode.h"

namespace fairlead {
namespace {

using jinja::Runtime;
using jinja::Value;

// JSON values as template values. Strings, keys too, are untrusted unless said otherwise.
class Converter {
 public:
  explicit Converter(Runtime& runtime) : runtime_(runtime) {}

  absl::StatusOr<Value> Convert(const Json& json, bool trusted, int depth = 0) {
    if (depth > runtime_.budget.max_value_depth()) {
      return absl::InvalidArgumentError(StrCat("chat template variables are nested deeper than ",
                                               runtime_.budget.max_value_depth(), " levels"));
    }
    switch (json.type()) {
      case Json::value_t::string:
        return ConvertString(json.get_ref<const std::string&>(), trusted);
      case Json::value_t::boolean:
        return Value(json.get<bool>());
      case Json::value_t::number_integer:
        return Value(jinja::Int{json.get<int64_t>()});
      case Json::value_t::number_unsigned:
        return Value(jinja::Int{json.get<uint64_t>()});
      case Json::value_t::number_float:
        return Value(json.get<double>());
      case Json::value_t::array:
        return ConvertArray(json, trusted, depth);
      case Json::value_t::object:
        return ConvertObject(json, trusted, depth);
      default:
        return Value();
    }
  }

  // The list of messages, without their keys that are null. Reasoning text that a message has under
  // one of its usual names is given under the others too, as transformers does: "reasoning_content"
  // always, "thinking" if there is none.
  absl::StatusOr<Value> ConvertMessages(const Json& messages) {
    jinja::ListBuilder builder(runtime_.budget);
    for (const Json& message : messages) {
      JINJA_ASSIGN_OR_RETURN(
          Value value, message.is_object() ? ConvertMessage(message) : Convert(message, false, 1));
      builder.Push(std::move(value));
    }
    return builder.FinishList();
  }

 private:
  static const Json* FindReasoning(const Json& message) {
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      const auto found = message.find(name);
      if (found != message.end() && !found->is_null()) return &*found;
    }
    return nullptr;
  }

  absl::StatusOr<Value> ConvertMessage(const Json& message) {
    jinja::DictBuilder builder(runtime_.budget);
    const Json* reasoning = FindReasoning(message);
    Value text;
    if (reasoning != nullptr) {
      JINJA_ASSIGN_OR_RETURN(text, Convert(*reasoning, false, 2));
      builder.Set(jinja::NewTrusted("thinking", runtime_.budget), text);
    }
    JINJA_RETURN_IF_ERROR(AddEntries(message, false, 1, builder, /*with_nulls=*/false));
    if (reasoning != nullptr)
      builder.Set(jinja::NewTrusted("reasoning_content", runtime_.budget), text);
    return builder.Finish();
  }

  absl::StatusOr<Value> ConvertString(const std::string& text, bool trusted) {
    if (!jinja::IsValidUtf8(text)) {
      return absl::InvalidArgumentError("a chat template variable is not valid UTF-8");
    }
    return jinja::NewString(jinja::Text(text, trusted));
  }

  absl::StatusOr<Value> ConvertArray(const Json& json, bool trusted, int depth) {
    jinja::ListBuilder builder(runtime_.budget);
    for (const Json& item : json) {
      JINJA_ASSIGN_OR_RETURN(Value value, Convert(item, trusted, depth + 1));
      builder.Push(std::move(value));
    }
    return builder.FinishList();
  }

  absl::Status AddEntries(const Json& json, bool trusted, int depth, jinja::DictBuilder& builder,
                          bool with_nulls = true) {
    for (const auto& [key, item] : json.items()) {
      if (item.is_null() && !with_nulls) continue;
      JINJA_ASSIGN_OR_RETURN(Value name, ConvertString(key, trusted));
      JINJA_ASSIGN_OR_RETURN(Value value, Convert(item, trusted, depth + 1));
      builder.Set(std::move(name), std::move(value));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Value> ConvertObject(const Json& json, bool trusted, int depth) {
    jinja::DictBuilder builder(runtime_.budget);
    JINJA_RETURN_IF_ERROR(AddEntries(json, trusted, depth, builder));
    return builder.Finish();
  }

  Runtime& runtime_;
};

absl::StatusOr<jinja::Variables> ConvertVariables(const Json& variables, Runtime& runtime) {
  if (!variables.is_object()) {
    return absl::InvalidArgumentError("chat template variables must be a JSON object");
  }
  jinja::Variables converted;
  Converter converter(runtime);
  for (const auto& [name, json] : variables.items()) {
    const bool trusted = std::find(std::begin(kSpecialTokenNames), std::end(kSpecialTokenNames),
                                   name) != std::end(kSpecialTokenNames);
    JINJA_ASSIGN_OR_RETURN(Value value, name == "messages" && json.is_array()
                                            ? converter.ConvertMessages(json)
                                            : converter.Convert(json, trusted));
    converted.insert_or_assign(name, std::move(value));
  }
  // What apply_chat_template passes whether or not its caller did.
  converted.try_emplace("tools", Value());
  converted.try_emplace("documents", Value());
  converted.try_emplace("add_generation_prompt", Value(false));
  return converted;
}

class ParsedChatTemplate final : public ChatTemplate {
 public:
  ParsedChatTemplate(std::unique_ptr<const jinja::TemplateAst> ast,
                     const ChatTemplateLimits& limits)
      : ast_(std::move(ast)), limits_(limits) {}

  absl::StatusOr<RenderedPrompt> Render(const Json& variables, absl::Time now) const override {
    Runtime runtime(limits_, now);  // outlives every value below
    JINJA_ASSIGN_OR_RETURN(const jinja::Variables values, ConvertVariables(variables, runtime));
    jinja::Interpreter interpreter(values, runtime);
    JINJA_ASSIGN_OR_RETURN(const jinja::Text text, interpreter.Run(*ast_));
    RenderedPrompt prompt;
    prompt.text = text.bytes();
    size_t begin = 0;
    text.ForEachRun([&](std::string_view run, bool trusted) {
      prompt.runs.push_back({begin, begin + run.size(), trusted});
      begin += run.size();
    });
    return prompt;
  }

 private:
  std::unique_ptr<const jinja::TemplateAst> ast_;
  ChatTemplateLimits limits_;
};

}  // namespace

std::vector<TextPiece> RenderedPrompt::Pieces() const {
  std::vector<TextPiece> pieces;
  pieces.reserve(runs.size());
  for (const Run& run : runs) {
    pieces.push_back({std::string_view(text).substr(run.begin, run.end - run.begin), run.trusted});
  }
  return pieces;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ParseChatTemplate(std::string_view source,
                                                                const ChatTemplateLimits& limits) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(StrCat("the chat template has ", source.size(),
                                             " bytes; at most ", kMaxTemplateBytes,
                                             " are allowed"));
  }
  if (!jinja::IsValidUtf8(source)) {
    return absl::InvalidArgumentError("the chat template is not valid UTF-8");
  }
  JINJA_ASSIGN_OR_RETURN(std::unique_ptr<jinja::TemplateAst> ast,
                         jinja::ParseTemplate(source, limits.max_depth));
  return std::make_unique<ParsedChatTemplate>(std::move(ast), limits);
}

}  // namespace fairlead
