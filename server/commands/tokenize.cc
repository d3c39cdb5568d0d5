// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "models/tokenizer.h"
#include "server/commands/command.h"
#include "server/commands/json_lines.h"
#include "server/json_fields.h"

namespace fairlead {
namespace {

struct TokenizeOptions {
  std::string tokenizer;
  bool decode = false;
  bool no_special_tokens = false;
  bool skip_special_tokens = false;
};

absl::StatusOr<Json> Encode(const Tokenizer& tokenizer, const TokenizeOptions& options,
                            const Json& text) {
  if (!text.is_string()) return absl::InvalidArgumentError("a line must be a JSON string");
  return Json(tokenizer.Encode(text.get_ref<const std::string&>(),
                               {.add_special_tokens = !options.no_special_tokens}));
}

absl::StatusOr<Json> Decode(const Tokenizer& tokenizer, const TokenizeOptions& options,
                            const Json& ids) {
  if (!ids.is_array())
    return absl::InvalidArgumentError("a line must be a JSON array of token ids");
  std::vector<Token> tokens;
  tokens.reserve(ids.size());
  for (const Json& item : ids) {
    const auto id = JsonInteger(item, 0, std::numeric_limits<Token>::max());
    if (!id) return absl::InvalidArgumentError(absl::StrCat(DumpJson(item), " is not a token id"));
    tokens.push_back(static_cast<Token>(*id));
  }
  return Json(tokenizer.Decode(tokens, options.skip_special_tokens));
}

absl::Status RunTokenize(const TokenizeOptions& options) {
  const auto tokenizer = LoadTokenizerFromPath(options.tokenizer);
  if (!tokenizer.ok()) return tokenizer.status();
  return AnswerJsonLines(std::cin, std::cout, [&](const Json& line) {
    return options.decode ? Decode(**tokenizer, options, line) : Encode(**tokenizer, options, line);
  });
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, Command& chosen) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App& command = *app.add_subcommand(
      "tokenize", "Text to token ids and back: one JSON value a line in, one a line out");
  command
      .add_option("--tokenizer", options->tokenizer,
                  "a GGUF file, a folder, a tokenizer.json or a tokenizer.model")
      ->required()
      ->type_name("PATH");
  command.add_flag("--decode", options->decode, "lines are arrays of token ids");
  command.add_flag("--no-special-tokens", options->no_special_tokens,
                   "do not add what the tokenizer adds by itself (bos, eos ...)");
  command.add_flag("--skip-special-tokens", options->skip_special_tokens,
                   "leave special tokens out of decoded text");
  command.callback([options, &chosen] { chosen = [options] { return RunTokenize(*options); }; });
}

}  // namespace fairlead
