// SPDX-License-Identifier: Apache-2.0
// Which architectures we load: one row for each name that a checkpoint may call itself. A row says
// what that name implies and allows; the decoder sees features only. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/config.h"
#include "models/weights.h"

namespace fairlead {

struct Architecture {
  std::string_view name;  // config.json's architectures[0], or GGUF's general.architecture
  WeightFormat format;
  bool allows_attention_bias = false;
  bool allows_mlp_bias = false;
  Family family = {};
  // JSON object: what this architecture means where its config leaves a key out and LlamaConfig's
  // default is not it.
  std::string_view defaults = "{}";
};

absl::Span<const Architecture> Architectures();

// The name by which `source` calls its architecture. kInvalidArgument if it gives none.
absl::StatusOr<std::string> ArchitectureName(const WeightSource& source);

// Where the config of `source` comes from, for errors: a folder's config.json, or the GGUF file.
std::string ConfigPath(const WeightSource& source);

// The row of `source`, its config parsed under that row. kUnimplemented for an unknown
// architecture, listing the known ones, and for features the row does not allow; errors start with
// ConfigPath().
absl::StatusOr<ModelConfig> LoadModelConfig(const WeightSource& source);

}  // namespace fairlead
