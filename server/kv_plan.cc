// SPDX-License-Identifier: Apache-2.0
#include "server/kv_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace fairlead {
namespace {

constexpr double kDefaultShare = 0.25;

size_t BytesFor(const KvPlanInput& input, int64_t tokens) {
  const size_t blocks = (static_cast<size_t>(tokens) + input.block_tokens - 1) / input.block_tokens;
  return blocks * input.block_bytes;
}

size_t Budget(const KvPlanInput& input, int64_t max_model_len) {
  if (input.memory && input.memory->percent <= 0) return input.memory->bytes;
  const double share = input.memory ? input.memory->percent / 100 : kDefaultShare;
  const auto bytes = static_cast<size_t>(static_cast<double>(input.free_bytes) * share);
  if (input.memory) return bytes;
  return std::min(bytes, BytesFor(input, max_model_len) * input.max_num_seqs);
}

}  // namespace

size_t KvBytesToKeep(const KvPlanInput& input) {
  if (input.memory && input.memory->percent <= 0) return input.memory->bytes;
  const int64_t wanted =
      std::min<int64_t>(input.max_model_len.value_or(input.model_positions), input.model_positions);
  const size_t request = BytesFor(input, wanted);
  return input.max_model_len ? request : std::min(request, input.free_bytes / 16);
}

absl::StatusOr<KvPlan> PlanKvCache(const KvPlanInput& input) {
  const int64_t wanted =
      std::min<int64_t>(input.max_model_len.value_or(input.model_positions), input.model_positions);
  KvPlan plan{.bytes = Budget(input, wanted), .max_model_len = static_cast<int>(wanted)};
  const size_t needed = BytesFor(input, wanted);
  if (plan.bytes > input.free_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("--kv-cache-memory asks for ", plan.bytes,
                                                   " bytes; ", input.free_bytes,
                                                   " bytes are free"));
  }
  if (plan.bytes >= needed) return plan;
  const int64_t held = static_cast<int64_t>(plan.bytes / input.block_bytes) * input.block_tokens;
  if (input.max_model_len || held == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the KV cache of ", plan.bytes, " bytes holds ", held, " tokens; a request of ", wanted,
        " tokens needs ", needed, " bytes: raise --kv-cache-memory or lower --max-model-len"));
  }
  plan.max_model_len = static_cast<int>(held);
  plan.shortened = true;
  return plan;
}

}  // namespace fairlead
