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

bool TakesTextParts(const ChatTemplate& chat_template) {
  constexpr std::string_view kProbe = "fairlead-probe";
  const Json part = {{"type", "text"}, {"text", std::string(kProbe)}};
  const Json user = {{"role", "user"}, {"content", Json::array({part})}};
  const auto prompt = chat_template.Render({{"messages", Json::array({user})}});
  if (!prompt.ok()) return false;
  const std::string_view text = prompt->text;
  // A list that is printed has the names of its keys in quotes.
  return text.find(kProbe) != std::string_view::npos &&
         text.find("'text'") == std::string_view::npos &&
         text.find("\"text\"") == std::string_view::npos;
}

Json JoinedTextParts(const Json& parts) {
  if (!parts.is_array() || !std::all_of(parts.begin(), parts.end(), IsTextPart)) return nullptr;
  std::string joined;
  for (const Json& part : parts) {
    if (!joined.empty()) joined.push_back('\n');
    joined += part["text"].get_ref<const std::string&>();
  }
  return joined;
}

absl::StatusOr<RenderedPrompt> RenderUpToFinalContent(const ChatTemplate& chat_template,
                                                      Json variables, absl::Time now) {
  Json* const final = FinalText(variables);
  if (final == nullptr)
    return absl::InvalidArgumentError("the final message has no content to continue");
  const std::string content = final->get<std::string>();
  *final = content + std::string(kMark);
  absl::StatusOr<RenderedPrompt> prompt = chat_template.Render(variables, now);
  if (!prompt.ok()) return prompt;
  const std::string_view text = prompt->text;
  const std::string_view mark = kMark.substr(0, kMark.size() - 1);
  const size_t at = jinja::FindLast(text, mark);
  if (at == std::string_view::npos ||
      jinja::FindFirst(text, Stripped(content, /*left=*/true)) == std::string_view::npos) {
    return absl::InvalidArgumentError(
        "the chat template does not print the final message as it stands");
  }
  const bool keeps_spaces = text.substr(at, kMark.size()) == kMark;
  CutAt(keeps_spaces ? at : Stripped(text.substr(0, at), /*left=*/false).size(), *prompt);
  return prompt;
}

}  // namespace fairlead
