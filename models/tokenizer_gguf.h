// SPDX-License-Identifier: Apache-2.0
// The tokenizer in a GGUF file's metadata: the keys tokenizer.ggml.*, as the GGUF specification and
// the files in circulation have them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/tokenizer.h"

namespace fairlead {

// tokenizer.ggml.model gpt2 (byte-level BPE), llama (SentencePiece BPE), t5 (SentencePiece
// unigram) and bert (WordPiece). Token types: 3 (control) is an added token with special = true, 4
// (user-defined) one with special = false. kUnimplemented names an unknown tokenizer.ggml.model or
// .pre and lists the known ones; kInvalidArgument names a malformed key.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGgufTokenizer(const Json& metadata);

}  // namespace fairlead
