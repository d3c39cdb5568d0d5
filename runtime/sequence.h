// SPDX-License-Identifier: Apache-2.0
// One request's mutable state. Owned by the scheduler; engine thread only. Everything it will ever hold is reserved when
// it is made, so that the step loop allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "runtime/kv_cache.h"
#include "runtime/request.h"

namespace fairlead {

struct Sequence {
  uint64_t id = 0;
  EngineRequest request;          // request.prompt is moved into `tokens`
  std::shared_ptr<TokenSink> sink;
  absl::Time arrival;

  std::vector<Token> tokens;      // prompt, then output; capacity prompt + max_tokens
  int num_prompt_tokens = 0;
  int num_computed_tokens = 0;    // positions whose keys and values are in the cache
  BlockTable blocks;
  EngineResult result;

  int num_output_tokens() const { return static_cast<int>(tokens.size()) - num_prompt_tokens; }
};

}  // namespace fairlead
