// SPDX-License-Identifier: Apache-2.0
#include "server/commands/inspect_encoder.h"

#include <optional>
#include <string>

#include "kernels/strings.h"
#include "models/pooling.h"

namespace fairlead {
namespace {

const char* NameOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return "mean";
    case Pooling::kFirst:
      return "cls";
    case Pooling::kLast:
      return "last";
  }
  return "";
}

}  // namespace

Json EncoderShape(const EncoderConfig& config) {
  return {{"layers", config.layers},        {"hidden", config.hidden}, {"heads", config.heads},
          {"head_dim", config.head_dim},    {"ffn", config.ffn},       {"vocabulary", config.vocab},
          {"context", config.max_positions}};
}

Json PoolingInfo(const WeightSource& source, Json& unusual) {
  const absl::StatusOr<std::optional<PoolingConfig>> pooling = ReadPooling(source);
  if (!pooling.ok()) {
    unusual.push_back(StrCat("pooling: ", std::string(pooling.status().message())));
    return nullptr;
  }
  if (!pooling->has_value()) return nullptr;
  const PoolingConfig& config = **pooling;
  return {{"mode", NameOf(config.pooling)},
          {"normalize", config.normalize},
          {"max_tokens", config.max_tokens > 0 ? Json(config.max_tokens) : Json(nullptr)}};
}

}  // namespace fairlead
