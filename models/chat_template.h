// SPDX-License-Identifier: Apache-2.0
// Renders a chat template exactly as Hugging Face transformers does: Jinja with trim_blocks,
// lstrip_blocks and loopcontrols, in a sandbox (bounded steps, depth, output and memory). Immutable
// after parsing: any thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "models/json.h"
#include "models/tokenizer.h"

namespace fairlead {

// The special tokens that a model's files may name and its template print.
inline constexpr std::string_view kSpecialTokenNames[] = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

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

// Of a template, as of a file that holds one.
inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

struct ChatTemplateLimits {
  int64_t max_steps = 10'000'000;       // evaluated nodes
  int max_depth = 100;                  // nested expressions, blocks and macro calls
  size_t max_output_bytes = 64u << 20;  // also bounds every string a template builds
  // Processor time of one rendering, looked at between operations, of which none takes 300 ms.
  absl::Duration max_time = absl::Milliseconds(500);
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  // `variables` is an object: messages, tools, documents, add_generation_prompt, special tokens
  // and any extra one. Missing `tools` and `documents` are None; a message has none of its keys
  // that are null. Trusted are those named in kSpecialTokenNames alone: a caller must not get its
  // own strings in under these names. Errors: kInvalidArgument, with raise_exception's message or
  // the line.
  virtual absl::StatusOr<RenderedPrompt> Render(const Json& variables,
                                                absl::Time now = absl::Now()) const = 0;
};

absl::StatusOr<std::unique_ptr<ChatTemplate>> ParseChatTemplate(
    std::string_view source, const ChatTemplateLimits& limits = {});

// The model's own templates and the special tokens they may print.
struct ChatFormat {
  std::unique_ptr<ChatTemplate> chat_template;  // `default`; null: the files have none
  std::string source;                           // its text
  bool unusable = false;                        // the files have templates that cannot be read
  // Further ones by name ("tool_use", "rag"); one that does not parse is an error when chosen.
  std::map<std::string, absl::StatusOr<std::unique_ptr<ChatTemplate>>> named_templates;
  std::string bos_token, eos_token;                // "" if the files name none
  std::map<std::string, std::string> more_tokens;  // of kSpecialTokenNames: those that they name

  bool has_template() const { return chat_template != nullptr || !named_templates.empty(); }
  // The template of a request, as transformers chooses it: the one it names, else `tool_use` if it
  // has tools and there is one, else `default`. Error: there is none of that name, or no default.
  absl::StatusOr<const ChatTemplate*> Choose(const std::string& name, bool has_tools) const;
  // Sets kSpecialTokenNames in `variables`, over whatever stands there.
  void SetSpecialTokens(Json& variables) const;
};
absl::StatusOr<ChatFormat> LoadChatFormat(const WeightSource& source);
absl::StatusOr<ChatFormat> LoadChatFormatFromPath(const std::string& path);

}  // namespace fairlead
