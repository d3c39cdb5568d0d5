// SPDX-License-Identifier: Apache-2.0
// From an EmbedRequest to what the engine takes: validation, tokenizing, truncation. Pure functions
// of the served model: any thread. Every error names the field, the value and what is allowed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model_service.h"

namespace fairlead {

// OpenAI's limit of a request.
inline constexpr int kMaxEmbedInputs = 2048;

// The special tokens that a tokenizer adds around any text.
struct TextFrame {
  std::vector<Token> before, after;
  size_t size() const { return before.size() + after.size(); }
  bool operator==(const TextFrame&) const = default;
};
// kUnimplemented where it adds others to one text than to another.
absl::StatusOr<TextFrame> FrameOf(const Tokenizer& tokenizer);

struct EmbedTraits {
  int max_tokens = 0;      // of a text, special tokens included
  bool normalize = false;  // unless a request says otherwise
  TextFrame frame;         // of nothing without a tokenizer
};

struct PreparedEmbed {
  std::vector<std::vector<Token>> texts;
  int dimensions = 0;  // of an answer's vector: 1 to the model's
  bool normalize = false;
  int64_t prompt_tokens = 0;
};

// What errors call a text of a request: a field, or a field and an index ("input[3]").
using InputName = std::function<std::string(const pb::EmbedRequest& request, int index)>;
std::string OpenAiInputName(const pb::EmbedRequest& request, int index);

// kCancelled soon after `cancelled` becomes true.
absl::StatusOr<PreparedEmbed> PrepareEmbed(const ServedModel& model, const EmbedTraits& traits,
                                           const pb::EmbedRequest& request,
                                           const std::atomic<bool>& cancelled,
                                           const InputName& names = OpenAiInputName);

}  // namespace fairlead
