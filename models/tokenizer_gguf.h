// SPDX-License-Identifier: Apache-2.0
// The tokenizer in a GGUF file's metadata: the keys tokenizer.ggml.*, as the GGUF specification and
// the files in circulation have them.
#pragma once

#include "absl/status/statusor.h"
#include "models/bpe_tokenizer.h"
#include "models/json.h"

namespace fairlead {

// The parts of a byte-level BPE tokenizer ("gpt2"); views into `metadata`. Token types: 3 (control)
// is an added token with special = true, 4 (user-defined) one with special = false. kUnimplemented
// names an unknown tokenizer.ggml.model or .pre and lists the known ones; kInvalidArgument names a
// malformed key.
absl::StatusOr<BpeTokenizerParts> DescribeGgufTokenizer(const Json& metadata);

}  // namespace fairlead
