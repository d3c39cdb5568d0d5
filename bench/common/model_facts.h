// SPDX-License-Identifier: Apache-2.0
// What a model costs by its shape: from these and the machine's limits follow the bounds that
// reports print. Any thread.
#pragma once

#include "absl/status/statusor.h"
#include "models/json.h"
#include "models/weights.h"

namespace fairlead::bench {

// {"architecture", "layers", "hidden", "vocab", "heads", "kv_heads", "head_dim",
//  "matrix_dtype":        that most bytes of the layers' matrices have,
//  "layer_parameters":    of the layers' matrices,
//  "head_parameters":     of the head,
//  "decode_weight_bytes": what one step reads at least, as the file stores it: layers and head,
//                         no rows of a separate embedding table,
//  "kv_values_per_token": keys and values of one position in all layers}
absl::StatusOr<Json> ModelFacts(const WeightSource& source);

}  // namespace fairlead::bench
