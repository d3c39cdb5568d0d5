// SPDX-License-Identifier: Apache-2.0
#include "server/embedding_setup.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/strings.h"
#include "models/config_reader.h"
#include "models/embedder.h"
#include "models/encoder_config.h"
#include "models/registry.h"
#include "server/once_event.h"

namespace fairlead {
namespace {

// Texts of so many tokens are planned for whatever they need.
constexpr int kMinPlannedTokens = 512;

absl::StatusOr<int> MaxPositions(const WeightSource& source) {
  if (IsEncoder(source)) {
    const auto config = LoadEncoderConfig(source);
    if (!config.ok()) return config.status();
    return config->max_positions;
  }
  const auto config = LoadModelConfig(source);
  if (!config.ok()) return config.status();
  return config->max_positions;
}

// What a text may have by the model's files and --max-model-len.
absl::StatusOr<int> MaxTokens(const RuntimeConfig& config, const WeightSource& source,
                              const PoolingConfig& pooling) {
  const absl::StatusOr<int> positions = MaxPositions(source);
  if (!positions.ok()) return positions;
  const int tokens = pooling.max_tokens > 0 ? std::min(pooling.max_tokens, *positions) : *positions;
  if (!config.max_model_len) return tokens;
  if (*config.max_model_len > tokens) {
    spdlog::warn("--max-model-len {} is more than the model's texts may have: {} it is",
                 *config.max_model_len, tokens);
  }
  return static_cast<int>(std::min<int64_t>(*config.max_model_len, tokens));
}

EmbedderLimits LimitsOf(const RuntimeConfig& config, int max_tokens) {
  return {.tokens = std::max(config.max_batched_tokens, max_tokens),
          .sequences = config.max_num_seqs};
}

// Of a batch, at most.
size_t BatchBytes(const EmbeddingModel& model, const Device& device, const EmbedderLimits& limits) {
  constexpr int kBlockTokens = 16;
  const auto blocks = static_cast<size_t>(limits.tokens / kBlockTokens + limits.sequences);
  return model.ScratchBytes(limits.tokens) +
         blocks * device.KvBlockBytes(model.kv_shape(kBlockTokens));
}

// Texts as long as the model takes them, but for batches that would need more than a quarter of
// the free memory: the share that a KV cache gets.
int PlanTokens(const RuntimeConfig& config, const EmbeddingModel& model, const Device& device,
               int max_tokens) {
  if (config.max_model_len) return max_tokens;
  int tokens = max_tokens;
  while (tokens > kMinPlannedTokens &&
         BatchBytes(model, device, LimitsOf(config, tokens)) > device.FreeMemory() / 4) {
    tokens = std::max(tokens / 2, kMinPlannedTokens);
  }
  if (tokens < max_tokens) {
    spdlog::warn(
        "texts may have {} tokens of the model's {}: a batch of more would take more than "
        "a quarter of the free memory (--max-model-len raises it)",
        tokens, max_tokens);
  }
  return tokens;
}

// A GGUF file that has pooling_type, of which only 0 comes here.
bool AsksForNone(const WeightSource& source) {
  const absl::StatusOr<std::string> name = ArchitectureName(source);
  return source.format() == WeightFormat::kGguf && name.ok() &&
         source.metadata().contains(StrCat(*name, ".pooling_type"));
}

}  // namespace

absl::StatusOr<std::optional<PoolingConfig>> PoolingOf(const RuntimeConfig& config,
                                                       const WeightSource& source) {
  const bool encoder = IsEncoder(source);
  if (config.task == "generate") {
    if (!encoder) return std::nullopt;
    return absl::InvalidArgumentError(StrCat(source.path(),
                                             " is an encoder: it makes embeddings "
                                             "and cannot generate text (--task embed)"));
  }
  absl::StatusOr<std::optional<PoolingConfig>> pooling = ReadPooling(source);
  if (!pooling.ok() && !encoder && config.task == "auto") {
    return absl::Status(pooling.status().code(),
                        StrCat(std::string(pooling.status().message()),
                               " (--task generate serves the model without its pooling)"));
  }
  if (!pooling.ok() || pooling->has_value()) return pooling;
  if (!encoder && config.task == "auto") return std::nullopt;
  const bool gguf = source.format() == WeightFormat::kGguf;
  const bool normalize = !encoder || gguf;  // as llama.cpp does
  spdlog::warn(
      "the model's files {}: the {} is taken{}",
      AsksForNone(source) ? "ask for no pooling (pooling_type 0)" : "say nothing of pooling",
      encoder ? "mean of the tokens" : "last token", normalize ? ", normalized" : "");
  const absl::StatusOr<int> max_tokens = MaxTextTokens(source);
  if (!max_tokens.ok()) return max_tokens.status();
  return PoolingConfig{.pooling = encoder ? Pooling::kMean : Pooling::kLast,
                       .normalize = normalize,
                       .max_tokens = *max_tokens};
}

absl::StatusOr<EmbeddingSetup> LoadEmbeddings(const RuntimeConfig& config,
                                              const WeightSource& source,
                                              const PoolingConfig& pooling, Device& device,
                                              std::shared_ptr<WeightCache> cache) {
  const absl::StatusOr<int> max_tokens = MaxTokens(config, source, pooling);
  if (!max_tokens.ok()) return max_tokens.status();
  if (!pooling.prompt.empty()) {
    spdlog::warn("the model's default prompt {} is not put before texts: clients do so",
                 ShortDump(Json(pooling.prompt)));
  }
  auto model =
      LoadEmbeddingModel(source, device, LimitsOf(config, *max_tokens).tokens, std::move(cache));
  if (!model.ok()) return model.status();
  EmbeddingSetup setup;
  setup.vocab = (*model)->vocab();
  setup.weight_bytes = (*model)->weight_bytes();
  setup.traits.max_tokens = PlanTokens(config, **model, device, *max_tokens);
  setup.traits.normalize = pooling.normalize;
  auto created =
      Embedder::Create(*std::move(model), device, LimitsOf(config, setup.traits.max_tokens));
  if (!created.ok()) return created.status();
  const std::shared_ptr<Embedder> embedder = *std::move(created);
  setup.traits.max_tokens = std::min(setup.traits.max_tokens, embedder->max_tokens());
  // Cut vectors and requests that want them as they are: the service normalizes.
  PoolingConfig plain = pooling;
  plain.normalize = false;
  setup.engine = std::make_unique<EmbeddingEngine>(
      EmbeddingEngineOptions{.dimensions = embedder->dimensions(),
                             .max_batch_tokens = config.max_batched_tokens,
                             .max_batch_texts = config.max_num_seqs,
                             .max_requests = config.max_num_seqs + config.max_queue},
      [embedder, plain](absl::Span<const std::vector<Token>> texts) {
        return embedder->Embed(texts, plain);
      });
  spdlog::info("embeddings of {} dimensions; a text may have {} tokens", embedder->dimensions(),
               setup.traits.max_tokens);
  return setup;
}

absl::Status WarmUp(EmbeddingEngine& engine) {
  absl::Status status;
  OnceEvent done;
  const auto id = engine.Submit({{0}}, [&](const absl::StatusOr<std::vector<float>>& vectors) {
    status = vectors.status();
    done.Notify();
  });
  if (!id.ok()) return id.status();
  done.Wait();
  return status;
}

}  // namespace fairlead
