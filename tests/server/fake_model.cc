// SPDX-License-Identifier: Apache-2.0
#include "tests/server/fake_model.h"

#include <utility>

#include "models/detokenizer.h"

namespace fairlead {
namespace {

class FakeChatTemplate final : public ChatTemplate {
 public:
  absl::StatusOr<RenderedPrompt> Render(const Json& variables, absl::Time) const override {
    RenderedPrompt prompt;
    const auto add = [&prompt](const std::string& text, bool trusted) {
      const size_t begin = prompt.text.size();
      prompt.text += text;
      prompt.runs.push_back({begin, prompt.text.size(), trusted});
    };
    for (const Json& message : variables["messages"]) {
      const auto role = message["role"].get<std::string>();
      if (role == "bad") return absl::InvalidArgumentError("the role bad is not allowed");
      add(role + ": ", true);
      if (message["content"].is_string()) add(message["content"].get<std::string>(), false);
      add("\n", true);
    }
    if (variables.value("add_generation_prompt", false)) add("assistant: ", true);
    return prompt;
  }
};

}  // namespace

FakeTokenizer::FakeTokenizer() {
  for (int byte = 0; byte < 256; ++byte) bytes_.emplace_back(1, static_cast<char>(byte));
  bytes_.emplace_back("<bos>");
  bytes_.emplace_back("<eos>");
}

std::vector<Token> FakeTokenizer::Encode(absl::Span<const TextPiece> pieces,
                                         const EncodeOptions& options) const {
  std::vector<Token> tokens;
  if (options.add_special_tokens) tokens.push_back(kBos);
  for (const TextPiece& piece : pieces) {
    if (options.cancelled != nullptr && *options.cancelled) break;
    for (size_t i = 0; i < piece.text.size();) {
      if (piece.trusted && options.parse_special && piece.text.substr(i, 5) == "<eos>") {
        tokens.push_back(kEos);
        i += 5;
      } else {
        tokens.push_back(static_cast<unsigned char>(piece.text[i++]));
      }
    }
  }
  return tokens;
}

std::string FakeTokenizer::Decode(absl::Span<const Token> tokens, bool skip_special_tokens) const {
  std::string bytes;
  for (const Token token : tokens) {
    if (!skip_special_tokens || !IsSpecial(token)) bytes += Bytes(token);
  }
  return ReplaceInvalidUtf8(bytes);
}

std::string_view FakeTokenizer::Bytes(Token token) const {
  return token >= 0 && token < kVocabulary ? std::string_view(bytes_[static_cast<size_t>(token)])
                                           : std::string_view();
}

ChatFormat FakeChatFormat() {
  ChatFormat format;
  format.chat_template = std::make_unique<FakeChatTemplate>();
  format.bos_token = "<bos>";
  format.eos_token = "<eos>";
  return format;
}

ServedModel FakeServedModel(const Tokenizer* tokenizer, const ChatFormat* chat_format) {
  return {.name = "fake",
          .architecture = "FakeForCausalLM",
          .parameters = 42,
          .created = 1'700'000'000,
          .tokenizer = tokenizer,
          .chat_format = chat_format,
          .vocab_size = FakeTokenizer::kVocabulary,
          .max_logprobs = 20};
}

std::vector<Token> TokensOf(std::string_view text) {
  std::vector<Token> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

}  // namespace fairlead
