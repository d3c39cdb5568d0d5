// SPDX-License-Identifier: Apache-2.0
// Renders a chat template exactly as Hugging Face transformers does: Jinja with trim_blocks,
// lstrip_blocks and loopcontrols, in a sandbox (bounded steps, depth, output and memory). Immutable
// after parsing: any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/json.h"
#include "models/tokenizer.h"

namespace fairlead {

// A rendered prompt that remembers which bytes the template itself wrote (trusted) and which came
// from the caller's strings. `text` is what Hugging Face would return; `pieces` cover it in order
// (views of `text`).
struct RenderedPrompt {
  std::string text;
  struct Run {
    size_t begin, end;
    bool trusted;
  };
  std::vector<Run> runs;

  std::vector<TextPiece> Pieces() const;
};

struct ChatTemplateLimits {
  int64_t max_steps = 10'000'000;       // evaluated nodes
  int max_depth = 100;                  // nested expressions, blocks and macro calls
  size_t max_output_bytes = 64u << 20;  // also bounds every string a template builds
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  // `variables` is an object: messages, tools, documents, add_generation_prompt, bos_token,
  // eos_token and any extra one. Missing `tools` and `documents` are None. Errors:
  // kInvalidArgument, with raise_exception's message or the line.
  virtual absl::StatusOr<RenderedPrompt> Render(const Json& variables,
                                                absl::Time now = absl::Now()) const = 0;
};

absl::StatusOr<std::unique_ptr<ChatTemplate>> ParseChatTemplate(
    std::string_view source, const ChatTemplateLimits& limits = {});

// The model's own template and the special tokens it may print. Null template: the file has none.
struct ChatFormat {
  std::unique_ptr<ChatTemplate> chat_template;
  std::string source;
  std::string bos_token, eos_token;
};
absl::StatusOr<ChatFormat> LoadChatFormat(const WeightSource& source);
absl::StatusOr<ChatFormat> LoadChatFormatFromPath(const std::string& path);

}  // namespace fairlead
