// SPDX-License-Identifier: Apache-2.0
// A Llama-family model in Hugging Face's layout as a GGUF file of architecture "llama" without a
// tokenizer: how a peer gets the weights that --load-format dummy makes. Any thread.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "models/weights.h"

namespace fairlead::bench {

// Names are llama.cpp's; rows of q and k are permuted so that elements 2i and 2i + 1 of a head
// rotate together, as its converter does (convert_hf_to_gguf.py, LlamaModel.permute). llama3 RoPE
// scaling becomes the tensor rope_freqs.weight. kInvalidArgument for a source that is a GGUF file
// or whose heads rotate in part; otherwise as LoadModelConfig, and kUnavailable when `path` cannot
// be written.
absl::Status WriteLlamaGguf(const WeightSource& source, const std::string& name,
                            const std::string& path);

}  // namespace fairlead::bench
