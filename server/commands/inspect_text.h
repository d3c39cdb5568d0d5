// SPDX-License-Identifier: Apache-2.0
// The parts of a report that are about text: a model's tokenizer and chat template. One thread.
#pragma once

#include "models/json.h"
#include "models/weights.h"

namespace fairlead {

// {"model", "name", "vocabulary", "bos", "stop_tokens"}: model: how it works, as its file calls it
// ("gpt2", "BPE"); name: its pre-tokenizer in GGUF files ("smollm"), its class in folders
// ("GPT2TokenizerFast"), null where none is given. With one that we lack only these two; null
// where there is none. What is wrong goes to `unusual`, a list.
Json TokenizerInfo(const WeightSource& source, Json& unusual);

// {"name", "source", "characters", "bos_token", "eos_token"}: name: of the markup that it writes
// ("chatml"), null if it is none of those that many models share; source: the file or key that
// holds it. Null where there is none, or it cannot be used.
Json TemplateInfo(const WeightSource& source, Json& unusual);

}  // namespace fairlead
