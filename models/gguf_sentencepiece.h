// SPDX-License-Identifier: Apache-2.0
// The GGUF vocabularies that SentencePiece models became: tokenizer.ggml.model "llama" (BPE by
// scores) and "t5" (unigram, with precompiled_charsmap). Control, unknown and user-defined tokens
// are added tokens, as in the tokenizer.json of the same models.
#pragma once

#include "absl/status/statusor.h"
#include "models/gguf_vocabulary.h"
#include "models/json.h"
#include "models/sentencepiece_tokenizer.h"

namespace fairlead {

// Views into `metadata`. kInvalidArgument names a malformed key.
absl::StatusOr<SentencePieceParts> DescribeGgufSentencePiece(const Json& metadata,
                                                             SegmentationModel model);

}  // namespace fairlead
