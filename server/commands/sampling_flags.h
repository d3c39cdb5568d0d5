// SPDX-License-Identifier: Apache-2.0
// How generate and chat are told to sample. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fairlead/v1/inference.pb.h"
#include "server/config_flag.h"

namespace fairlead {

// Absent values are the service's defaults.
struct SamplingConfig {
  std::optional<double> temperature, top_p, min_p;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int64_t> top_k, seed, max_tokens;
};

// The ranges here only keep numbers sane: the service checks them as for any client.
std::vector<Flag> SamplingFlags(SamplingConfig& config);
void FillRequest(const SamplingConfig& config, v1::GenerateRequest& request);

}  // namespace fairlead
