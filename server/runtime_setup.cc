// SPDX-License-Identifier: Apache-2.0
#include "server/runtime_setup.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <optional>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "kernels/strings.h"
#include "models/convert_weights.h"
#include "models/dummy_weights.h"
#include "models/registry.h"
#include "models/used_weights.h"
#include "server/kv_plan.h"
#include "server/once_event.h"
#include "server/stage_timer.h"

namespace fairlead {
namespace {

Numerics NumericsOf(const std::string& name) {
  if (name == NumericsName(Numerics::kFloat32)) return Numerics::kFloat32;
  return name == NumericsName(Numerics::kFast) ? Numerics::kFast : Numerics::kPrecise;
}

// The most tokens that prompt lookup drafts for a sequence in one step. How many are worth it is
// measured (runtime/speculation.h); with more the gain of long copies hardly grows.
constexpr int kNgramDrafts = 16;

double MiB(size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

absl::Status LoadText(const RuntimeConfig& config, const WeightSource& source, bool chats,
                      Runtime& runtime) {
  if (config.skip_tokenizer) return absl::OkStatus();
  auto tokenizer =
      config.tokenizer.empty() ? LoadTokenizer(source) : LoadTokenizerFromPath(config.tokenizer);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        StrCat(std::string(tokenizer.status().message()),
                               " (--tokenizer names another one, --skip-tokenizer serves token ids "
                               "only)"));
  }
  runtime.tokenizer = *std::move(tokenizer);
  if (!chats) return absl::OkStatus();
  absl::StatusOr<ChatFormat> chat_format = LoadChatFormat(source);
  if (chat_format.ok()) {
    runtime.chat_format = *std::move(chat_format);
    if (runtime.chat_format.chat_template == nullptr)
      spdlog::warn("the model has no chat template: chat requests will be refused");
  } else {
    // Completions are still of use.
    runtime.chat_format.unusable = true;
    spdlog::warn("the model's chat template cannot be used, chat requests will be refused: {}",
                 std::string(chat_format.status().message()));
  }
  return absl::OkStatus();
}

// Null where there is none. Says whether the weights come from it.
std::shared_ptr<WeightCache> OpenWeightCache(const RuntimeConfig& config,
                                             const WeightSource& source, Device& device) {
  if (config.weight_cache == "off" || source.files().empty()) return nullptr;
  auto cache = std::make_shared<WeightCache>(WeightCacheOptions{.folder = config.weight_cache},
                                             source, device);
  if (cache->status().ok()) {
    spdlog::info("weight cache: {} is mapped", cache->path());
  } else if (absl::IsNotFound(cache->status())) {
    spdlog::debug("weight cache: there is no {} yet", cache->path());
  } else {
    spdlog::warn("weight cache: {} is not used: {}", cache->path(),
                 std::string(cache->status().message()));
  }
  return cache;
}

void StoreWeights(WeightCache& cache) {
  cache.Store([path = cache.path()](const absl::Status& status) {
    if (status.ok()) {
      spdlog::info("weight cache: {} is written", path);
    } else if (!absl::IsCancelled(status)) {
      spdlog::warn("weight cache: {} is not written: {}", path, std::string(status.message()));
    }
  });
}

KvPlanInput MakeKvPlanInput(const RuntimeConfig& config, const ModelConfig& model,
                            const Device& device) {
  const KvShape shape = {
      .kv_heads = model.kv_heads, .head_dim = model.head_dim, .block_tokens = config.block_tokens};
  return {.block_bytes = device.KvBlockBytes(shape) * static_cast<size_t>(model.layers),
          .block_tokens = config.block_tokens,
          .model_positions = model.max_positions,
          .max_num_seqs = config.max_num_seqs,
          .free_bytes = device.FreeMemory(),
          .max_model_len = config.max_model_len,
          .memory = config.kv_cache_memory};
}

SchedulerLimits LimitsOf(const RuntimeConfig& config) {
  return {.max_batched_tokens = config.max_batched_tokens,
          .max_num_seqs = config.max_num_seqs,
          .max_drafts = config.speculation == "ngram" ? kNgramDrafts : 0};
}

// Of a device's memory, what is not planned for: the sampler's logits, small buffers, and what a
// driver takes for itself when kernels are first launched.
size_t MemoryMargin(const RuntimeConfig& config, const ModelConfig& model, const Device& device) {
  constexpr size_t kSmallBuffers = size_t{16} << 20;
  const size_t logits = sizeof(float) * static_cast<size_t>(SliceRows(LimitsOf(config))) *
                        static_cast<size_t>(model.vocab);
  return logits + kSmallBuffers + device.info().memory_bytes / 50;
}

// Where layers had to leave the device, the cache gets what those that stay have left: many
// sequences at once are what makes up for the copies.
std::optional<MemorySize> KvMemory(const RuntimeConfig& config, const Runtime& runtime) {
  const Model& model = *runtime.model;
  const bool all = model.resident_layers() == model.config().layers;
  if (config.kv_cache_memory || config.gpu_layers || all) return config.kv_cache_memory;
  const size_t free = runtime.device->FreeMemory();
  const size_t other = MemoryMargin(config, model.config(), *runtime.device) +
                       model.ScratchBytes(config.max_batched_tokens, SliceRows(LimitsOf(config)));
  return MemorySize{.bytes = free - std::min(free, other)};
}

// mapped_bytes: of weights in pages of a file, which FreeMemory takes for free.
absl::StatusOr<KvPlan> PlanMemory(const RuntimeConfig& config, const Runtime& runtime,
                                  size_t mapped_bytes) {
  const ModelConfig& model = runtime.model->config();
  KvPlanInput input = MakeKvPlanInput(config, model, *runtime.device);
  input.free_bytes -= std::min(input.free_bytes, mapped_bytes);
  input.memory = KvMemory(config, runtime);
  absl::StatusOr<KvPlan> plan = PlanKvCache(input);
  if (!plan.ok()) return plan;
  if (config.max_model_len && *config.max_model_len > model.max_positions) {
    spdlog::warn("--max-model-len {} is more than the model's context: {} it is",
                 *config.max_model_len, model.max_positions);
  }
  if (plan->shortened) {
    spdlog::warn(
        "the KV cache holds {} tokens, less than the model's context of {}: requests may "
        "have {} tokens (--kv-cache-memory raises it)",
        plan->max_model_len, model.max_positions, plan->max_model_len);
  }
  spdlog::info("KV cache: {:.1f} MiB of {:.1f} MiB free, {} tokens; a request may have {}",
               MiB(plan->bytes), MiB(input.free_bytes),
               plan->bytes / input.block_bytes * config.block_tokens, plan->max_model_len);
  return plan;
}

LayerPlacement PlacementOf(const RuntimeConfig& config, const ModelConfig& model,
                           const Device& device) {
  LayerPlacement placement = {.resident = std::nullopt,
                              .kept_bytes = KvBytesToKeep(MakeKvPlanInput(config, model, device)) +
                                            MemoryMargin(config, model, device),
                              .max_tokens = config.max_batched_tokens,
                              .max_rows = SliceRows(LimitsOf(config))};
  if (config.gpu_layers) placement.resident = static_cast<int>(*config.gpu_layers);
  return placement;
}

void LogPlacement(const RuntimeConfig& config, const Runtime& runtime) {
  const Model& model = *runtime.model;
  const int layers = model.config().layers, resident = model.resident_layers();
  const DeviceInfo& device = runtime.device->info();
  if (!device.streams_weights) {
    if (config.gpu_layers) spdlog::warn("--gpu-layers means nothing on {}", device.name);
    return;
  }
  if (resident == layers) return;
  spdlog::warn(
      "{} of {} layers stay on {}; the weights of the others, {:.1f} MiB in the host's memory, are "
      "copied there for every step{}",
      resident, layers, device.name, MiB(model.host_weight_bytes()),
      config.gpu_layers ? "" : ": there is not enough memory for all (--gpu-layers)");
}

EngineOptions OptionsOf(const RuntimeConfig& config, const KvPlan& plan) {
  return {.scheduler = LimitsOf(config),
          .max_queue = config.max_queue,
          .kv_cache_bytes = plan.bytes,
          .max_model_len = plan.max_model_len,
          .max_logprobs = config.max_logprobs,
          .block_tokens = config.block_tokens,
          .prefix_cache = !config.no_prefix_cache,
          .graphs = config.graphs == "on",
          .async_scheduling = config.async_scheduling == "on",
          .observe_idle = nullptr};
}

class WaitingSink final : public TokenSink {
 public:
  void PushPromptLogprob(const TokenOutput&) override {}
  void Push(const TokenOutput&) override {}
  void Close(const EngineResult& result) override {
    status_ = result.status;
    closed_.Notify();
  }
  absl::Status Wait() {
    closed_.Wait();
    return status_;
  }

 private:
  absl::Status status_;
  OnceEvent closed_;
};

}  // namespace

std::string ModelNameOf(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).lexically_normal();
  if (name.filename().empty()) name = name.parent_path();
  return name.extension() == ".gguf" ? name.stem().string() : name.filename().string();
}

int64_t CountParameters(const WeightSource& source) {
  int64_t total = 0;
  for (const WeightInfo& tensor : source.tensors()) {
    int64_t count = 1;
    for (const int64_t dim : tensor.dim) count *= dim;
    total += count;
  }
  return total;
}

namespace {

absl::StatusOr<std::unique_ptr<WeightSource>> OpenAsItIs(const RuntimeConfig& config) {
  if (config.load_format != "dummy") return OpenWeights(config.model);
  constexpr uint64_t kSeed = 0;
  const std::optional<DType> dtype = ParseDType(config.dummy_dtype);
  FAIRLEAD_CHECK(dtype.has_value());  // the flag's choices
  spdlog::warn("--load-format dummy: the weights are random numbers, and so are the answers");
  return MakeDummyWeights(config.model, *dtype, kSeed);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> OpenModel(const RuntimeConfig& config) {
  auto source = OpenAsItIs(config);
  const std::optional<DType> dtype = ParseDType(config.weight_dtype);  // auto is none
  if (!source.ok() || !dtype) return source;
  return ConvertWeights(*std::move(source), *dtype);
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const RuntimeConfig& config,
                                                   std::string* selection) {
  return OpenDevice(config.device,
                    {.threads = config.threads,
                     .numerics = NumericsOf(config.numerics),
                     .kv_dtype = ParseDType(config.kv_cache_dtype)},  // auto is none
                    selection);
}

namespace {

absl::Status LoadDecoder(const RuntimeConfig& config, const WeightSource& source,
                         const std::shared_ptr<WeightCache>& cache, Runtime& runtime) {
  const absl::StatusOr<ModelConfig> model_config = LoadModelConfig(source);
  if (!model_config.ok()) return model_config.status();
  const int positions = static_cast<int>(std::min<int64_t>(
      config.max_model_len.value_or(model_config->max_positions), model_config->max_positions));
  auto model = LoadModel(source, *runtime.device, positions, cache,
                         PlacementOf(config, *model_config, *runtime.device));
  if (!model.ok()) return model.status();
  runtime.model = *std::move(model);
  return absl::OkStatus();
}

absl::Status LoadEmbeddings(const RuntimeConfig& config, const WeightSource& source,
                            const PoolingConfig& pooling, const std::shared_ptr<WeightCache>& cache,
                            Runtime& runtime) {
  auto embeddings = LoadEmbeddings(config, source, pooling, *runtime.device, cache);
  if (!embeddings.ok()) return embeddings.status();
  runtime.embeddings = *std::move(embeddings);
  return absl::OkStatus();
}

size_t BytesOfWeights(const Runtime& runtime) {
  if (runtime.model == nullptr) return runtime.embeddings.weight_bytes;
  return runtime.model->weight_bytes() + runtime.model->host_weight_bytes();
}

void Describe(const RuntimeConfig& config, const std::string& name, const WeightSource& source,
              Runtime& runtime) {
  const bool generates = runtime.model != nullptr;
  const int vocab = generates ? runtime.model->config().vocab : runtime.embeddings.vocab;
  runtime.served = {.name = name.empty() ? ModelNameOf(config.model) : name,
                    .architecture = ArchitectureName(source).value_or(""),
                    .parameters = CountParameters(source),
                    .created = absl::ToUnixSeconds(absl::Now()),
                    .tokenizer = runtime.tokenizer.get(),
                    .chat_format = &runtime.chat_format,
                    .vocab_size = vocab,
                    .max_logprobs = std::min(config.max_logprobs, vocab),
                    .dimensions = generates ? 0 : runtime.embeddings.engine->dimensions()};
}

// transformers says so, too, and goes on.
void WarnOfUnused(const UsedWeights& weights) {
  constexpr size_t kNamed = 4;
  std::vector<std::string> names = weights.Unused();
  if (names.empty()) return;
  const size_t count = names.size();
  names.resize(std::min(count, kNamed));
  spdlog::warn("{} tensors of the model's files are not used: {}{}", count,
               absl::StrJoin(names, ", "), count > kNamed ? ", ..." : "");
}

absl::Status FrameTexts(Runtime& runtime) {
  if (runtime.tokenizer == nullptr) return absl::OkStatus();
  auto frame = FrameOf(*runtime.tokenizer);
  if (!frame.ok()) return frame.status();
  runtime.embeddings.traits.frame = *std::move(frame);
  return absl::OkStatus();
}

absl::Status CreateEngine(const RuntimeConfig& config, size_t mapped_bytes,
                          std::function<void(double seconds)> observe_idle, Runtime& runtime) {
  LogPlacement(config, runtime);
  const absl::StatusOr<KvPlan> plan = PlanMemory(config, runtime, mapped_bytes);
  if (!plan.ok()) return plan.status();
  runtime.kv_cache_bytes = plan->bytes;
  EngineOptions options = OptionsOf(config, *plan);
  options.observe_idle = std::move(observe_idle);
  auto engine = Engine::Create(*runtime.device, *runtime.model, options);
  if (!engine.ok()) return engine.status();
  runtime.engine = *std::move(engine);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runtime>> LoadRuntime(
    const RuntimeConfig& config, const std::string& name,
    std::function<void(double seconds)> observe_idle) {
  StageTimer timer;
  auto runtime = std::make_unique<Runtime>();
  std::string selection;
  auto device = OpenDevice(config, &selection);
  if (!device.ok()) return device.status();
  if (!selection.empty()) spdlog::info("{}", selection);
  runtime->device = *std::move(device);
  const DeviceInfo& info = runtime->device->info();
  spdlog::info("device {}: {}, numerics {}, KV cache {}", info.name, info.description,
               std::string(NumericsName(info.numerics)), std::string(Info(info.kv_dtype).name));
  timer.Done("the device");
  const absl::Time start = absl::Now();
  auto source = OpenModel(config);
  if (!source.ok()) return source.status();
  timer.Done("reading the model's header");
  const absl::StatusOr<std::optional<PoolingConfig>> pooling = PoolingOf(config, **source);
  if (!pooling.ok()) return pooling.status();
  // At the same time: neither needs the other, and the tokenizer has work for one thread.
  std::future<absl::Status> text = std::async(std::launch::async, [&] {
    return LoadText(config, **source, /*chats=*/!pooling->has_value(), *runtime);
  });
  const std::shared_ptr<WeightCache> cache = OpenWeightCache(config, **source, *runtime->device);
  timer.Done("the weight cache");
  absl::Status loaded;
  const UsedWeights weights(**source);
  if (pooling->has_value()) {
    loaded = LoadEmbeddings(config, weights, **pooling, cache, *runtime);
  } else {
    loaded = LoadDecoder(config, weights, cache, *runtime);
  }
  timer.Done("the weights");
  if (!loaded.ok()) return loaded;
  WarnOfUnused(weights);
  if (absl::Status status = text.get(); !status.ok()) return status;
  if (cache != nullptr) StoreWeights(*cache);
  timer.Done("what the tokenizer and the chat template took longer");
  Describe(config, name, **source, *runtime);
  spdlog::info("model {}: {}, {} parameters, {:.1f} MiB of weights, loaded in {:.0f} ms",
               runtime->served.name, runtime->served.architecture, runtime->served.parameters,
               MiB(BytesOfWeights(*runtime)), absl::ToDoubleMilliseconds(absl::Now() - start));
  if (pooling->has_value()) {
    loaded = FrameTexts(*runtime);
  } else {
    loaded =
        CreateEngine(config, cache ? cache->mapped_bytes() : 0, std::move(observe_idle), *runtime);
  }
  if (!loaded.ok()) return loaded;
  timer.Done("the engine");
  return runtime;
}

absl::Status WarmUp(Engine& engine) {
  EngineRequest request;
  request.prompt = {0};
  request.sampling.temperature = 0;
  request.max_tokens = std::min(1, engine.max_model_len() - 1);
  const auto sink = std::make_shared<WaitingSink>();
  if (absl::StatusOr<uint64_t> id = engine.Submit(std::move(request), sink); !id.ok())
    return id.status();
  return sink->Wait();
}

}  // namespace fairlead
