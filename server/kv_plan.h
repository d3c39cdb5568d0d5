// SPDX-License-Identifier: Apache-2.0
// How much memory the KV cache gets and how long a request may be. A pure function: any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "server/config_flag.h"

namespace fairlead {

struct KvPlanInput {
  size_t block_bytes = 0;  // of one block in all layers
  int block_tokens = 0;
  int model_positions = 0;  // what the model's config promises
  int max_num_seqs = 0;
  size_t free_bytes = 0;
  std::optional<int64_t> max_model_len;  // as asked for
  std::optional<MemorySize> memory;      // as asked for
};

struct KvPlan {
  size_t bytes = 0;
  int max_model_len = 0;
  bool shortened = false;  // the memory holds less than the model's context
};

// Without `memory`: a quarter of what is free, but no more than max_num_seqs requests of full
// length can use. Without `max_model_len`: the model's context, or what the cache holds if that is
// less; a longer one than the model's is cut to it. kInvalidArgument when more is asked for
// than is free, or a request of the length asked for, or a single block, does not fit: both
// numbers.
absl::StatusOr<KvPlan> PlanKvCache(const KvPlanInput& input);
// What weights must leave for the cache where they could take all memory (free_bytes: before them):
// the bytes that were asked for; or one request of the length that was asked for; or else one of
// the model's, but at most a sixteenth.
size_t KvBytesToKeep(const KvPlanInput& input);

}  // namespace fairlead
