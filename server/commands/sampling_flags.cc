// SPDX-License-Identifier: Apache-2.0
#include "server/commands/sampling_flags.h"

#include <limits>

namespace fairlead {

std::vector<Flag> SamplingFlags(SamplingConfig& c) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  return {
      OptionalIntFlag(
          "max-tokens", 0, kMost,
          "the most tokens to generate; default: 16, for a chat what the context leaves",
          &c.max_tokens),
      OptionalNumberFlag("temperature", 0, 2, "0 takes the most likely token; default: 1",
                         &c.temperature),
      OptionalIntFlag("seed", 0, std::numeric_limits<int64_t>::max(), "makes draws repeatable",
                      &c.seed),
      OptionalNumberFlag("top-p", 0, 1, "draw from the most likely tokens of this mass", &c.top_p),
      OptionalIntFlag("top-k", -1, kMost, "draw from the k most likely tokens; 0: all", &c.top_k),
      OptionalNumberFlag("min-p", 0, 1, "drop tokens below this share of the best", &c.min_p),
      OptionalNumberFlag("repetition-penalty", 0, 2, "above 1: fewer repetitions",
                         &c.repetition_penalty),
      OptionalNumberFlag("presence-penalty", -2, 2, "for tokens that have appeared",
                         &c.presence_penalty),
      OptionalNumberFlag("frequency-penalty", -2, 2, "for each time a token has appeared",
                         &c.frequency_penalty),
  };
}

void FillRequest(const SamplingConfig& config, v1::GenerateRequest& request) {
  v1::SamplingParams& sampling = *request.mutable_sampling();
  const auto number = [](const std::optional<double>& value) { return static_cast<float>(*value); };
  if (config.temperature) sampling.set_temperature(number(config.temperature));
  if (config.top_p) sampling.set_top_p(number(config.top_p));
  if (config.min_p) sampling.set_min_p(number(config.min_p));
  if (config.repetition_penalty) sampling.set_repetition_penalty(number(config.repetition_penalty));
  if (config.presence_penalty) sampling.set_presence_penalty(number(config.presence_penalty));
  if (config.frequency_penalty) sampling.set_frequency_penalty(number(config.frequency_penalty));
  if (config.top_k) sampling.set_top_k(static_cast<int32_t>(*config.top_k));
  if (config.seed) sampling.set_seed(*config.seed);
  if (config.max_tokens)
    request.mutable_stop()->set_max_tokens(static_cast<int32_t>(*config.max_tokens));
}

}  // namespace fairlead
