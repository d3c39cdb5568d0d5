// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/strings.h"
#include "server/commands/command.h"
#include "server/commands/local_service.h"
#include "server/commands/sampling_flags.h"
#include "server/config.h"

namespace fairlead {
namespace {

struct GenerateOptions {
  RuntimeConfig runtime;
  SamplingConfig sampling;
  std::vector<Flag> flags;
  FlagTexts texts;
  std::optional<std::string> prompt, chat, prompt_tokens;
  std::string system;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool json = false;
};

absl::Status ReadTokens(const std::string& text, pb::TokenIds& tokens) {
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(item, &id))
      return UsageError(StrCat("--prompt-tokens: '", std::string(item),
                               "' is not a token id; ids are separated by commas"));
    tokens.add_ids(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<pb::GenerateRequest> MakeRequest(const GenerateOptions& options) {
  pb::GenerateRequest request;
  if (options.prompt.has_value() + options.chat.has_value() + options.prompt_tokens.has_value() !=
      1) {
    return UsageError("generate needs one of --prompt, --chat and --prompt-tokens");
  }
  if (options.prompt) request.set_prompt(*options.prompt);
  if (options.prompt_tokens) {
    const absl::Status status =
        ReadTokens(*options.prompt_tokens, *request.mutable_prompt_tokens());
    if (!status.ok()) return status;
  }
  if (options.chat) {
    const auto add = [&request](const char* role, const std::string& content) {
      pb::Message& message = *request.mutable_chat()->add_messages();
      message.set_role(role);
      message.set_content(content);
    };
    if (!options.system.empty()) add("system", options.system);
    add("user", *options.chat);
  }
  FillRequest(options.sampling, request);
  for (const std::string& stop : options.stop) request.mutable_stop()->add_stop(stop);
  request.mutable_stop()->set_ignore_eos(options.ignore_eos);
  request.mutable_output()->set_return_token_ids(true);
  return request;
}

double PerSecond(int tokens, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  return seconds > 0 ? tokens / seconds : 0;
}

Json AnswerJson(const LocalAnswer& answer) {
  const pb::GenerateResponse& response = answer.response;
  const pb::Choice& choice = response.choices(0);
  const pb::Usage& usage = response.usage();
  const auto& ids = choice.token_ids();
  // The first token comes with the prompt; the rest is decoding.
  return {
      {"text", choice.text()},
      {"token_ids", std::vector<int32_t>(ids.begin(), ids.end())},
      {"finish_reason", choice.finish().reason() == pb::FINISH_REASON_LENGTH ? "length" : "stop"},
      {"seed", response.started().seed()},
      {"usage",
       {{"prompt_tokens", usage.prompt_tokens()},
        {"completion_tokens", usage.completion_tokens()},
        {"total_tokens", usage.prompt_tokens() + usage.completion_tokens()}}},
      {"timings",
       {{"first_token_ms", absl::ToDoubleMilliseconds(answer.first_token)},
        {"total_ms", absl::ToDoubleMilliseconds(answer.total)},
        {"prompt_tokens_per_second", PerSecond(usage.prompt_tokens(), answer.first_token)},
        {"decode_tokens_per_second", PerSecond(std::max(usage.completion_tokens() - 1, 0),
                                               answer.total - answer.first_token)}}}};
}

absl::Status RunGenerate(GenerateOptions& options) {
  if (absl::Status status = ApplyTexts(options.texts, "--", options.flags); !status.ok())
    return UsageError({status.message().data(), status.message().size()});
  if (options.runtime.model.empty()) return UsageError("generate needs --model");
  const absl::StatusOr<pb::GenerateRequest> request = MakeRequest(options);
  if (!request.ok()) return request.status();
  SetUpLog(options.runtime.log_level);
  auto service = LocalService::Load(options.runtime);
  if (!service.ok()) return service.status();

  const auto print = [](const std::string& text) {
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  };
  bool mid_line = false;
  std::function<void(const std::string&)> on_text;
  if (!options.json) {
    on_text = [&](const std::string& text) {
      print(text);
      mid_line = true;
    };
  }
  const absl::StatusOr<LocalAnswer> answer = (*service)->Generate(*request, on_text);
  if (!answer.ok()) {
    if (mid_line) print("\n");
    return answer.status();
  }
  if (options.json) {
    print(DumpJson(AnswerJson(*answer)));
  } else if ((*service)->runtime().tokenizer == nullptr) {
    print(absl::StrJoin(answer->response.choices(0).token_ids(), ","));
  }
  print("\n");
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Command& chosen) {
  const auto options = std::make_shared<GenerateOptions>();
  options->runtime.max_num_seqs = 1;
  options->runtime.log_level = "warn";
  CLI::App& command = *app.add_subcommand("generate", "Generates one answer and prints it");
  command.add_option("--prompt", options->prompt, "text to continue")->type_name("TEXT");
  command.add_option("--chat", options->chat, "a message to answer, in the model's chat template")
      ->type_name("TEXT");
  command.add_option("--prompt-tokens", options->prompt_tokens, "token ids to continue: 1,2,3")
      ->type_name("IDS");
  command.add_option("--system", options->system, "the system message of --chat")
      ->type_name("TEXT");
  command.add_option("--stop", options->stop, "text that ends the output; may come several times")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--ignore-eos", options->ignore_eos, "go on when the model would end");
  command.add_flag("--json", options->json,
                   "print one JSON object: text, token_ids, finish_reason, usage, timings");
  options->flags = SamplingFlags(options->sampling);
  for (Flag& flag : RuntimeFlags(options->runtime)) options->flags.push_back(std::move(flag));
  AddFlags(command, options->flags, options->texts);
  command.callback([options, &chosen] { chosen = [options] { return RunGenerate(*options); }; });
}

}  // namespace fairlead
