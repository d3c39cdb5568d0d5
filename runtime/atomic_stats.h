// SPDX-License-Identifier: Apache-2.0
// EngineStats that one thread stores and any thread loads, without a lock. Each number is whole;
// together they may straddle a step.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "runtime/engine.h"

namespace fairlead {

class AtomicStats {
 public:
  // All but `waiting`.
  void Store(const EngineStats& stats) {
    Set(kRunning, stats.running);
    Set(kBlocksTotal, stats.kv_blocks_total);
    Set(kBlocksUsed, stats.kv_blocks_used);
    Set(kBlocksCached, stats.kv_blocks_cached);
    Set(kBlocksFree, stats.kv_blocks_free);
    Set(kSteps, stats.steps);
    Set(kGraphSteps, stats.graph_steps);
    Set(kAheadSteps, stats.ahead_steps);
    Set(kPromptTokens, stats.prompt_tokens);
    Set(kGeneratedTokens, stats.generated_tokens);
    Set(kPrefixQueryTokens, stats.prefix_query_tokens);
    Set(kPrefixHitTokens, stats.prefix_hit_tokens);
    Set(kPreemptions, stats.preemptions);
    Set(kNonfiniteLogits, stats.nonfinite_logits);
    Set(kDrafts, stats.drafts);
    Set(kDraftTokens, stats.draft_tokens);
    Set(kAcceptedDraftTokens, stats.accepted_draft_tokens);
  }

  // num_held: running and waiting, those included that the engine thread has not seen yet.
  EngineStats Load(int num_held) const {
    const int running = static_cast<int>(Get(kRunning));
    return {.running = running,
            .waiting = std::max(0, num_held - running),
            .kv_blocks_total = static_cast<int>(Get(kBlocksTotal)),
            .kv_blocks_used = static_cast<int>(Get(kBlocksUsed)),
            .kv_blocks_cached = static_cast<int>(Get(kBlocksCached)),
            .kv_blocks_free = static_cast<int>(Get(kBlocksFree)),
            .steps = Get(kSteps),
            .graph_steps = Get(kGraphSteps),
            .ahead_steps = Get(kAheadSteps),
            .prompt_tokens = Get(kPromptTokens),
            .generated_tokens = Get(kGeneratedTokens),
            .prefix_query_tokens = Get(kPrefixQueryTokens),
            .prefix_hit_tokens = Get(kPrefixHitTokens),
            .preemptions = Get(kPreemptions),
            .nonfinite_logits = Get(kNonfiniteLogits),
            .drafts = Get(kDrafts),
            .draft_tokens = Get(kDraftTokens),
            .accepted_draft_tokens = Get(kAcceptedDraftTokens)};
  }

 private:
  enum Field {
    kRunning,
    kBlocksTotal,
    kBlocksUsed,
    kBlocksCached,
    kBlocksFree,
    kSteps,
    kGraphSteps,
    kAheadSteps,
    kPromptTokens,
    kGeneratedTokens,
    kPrefixQueryTokens,
    kPrefixHitTokens,
    kPreemptions,
    kNonfiniteLogits,
    kDrafts,
    kDraftTokens,
    kAcceptedDraftTokens,
    kNumFields,
  };

  void Set(Field field, int64_t value) { value_[field].store(value, std::memory_order_relaxed); }
  int64_t Get(Field field) const { return value_[field].load(std::memory_order_relaxed); }

  std::array<std::atomic<int64_t>, kNumFields> value_ = {};
};

}  // namespace fairlead
