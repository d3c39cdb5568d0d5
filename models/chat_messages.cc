// SPDX-License-Identifier: Apache-2.0
#include "models/chat_messages.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "models/jinja/string_ops.h"

namespace fairlead {
namespace {

// Marks the end of the final content while it is rendered; the space shows whether spaces are kept.
// The word is transformers', which templates may have been tried with.
constexpr std::string_view kMark = "CONTINUE_FINAL_MESSAGE_TAG ";

bool IsTextPart(const Json& part) {
  if (!part.is_object()) return false;
  const auto text = part.find("text");
  return text != part.end() && text->is_string();
}

// Where the text to go on with stands; null if there is none.
Json* FinalText(Json& variables) {
  const auto messages = variables.find("messages");
  if (messages == variables.end() || !messages->is_array() || messages->empty()) return nullptr;
  Json& last = messages->back();
  if (!last.is_object()) return nullptr;
  const auto content = last.find("content");
  if (content == last.end()) return nullptr;
  if (content->is_string()) return &*content;
  if (!content->is_array()) return nullptr;
  const auto part = std::find_if(content->rbegin(), content->rend(), IsTextPart);
  return part == content->rend() ? nullptr : &(*part)["text"];
}

// Messages, the last of which is of this role.
Json ConversationTo(const std::string& role, Json content) {
  const Json user = {{"role", "user"}, {"content", "x"}};
  Json message = {{"role", role}, {"content", std::move(content)}};
  if (role == "user") return Json::array({message});
  if (role == "assistant") return Json::array({user, message});
  if (role != "tool") return Json::array({message, user});
  constexpr char kId[] = "abcdefghi";  // nine letters: Mistral's templates ask for so many
  const Json function = {{"name", "f"}, {"arguments", Json::object()}};
  const Json call = {{"id", kId}, {"type", "function"}, {"function", function}};
  message.update({{"tool_call_id", kId}, {"name", "f"}});
  return Json::array(
      {user, {{"role", "assistant"}, {"content", ""}, {"tool_calls", {call}}}, message});
}

std::string_view Stripped(std::string_view text, bool left) {
  const jinja::ByteRange range = jinja::StripRange(text, std::nullopt, left, /*right=*/true);
  return text.substr(range.begin, range.end - range.begin);
}

void CutAt(size_t end, RenderedPrompt& prompt) {
  prompt.text.resize(end);
  std::vector<RenderedPrompt::Run> runs;
  for (RenderedPrompt::Run run : prompt.runs) {
    if (run.begin >= end) break;
    run.end = std::min(run.end, end);
    runs.push_back(run);
  }
  prompt.runs = std::move(runs);
}

}  // namespace

Json OnlyTextParts(const Json& parts) {
  if (!parts.is_array()) return nullptr;
  Json texts = Json::array();
  for (const Json& part : parts) {
    if (!IsTextPart(part) || part.value("type", Json()) != "text") return nullptr;
    texts.push_back({{"type", "text"}, {"text", part["text"]}});
  }
  return texts;
}

bool TakesTextParts(const ChatTemplate& chat_template, const std::string& role, Json& variables) {
  const std::string probes[] = {"fairlead-first", "fairlead-second"};
  Json content = Json::array();
  for (const std::string& probe : probes) content.push_back({{"type", "text"}, {"text", probe}});
  variables["messages"] = ConversationTo(role, std::move(content));
  const auto prompt = chat_template.Render(variables);
  if (!prompt.ok()) return false;
  const std::string& text = prompt->text;
  size_t at = 0;
  for (const std::string& probe : probes) {
    at = text.find(probe, at);
    if (at == std::string::npos) return false;
    // A list that is printed has its texts in quotes.
    if (at > 0 && (text[at - 1] == '\'' || text[at - 1] == '"')) return false;
    at += probe.size();
  }
  return true;
}

std::string JoinedTextParts(const Json& parts) {
  std::string joined;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) joined.push_back('\n');
    joined += parts[i]["text"].get_ref<const std::string&>();
  }
  return joined;
}

absl::StatusOr<RenderedPrompt> RenderUpToFinalContent(const ChatTemplate& chat_template,
                                                      Json variables, absl::Time now) {
  Json* const final = FinalText(variables);
  if (final == nullptr)
    return absl::FailedPreconditionError("the final message has no content to continue");
  const std::string content = final->get<std::string>();
  *final = content + std::string(kMark);
  absl::StatusOr<RenderedPrompt> prompt = chat_template.Render(variables, now);
  if (!prompt.ok()) return prompt;
  const std::string_view text = prompt->text;
  const std::string_view mark = kMark.substr(0, kMark.size() - 1);
  const size_t at = jinja::FindLast(text, mark);
  if (at == std::string_view::npos ||
      jinja::FindFirst(text, Stripped(content, /*left=*/true)) == std::string_view::npos) {
    return absl::FailedPreconditionError(
        "the chat template does not print the final message as it stands");
  }
  const bool keeps_spaces = text.substr(at, kMark.size()) == kMark;
  CutAt(keeps_spaces ? at : Stripped(text.substr(0, at), /*left=*/false).size(), *prompt);
  return prompt;
}

}  // namespace fairlead
