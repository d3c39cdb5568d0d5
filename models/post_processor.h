// SPDX-License-Identifier: Apache-2.0
// What a tokenizer puts around the tokens of a text: tokenizer.json's "post_processor" as far as it
// changes ids (TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel, Sequence), or
// GGUF's add_bos_token and add_eos_token. One text at a time, never pairs. Immutable: any thread.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/tokenizer.h"

namespace fairlead {

class PostProcessor {
 public:
  PostProcessor() = default;  // changes nothing
  // kUnimplemented names an unknown type and lists the known ones; kInvalidArgument for malformed
  // values.
  static absl::StatusOr<PostProcessor> FromJson(const Json& json);
  static PostProcessor Around(std::optional<Token> first, std::optional<Token> last);

  // Without `add_special_tokens` the tokens come back as they are.
  std::vector<Token> Apply(std::vector<Token> tokens, bool add_special_tokens) const;

 private:
  // A null stands for the tokens so far.
  using Template = std::vector<std::optional<Token>>;

  static absl::StatusOr<Template> ParseTemplate(const Json& json);
  static absl::StatusOr<Template> ParseClsSep(const Json& json);
  absl::Status Add(const Json& json);

  std::vector<Template> template_;  // applied one after the other
};

}  // namespace fairlead
