// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/commands/command.h"
#include "server/commands/http_client.h"
#include "server/commands/local_service.h"
#include "server/commands/sampling_flags.h"
#include "server/config.h"

namespace fairlead {
namespace {

struct ChatOptions {
  RuntimeConfig runtime;
  SamplingConfig sampling;
  std::vector<Flag> flags;
  FlagTexts texts;
  std::string url, url_key_file, system;
};

struct Turn {
  std::string role, content;
};

// Somebody who answers a conversation, piece by piece.
class Partner {
 public:
  virtual ~Partner() = default;
  virtual absl::StatusOr<std::string> Answer(const std::vector<Turn>& turns) = 0;
};

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

class LocalPartner final : public Partner {
 public:
  LocalPartner(std::unique_ptr<LocalService> service, const SamplingConfig& sampling)
      : service_(std::move(service)), sampling_(sampling) {}

  absl::StatusOr<std::string> Answer(const std::vector<Turn>& turns) override {
    pb::GenerateRequest request;
    for (const Turn& turn : turns) {
      pb::Message& message = *request.mutable_chat()->add_messages();
      message.set_role(turn.role);
      message.set_content(turn.content);
    }
    FillRequest(sampling_, request);
    const absl::StatusOr<LocalAnswer> answer = service_->Generate(request, Print);
    if (!answer.ok()) return answer.status();
    return answer->response.choices(0).text();
  }

 private:
  const std::unique_ptr<LocalService> service_;
  const SamplingConfig& sampling_;
};

class RemotePartner final : public Partner {
 public:
  RemotePartner(Url url, std::string key, const std::vector<Flag>& sampling)
      : url_(std::move(url)), key_(std::move(key)) {
    for (const Flag& flag : sampling) {
      std::string name = flag.name;
      std::replace(name.begin(), name.end(), '-', '_');  // the API's spelling
      if (Json value = flag.get(); !value.is_null()) body_[name] = std::move(value);
    }
    body_["stream"] = true;
  }

  absl::StatusOr<std::string> Answer(const std::vector<Turn>& turns) override {
    Json body = body_;
    for (const Turn& turn : turns)
      body["messages"].push_back({{"role", turn.role}, {"content", turn.content}});
    std::string text;
    absl::Status failure;
    const absl::Status status =
        PostForEvents(url_, "/v1/chat/completions", key_, DumpJson(body),
                      [&](const std::string& data) { ReadEvent(data, text, failure); });
    if (!status.ok()) return status;
    if (!failure.ok()) return failure;
    return text;
  }

 private:
  static void ReadEvent(const std::string& data, std::string& text, absl::Status& failure) {
    if (data == "[DONE]") return;
    const absl::StatusOr<Json> event = ParseJson(data);
    if (!event.ok() || !event->is_object()) {
      failure = absl::DataLossError("the server sent an event that is not a JSON object");
      return;
    }
    if (event->contains("error")) {
      failure = absl::UnavailableError(DumpJson((*event)["error"]));
      return;
    }
    const Json& choices = event->value("choices", Json::array());
    for (const Json& choice : choices) {
      if (!choice.is_object() || !choice.contains("delta") || !choice["delta"].is_object())
        continue;
      const Json content = choice["delta"].value("content", Json());
      if (!content.is_string()) continue;
      Print(content.get<std::string>());
      text += content.get<std::string>();
    }
  }

  const Url url_;
  const std::string key_;
  Json body_ = Json::object();
};

absl::StatusOr<std::string> ReadKey(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  std::string key;
  if (!std::getline(file, key)) return absl::NotFoundError(absl::StrCat(path, ": holds no key"));
  return std::string(absl::StripAsciiWhitespace(key));
}

absl::StatusOr<std::unique_ptr<Partner>> MakePartner(const ChatOptions& options,
                                                     const std::vector<Flag>& sampling) {
  if (!options.url.empty()) {
    absl::StatusOr<Url> url = ParseUrl(options.url);
    if (!url.ok())
      return UsageError({url.status().message().data(), url.status().message().size()});
    absl::StatusOr<std::string> key = ReadKey(options.url_key_file);
    if (!key.ok()) return key.status();
    return std::make_unique<RemotePartner>(*std::move(url), *std::move(key), sampling);
  }
  auto service = LocalService::Load(options.runtime);
  if (!service.ok()) return service.status();
  return std::make_unique<LocalPartner>(*std::move(service), options.sampling);
}

// A refused turn is told and forgotten; the conversation goes on.
absl::Status Converse(Partner& partner, const std::string& system) {
  const bool is_terminal = isatty(STDIN_FILENO) != 0;
  std::vector<Turn> turns;
  if (!system.empty()) turns.push_back({"system", system});
  if (is_terminal) Print("Ctrl-D ends the chat.\n");
  std::string line;
  while (true) {
    if (is_terminal) Print("> ");
    if (!std::getline(std::cin, line)) break;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    turns.push_back({"user", line});
    const absl::StatusOr<std::string> answer = partner.Answer(turns);
    if (answer.ok() || is_terminal) Print("\n");
    if (!answer.ok()) {
      if (!is_terminal) return answer.status();
      std::fprintf(stderr, "refused: %s\n", std::string(answer.status().message()).c_str());
      turns.pop_back();
      continue;
    }
    turns.push_back({"assistant", *answer});
  }
  if (is_terminal) Print("\n");
  return absl::OkStatus();
}

absl::Status RunChat(ChatOptions& options) {
  if (absl::Status status = ApplyTexts(options.texts, "--", options.flags); !status.ok())
    return UsageError({status.message().data(), status.message().size()});
  if (options.url.empty() == options.runtime.model.empty())
    return UsageError("chat needs either --model or --url");
  SetUpLog(options.runtime.log_level);
  const auto partner = MakePartner(options, SamplingFlags(options.sampling));
  if (!partner.ok()) return partner.status();
  return Converse(**partner, options.system);
}

}  // namespace

void AddChatCommand(CLI::App& app, Command& chosen) {
  const auto options = std::make_shared<ChatOptions>();
  options->runtime.max_num_seqs = 1;
  options->runtime.log_level = "warn";
  CLI::App& command = *app.add_subcommand(
      "chat", "A chat in the terminal, with a model loaded here or with a server");
  command.add_option("--url", options->url, "a server: http://127.0.0.1:8000")->type_name("URL");
  command.add_option("--url-key-file", options->url_key_file, "a file with the API key for --url")
      ->type_name("FILE");
  command.add_option("--system", options->system, "the system message")->type_name("TEXT");
  options->flags = SamplingFlags(options->sampling);
  for (Flag& flag : RuntimeFlags(options->runtime)) options->flags.push_back(std::move(flag));
  AddFlags(command, options->flags, options->texts);
  command.callback([options, &chosen] { chosen = [options] { return RunChat(*options); }; });
}

}  // namespace fairlead
