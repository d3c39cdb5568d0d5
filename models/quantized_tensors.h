// SPDX-License-Identifier: Apache-2.0
// Quantised linear layers of Hugging Face folders. A layer's codes, scales and zero points become
// one weight under its plain name, "model.layers.0.mlp.up_proj.weight", whose bytes are made when
// they are read (WeightInfo::make) and whose file_dtype names the form: "gptq int4 g128",
// "fp8 e4m3 128x128".
//
// Without loss where a dtype of ours holds all values (quantized_matrix.h): 4-bit codes with the
// zero point in the middle as q4_0, with others as q5_0; 8-bit codes with the zero point in the
// middle as q8_0. Else - FP8, scales that f16 does not hold, act-order, groups that are no multiple
// of 32, 8-bit codes with other zero points - as floats, rounded as the formats' own packages do
// when they dequantise: to the dtype of the scales where that has 16 bits, else to the dtype that
// config.json gives the model; in a model of float32 not at all.
#pragma once

#include "absl/status/status.h"
#include "models/mapped_weights.h"

namespace fairlead {

// Replaces the tensors that contents.config's quantization_config describes. A layer that has a
// plain weight keeps it, whatever the config says. kInvalidArgument names file and tensor: one that
// is missing, has a wrong shape or dtype, or belongs to no quantised weight.
absl::Status ResolveQuantizedTensors(CheckpointContents& contents);

}  // namespace fairlead
