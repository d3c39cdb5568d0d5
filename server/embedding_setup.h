// SPDX-License-Identifier: Apache-2.0
// From a configuration to an engine that makes embeddings, and which models are for that. One
// thread.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "models/pooling.h"
#include "models/tokenizer.h"
#include "models/weight_cache.h"
#include "models/weights.h"
#include "runtime/embedding_engine.h"
#include "server/config.h"
#include "server/embed_prepare.h"

namespace fairlead {

// How the model's token vectors become one, where --task says that it embeds, or its files do: all
// encoders, and decoders whose folder or GGUF file says how to pool. None: it generates. Where the
// files say nothing, encoders take the mean, as Sentence Transformers does, and decoders the last
// token, normalized; so are all vectors of GGUF files. kInvalidArgument for an encoder that is to
// generate.
absl::StatusOr<std::optional<PoolingConfig>> PoolingOf(const RuntimeConfig& config,
                                                       const WeightSource& source);

struct EmbeddingSetup {
  std::unique_ptr<EmbeddingEngine> engine;
  EmbedTraits traits;  // but for the frame
  int vocab = 0;
  size_t weight_bytes = 0;
};
// `device` outlives the engine; `source` may be dropped afterwards. Logs what it decides.
absl::StatusOr<EmbeddingSetup> LoadEmbeddings(const RuntimeConfig& config,
                                              const WeightSource& source,
                                              const PoolingConfig& pooling, Device& device,
                                              std::shared_ptr<WeightCache> cache);

// Embeds one short text, so that the first client does not pay for what happens once.
absl::Status WarmUp(EmbeddingEngine& engine);

}  // namespace fairlead
