// SPDX-License-Identifier: Apache-2.0
// One request's mutable state. Made by the submitter's thread, then owned by the scheduler; engine
// thread only. Everything it will ever hold is reserved when it is made, so that the step loop
// allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "runtime/kv_cache.h"
#include "runtime/logit_edits.h"
#include "runtime/ngram_drafter.h"
#include "runtime/request.h"

namespace fairlead {

// In the place of one that the device has drawn, or will have, and the host has not seen.
inline constexpr Token kUnknownToken = -1;

struct Sequence {
  uint64_t id = 0;        // given in order of arrival
  EngineRequest request;  // request.prompt is moved into `tokens`
  std::shared_ptr<TokenSink> sink;
  absl::Time arrival;

  std::vector<Token> tokens;  // prompt, then output; capacity prompt + max_tokens
  int num_prompt_tokens = 0;
  int num_computed_tokens = 0;    // positions whose keys and values are in the cache
  int num_scored_tokens = 1;      // prompt tokens whose logprobs are delivered; the first has none
  bool nonfinite_logits = false;  // seen while the prompt was scored: the request ends with kError
  int unknown_place = -1;  // the last token is kUnknownToken: where the device has it; else -1
  BlockTable blocks;
  std::unique_ptr<LogitEditTable> edits;  // null: the logits are used as they are
  std::unique_ptr<NgramDrafter> drafter;  // null: nothing is drafted
  std::vector<Token> drafts;              // after `tokens`, in one plan; no stop token among them
  EngineResult result;

  int num_output_tokens() const { return static_cast<int>(tokens.size()) - num_prompt_tokens; }
  // Of a planned position: accepted or drafted.
  Token TokenAt(int position) const {
    const int accepted = static_cast<int>(tokens.size());
    return position < accepted ? tokens[position] : drafts[position - accepted];
  }
  bool scores_prompt() const { return request.prompt_logprobs >= 0; }
  bool has_prompt_to_score() const {
    return scores_prompt() && num_scored_tokens < num_prompt_tokens;
  }
  // A step with it cannot be prepared before the one before has ended.
  bool needs_known_tokens() const {
    return edits != nullptr || drafter != nullptr || has_prompt_to_score();
  }
  void Append(Token token) {
    tokens.push_back(token);
    if (edits != nullptr) edits->Append(token);
    if (drafter != nullptr) drafter->Append(tokens);
  }
};

// Reserves all that the request can come to hold. The id is given later. max_drafts: of one step;
// 0: no speculation.
std::unique_ptr<Sequence> MakeSequence(EngineRequest request, std::shared_ptr<TokenSink> sink,
                                       absl::Time arrival, int block_tokens, int vocab,
                                       int max_drafts = 0);

}  // namespace fairlead
