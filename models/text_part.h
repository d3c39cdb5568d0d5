// SPDX-License-Identifier: Apache-2.0
// The text model inside a checkpoint of several modalities, as Hugging Face folders have it: its
// config is config.json's "text_config", its tensors carry a prefix, and beside them lie those of a
// vision tower and a projector. Any thread.
#pragma once

#include <string_view>

#include "models/mapped_weights.h"

namespace fairlead {

// The key in WeightSource::config() that names the checkpoint whose text part it is.
inline constexpr std::string_view kTextPartOf = "text_part_of";

// Makes the contents of a Gemma3ForConditionalGeneration or Mistral3ForConditionalGeneration those
// of its Gemma3ForCausalLM or MistralForCausalLM; leaves others alone. kInvalidArgument for a
// text_config that is no object, kUnimplemented for one of another model_type.
absl::Status TakeTextPart(CheckpointContents& contents);

}  // namespace fairlead
