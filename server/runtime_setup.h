// SPDX-License-Identifier: Apache-2.0
// From a configuration to an engine that runs: device, weights, model, tokenizer, template, KV
// cache; or, of a model that makes embeddings, what that takes. What serve, generate and chat have
// in common. One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "models/chat_template.h"
#include "models/model.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "runtime/engine.h"
#include "server/config.h"
#include "server/embedding_setup.h"
#include "server/generate_service.h"

namespace fairlead {

// Members are destroyed last to first: the engine before what it borrows.
struct Runtime {
  std::unique_ptr<Device> device;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null with --skip-tokenizer
  ChatFormat chat_format;
  std::unique_ptr<Engine> engine;
  EmbeddingSetup embeddings;  // instead of model and engine, which are null then
  ServedModel served;         // points into the above
  size_t kv_cache_bytes = 0;
};

// Opens --model by --load-format.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenModel(const RuntimeConfig& config);

// --device by --threads, --numerics and --kv-cache-dtype. `selection`: what auto took and why.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const RuntimeConfig& config,
                                                   std::string* selection = nullptr);

// Logs what it decides. `name`: what clients call the model; empty: from its path. observe_idle: as
// of EngineOptions.
absl::StatusOr<std::unique_ptr<Runtime>> LoadRuntime(
    const RuntimeConfig& config, const std::string& name,
    std::function<void(double seconds)> observe_idle = nullptr);

// Runs one short request, so that the first client does not pay for what happens once.
absl::Status WarmUp(Engine& engine);

// "SmolLM2-135M-Instruct.Q4_1" for ".../SmolLM2-135M-Instruct.Q4_1.gguf", a folder's name for a
// folder.
std::string ModelNameOf(const std::string& path);
int64_t CountParameters(const WeightSource& source);

}  // namespace fairlead
