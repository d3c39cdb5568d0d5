// SPDX-License-Identifier: Apache-2.0
#include "runtime/sequence.h"

namespace fairlead {

std::unique_ptr<Sequence> MakeSequence(EngineRequest request, std::shared_ptr<TokenSink> sink,
                                       absl::Time arrival, int block_tokens, int vocab,
                                       int max_drafts) {
  auto sequence = std::make_unique<Sequence>();
  sequence->sink = std::move(sink);
  sequence->arrival = arrival;
  sequence->edits = LogitEditTable::Create(request, vocab);
  sequence->num_prompt_tokens = static_cast<int>(request.prompt.size());
  const size_t max_tokens = request.prompt.size() + request.max_tokens;
  sequence->tokens = std::move(request.prompt);
  sequence->tokens.reserve(max_tokens);
  // A draft leaves room for the token that is drawn after it.
  if (max_drafts > 0 && request.max_tokens > 1) {
    sequence->drafter =
        std::make_unique<NgramDrafter>(sequence->tokens, static_cast<int>(max_tokens));
    sequence->drafts.reserve(max_drafts);
  }
  sequence->blocks.block.reserve((max_tokens + block_tokens - 1) / block_tokens);
  sequence->request = std::move(request);
  return sequence;
}

}  // namespace fairlead
