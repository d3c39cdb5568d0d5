// SPDX-License-Identifier: Apache-2.0
// The vocabulary in a GGUF file's metadata (tokenizer.ggml.tokens, token_type, scores, *_token_id),
// as the GGUF specification and the files in circulation have it.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/post_processor.h"
#include "models/tokenizer.h"

namespace fairlead {

// tokenizer.ggml.token_type
enum class GgufTokenType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct GgufVocabulary {
  std::vector<std::string_view> token;  // by id; views into the metadata
  std::vector<GgufTokenType> type;      // empty if the file has none
  std::vector<float> score;             // empty if the file has none
  std::optional<Token> bos;
  std::optional<Token> eos;
  std::optional<Token> unknown;
  std::optional<Token> separator;
  std::vector<Token> stop;  // eos, eot and eom

  GgufTokenType TypeOf(size_t id) const { return type.empty() ? GgufTokenType::kNormal : type[id]; }
};

// kInvalidArgument names the malformed key: no tokens, lists of other lengths or types, an id
// without a token.
absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const Json& metadata);

// From add_bos_token and add_eos_token; `bos` and `eos` are what models of the kind do where the
// file does not say and has the token.
absl::StatusOr<PostProcessor> ReadGgufPostProcessor(const Json& metadata,
                                                    const GgufVocabulary& vocabulary, bool bos,
                                                    bool eos);

// Of tokenizer.ggml.KEY: null if the key is absent; kInvalidArgument if it is no array.
absl::StatusOr<const Json*> FindGgufList(const Json& metadata, std::string_view key);
absl::Status MalformedGguf(std::string_view key, std::string_view what);

}  // namespace fairlead
