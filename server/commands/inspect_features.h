// SPDX-License-Identifier: Apache-2.0
// What a decoder has that Llama's has not, in words. Any thread.
#pragma once

#include <string>
#include <vector>

#include "models/config.h"

namespace fairlead {

// A line for each feature: "a sliding window of 8 tokens in 3 of 4 layers".
std::vector<std::string> UnusualFeatures(const ModelConfig& config);

}  // namespace fairlead
