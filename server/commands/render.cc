// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/chat_messages.h"
#include "models/chat_template.h"
#include "server/commands/command.h"
#include "server/commands/json_lines.h"

namespace fairlead {
namespace {

struct RenderOptions {
  std::string template_file;
  std::string model;
};

absl::StatusOr<ChatFormat> LoadTemplate(const RenderOptions& options) {
  if (options.template_file.empty()) {
    absl::StatusOr<ChatFormat> format = LoadChatFormatFromPath(options.model);
    if (format.ok() && !format->has_template())
      return absl::NotFoundError(absl::StrCat(options.model, ": has no chat template"));
    return format;
  }
  if (std::error_code error; std::filesystem::is_regular_file(options.template_file, error)) {
    const auto size = std::filesystem::file_size(options.template_file, error);
    if (!error && size > kMaxTemplateBytes) {
      return absl::InvalidArgumentError(absl::StrCat(options.template_file, " has ", size,
                                                     " bytes; at most ", kMaxTemplateBytes,
                                                     " are allowed"));
    }
  }
  std::ifstream file(options.template_file, std::ios::binary);
  file.peek();  // a folder can be opened and not read: without this the iterator below throws
  if (!file) return absl::NotFoundError(absl::StrCat(options.template_file, ": cannot be read"));
  ChatFormat format;
  format.source.resize(kMaxTemplateBytes + 1);  // a pipe may never end
  file.read(format.source.data(), static_cast<std::streamsize>(format.source.size()));
  format.source.resize(static_cast<size_t>(file.gcount()));
  auto parsed = ParseChatTemplate(format.source);
  if (!parsed.ok()) {
    return absl::Status(parsed.status().code(),
                        absl::StrCat(options.template_file, ": ", parsed.status().message()));
  }
  format.chat_template = *std::move(parsed);
  return format;
}

absl::StatusOr<Json> Render(const ChatFormat& format, const Json& line) {
  if (!line.is_object()) return absl::InvalidArgumentError("a line must be a JSON object");
  Json variables = line;
  Json tokens = Json::object();
  format.SetSpecialTokens(tokens);
  for (const auto& [name, token] : tokens.items())
    if (!variables.contains(name)) variables[name] = token;
  std::string name;
  if (const auto given = variables.find("chat_template"); given != variables.end()) {
    if (!given->is_string()) return absl::InvalidArgumentError("chat_template must be a name");
    name = given->get<std::string>();
    variables.erase(given);
  }
  const auto chosen = format.Choose(name, line.contains("tools") && !line["tools"].is_null());
  if (!chosen.ok()) return chosen.status();
  const auto open = variables.find("continue_final_message");
  const bool continues = open != variables.end() && *open == true;
  if (open != variables.end() && !open->is_boolean())
    return absl::InvalidArgumentError("continue_final_message must be true or false");
  if (const auto add = variables.find("add_generation_prompt");
      continues && add != variables.end() && *add == true) {
    return absl::InvalidArgumentError("continue_final_message excludes add_generation_prompt");
  }
  if (open != variables.end()) variables.erase(open);
  const absl::StatusOr<RenderedPrompt> prompt =
      continues ? RenderUpToFinalContent(**chosen, std::move(variables))
                : (*chosen)->Render(variables);
  if (!prompt.ok()) return prompt.status();
  return Json(prompt->text);
}

absl::Status RunRender(const RenderOptions& options) {
  if (options.template_file.empty() == options.model.empty())
    return UsageError("render needs either --template or --model");
  const absl::StatusOr<ChatFormat> format = LoadTemplate(options);
  if (!format.ok()) return format.status();
  return AnswerJsonLines(std::cin, std::cout,
                         [&format](const Json& line) { return Render(*format, line); });
}

}  // namespace

void AddRenderCommand(CLI::App& app, Command& chosen) {
  const auto options = std::make_shared<RenderOptions>();
  CLI::App& command =
      *app.add_subcommand("render",
                          "Chats to prompts: one JSON object a line in (messages, "
                          "tools, add_generation_prompt, continue_final_message, further "
                          "variables), one JSON string a line out");
  command.add_option("--template", options->template_file, "a file with a Jinja template")
      ->type_name("FILE");
  command.add_option("--model", options->model, "a GGUF file or folder: its own template")
      ->type_name("PATH");
  command.callback([options, &chosen] { chosen = [options] { return RunRender(*options); }; });
}

}  // namespace fairlead
