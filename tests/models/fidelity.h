// SPDX-License-Identifier: Apache-2.0
// How close a model's next-token distributions are to float32's. One thread.
#pragma once

#include "models/json.h"
#include "tests/models/model_runner.h"

namespace fairlead {

struct Fidelity {
  double kl_mean = 0;
  double largest = 0;  // difference of a listed log-probability
  double top1 = 0;     // share of prefixes
};

// `golden` is tests/golden/smollm2/fidelity.json: {"prefixes": [{"ids", "top": [[id, logprob]]}]},
// made by float32 transformers on the same weights. KL over the listed ids plus one bin for the
// rest; our best agrees when float32 itself puts it within 0.1 of its own.
Fidelity MeasureFidelity(ModelRunner& runner, const Json& golden);

}  // namespace fairlead
