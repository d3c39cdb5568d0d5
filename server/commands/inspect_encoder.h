// SPDX-License-Identifier: Apache-2.0
// What inspect says of models that make embeddings. One thread.
#pragma once

#include "absl/status/statusor.h"
#include "models/encoder_config.h"
#include "models/json.h"
#include "models/weights.h"

namespace fairlead {

Json EncoderShape(const EncoderConfig& config);
// How token vectors become one; null where the files say nothing of it. What is wrong with them is
// added to `unusual`.
Json PoolingInfo(const WeightSource& source, Json& unusual);

}  // namespace fairlead
