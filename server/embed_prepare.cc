// SPDX-License-Identifier: Apache-2.0
#include "server/embed_prepare.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/prepare.h"

namespace fairlead {
namespace {

// What a request asks of each of its texts.
struct TextOptions {
  size_t max_tokens = 0;
  bool truncate = false;
  bool add_special_tokens = true;
  bool parse_special = true;
};

// About one of the texts; the field is its name without an index.
absl::Status InputError(const std::string& name, const std::string& problem,
                        std::string_view code = "") {
  return FieldError(name.substr(0, name.find('[')), absl::StrCat(name, " ", problem), code);
}

absl::Status TooLong(const std::string& name, const std::string& has, size_t max_tokens) {
  return InputError(
      name,
      absl::StrCat("has ", has, " tokens, special tokens included; the model takes ", max_tokens,
                   " (truncate_prompt_tokens: -1 keeps the first of them)"),
      "context_length_exceeded");
}

absl::StatusOr<TextOptions> ReadOptions(const ServedModel& model, const EmbedTraits& traits,
                                        const pb::EmbedRequest& request) {
  TextOptions options;
  options.max_tokens = static_cast<size_t>(traits.max_tokens);
  options.add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
  options.parse_special = !request.has_parse_special() || request.parse_special();
  if (request.has_dimensions() &&
      (request.dimensions() < 1 || request.dimensions() > model.dimensions)) {
    return FieldError("dimensions", absl::StrCat("dimensions is ", request.dimensions(),
                                                 "; allowed: 1 to ", model.dimensions));
  }
  if (!request.has_truncate_prompt_tokens()) return options;
  const int kept = request.truncate_prompt_tokens();
  options.truncate = true;
  const bool has_frames =  // token ids get none
      options.add_special_tokens &&
      std::any_of(request.inputs().begin(), request.inputs().end(),
                  [](const pb::EmbedInput& input) { return input.has_text(); });
  const int least = has_frames ? static_cast<int>(traits.frame.size()) + 1 : 1;
  if (traits.max_tokens < least) {
    return FieldError("truncate_prompt_tokens",
                      absl::StrCat("no text fits: the model takes ", traits.max_tokens,
                                   " tokens, and special tokens leave room from ", least, " on"));
  }
  if (kept == -1) return options;
  if (kept < least || kept > traits.max_tokens) {
    return FieldError("truncate_prompt_tokens",
                      absl::StrCat("truncate_prompt_tokens is ", kept, "; allowed: ", least, " to ",
                                   traits.max_tokens, ", special tokens included, or -1 for ",
                                   traits.max_tokens));
  }
  options.max_tokens = static_cast<size_t>(kept);
  return options;
}

// As the library cuts a text: its first tokens stay, and all special tokens around them.
std::vector<Token> EncodeFirst(const Tokenizer& tokenizer, const TextFrame& frame,
                               const std::string& text, const TextOptions& options,
                               const std::atomic<bool>& cancelled) {
  const size_t room = options.max_tokens - (options.add_special_tokens ? frame.size() : 0);
  std::vector<Token> tokens = tokenizer.Encode(text, {.add_special_tokens = false,
                                                      .parse_special = options.parse_special,
                                                      .enough_tokens = room,
                                                      .cancelled = &cancelled});
  tokens.resize(std::min(tokens.size(), room));
  if (!options.add_special_tokens) return tokens;
  tokens.insert(tokens.begin(), frame.before.begin(), frame.before.end());
  tokens.insert(tokens.end(), frame.after.begin(), frame.after.end());
  return tokens;
}

absl::StatusOr<std::vector<Token>> EncodeWhole(const Tokenizer& tokenizer, const std::string& text,
                                               const std::string& name, const TextOptions& options,
                                               const std::atomic<bool>& cancelled) {
  // Megabytes need not be tokenized to say that they are too long.
  if (const size_t least = tokenizer.MinTokens(text); least > options.max_tokens) {
    return TooLong(name, absl::StrCat(text.size(), " bytes, at least ", least), options.max_tokens);
  }
  constexpr size_t kCounted = 64 << 10;  // exactly, for the error
  const size_t enough = std::max(kCounted, 4 * options.max_tokens);
  std::vector<Token> tokens =
      tokenizer.Encode(text, {.add_special_tokens = options.add_special_tokens,
                              .parse_special = options.parse_special,
                              .enough_tokens = enough,
                              .cancelled = &cancelled});
  if (tokens.size() <= options.max_tokens || cancelled) return tokens;
  return TooLong(
      name,
      tokens.size() > enough ? absl::StrCat("more than ", enough) : absl::StrCat(tokens.size()),
      options.max_tokens);
}

absl::StatusOr<std::vector<Token>> TokensOf(const ServedModel& model, const EmbedTraits& traits,
                                            const pb::EmbedInput& input, const std::string& name,
                                            const TextOptions& options,
                                            const std::atomic<bool>& cancelled) {
  if (input.has_tokens()) {
    const auto& ids = input.tokens().ids();
    if (ids.empty()) return InputError(name, "has no tokens");
    if (static_cast<size_t>(ids.size()) > options.max_tokens && !options.truncate)
      return TooLong(name, absl::StrCat(ids.size()), options.max_tokens);
    const size_t kept = std::min(static_cast<size_t>(ids.size()), options.max_tokens);
    return std::vector<Token>(ids.begin(), ids.begin() + static_cast<int>(kept));
  }
  if (!input.has_text()) return InputError(name, "is neither text nor token ids");
  if (model.tokenizer == nullptr) {
    return InputError(
        name, "needs a tokenizer, and the server runs with --skip-tokenizer: send token ids");
  }
  if (input.text().empty()) return InputError(name, "is an empty string");
  if (options.truncate)
    return EncodeFirst(*model.tokenizer, traits.frame, input.text(), options, cancelled);
  return EncodeWhole(*model.tokenizer, input.text(), name, options, cancelled);
}

absl::Status CheckTokens(const ServedModel& model, const EmbedTraits& traits,
                         const std::vector<Token>& tokens, const std::string& name) {
  if (tokens.empty()) return InputError(name, "has no tokens");
  if (tokens.size() > static_cast<size_t>(traits.max_tokens))
    return TooLong(name, absl::StrCat(tokens.size()), static_cast<size_t>(traits.max_tokens));
  for (const Token token : tokens) {
    if (token >= 0 && token < model.vocab_size) continue;
    return InputError(name,
                      absl::StrCat("holds token ", token, "; the model's vocabulary has 0 to ",
                                   model.vocab_size - 1));
  }
  return absl::OkStatus();
}

// What `whole` has before and after `bare`; none if that is empty or not a part of it.
std::optional<TextFrame> FrameAround(absl::Span<const Token> bare, absl::Span<const Token> whole) {
  if (bare.empty()) return std::nullopt;
  for (size_t before = 0; before + bare.size() <= whole.size(); ++before) {
    if (whole.subspan(before, bare.size()) != bare) continue;
    const auto first = whole.subspan(0, before), last = whole.subspan(before + bare.size());
    return TextFrame{.before = {first.begin(), first.end()}, .after = {last.begin(), last.end()}};
  }
  return std::nullopt;
}

std::optional<TextFrame> FrameOfText(const Tokenizer& tokenizer, std::string_view text) {
  return FrameAround(tokenizer.Encode(text, {.add_special_tokens = false}),
                     tokenizer.Encode(text, {.add_special_tokens = true}));
}

}  // namespace

absl::StatusOr<TextFrame> FrameOf(const Tokenizer& tokenizer) {
  std::optional<TextFrame> frame = FrameOfText(tokenizer, "a");
  if (frame && frame == FrameOfText(tokenizer, "0 b")) return *std::move(frame);
  return absl::UnimplementedError(
      "the tokenizer adds special tokens inside of texts, or others to one text than to another");
}

std::string OpenAiInputName(const pb::EmbedRequest& request, int index) {
  return request.inputs_size() == 1 ? "input" : absl::StrCat("input[", index, "]");
}

absl::StatusOr<PreparedEmbed> PrepareEmbed(const ServedModel& model, const EmbedTraits& traits,
                                           const pb::EmbedRequest& request,
                                           const std::atomic<bool>& cancelled,
                                           const InputName& names) {
  if (absl::Status status = CheckModelName(model, request.model()); !status.ok()) return status;
  if (request.inputs_size() < 1 || request.inputs_size() > kMaxEmbedInputs) {
    return FieldError("input", absl::StrCat("input has ", request.inputs_size(),
                                            " texts; allowed: 1 to ", kMaxEmbedInputs));
  }
  const absl::StatusOr<TextOptions> options = ReadOptions(model, traits, request);
  if (!options.ok()) return options.status();
  PreparedEmbed prepared;
  prepared.dimensions = request.has_dimensions() ? request.dimensions() : model.dimensions;
  prepared.normalize = request.has_normalize() ? request.normalize() : traits.normalize;
  prepared.texts.reserve(static_cast<size_t>(request.inputs_size()));
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string name = names(request, i);
    auto tokens = TokensOf(model, traits, request.inputs(i), name, *options, cancelled);
    if (cancelled) return RequestCancelled();  // whatever else may be said of what is not there
    if (!tokens.ok()) return tokens.status();
    if (absl::Status status = CheckTokens(model, traits, *tokens, name); !status.ok())
      return status;
    prepared.prompt_tokens += static_cast<int64_t>(tokens->size());
    prepared.texts.push_back(*std::move(tokens));
  }
  return prepared;
}

}  // namespace fairlead
