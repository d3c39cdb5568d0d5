// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine.h"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/short_slice.h"
#include "kernels/thread_name.h"
#include "runtime/atomic_stats.h"
#include "runtime/batch_builder.h"
#include "runtime/inbox.h"
#include "runtime/kv_pages.h"
#include "runtime/sampler.h"
#include "runtime/step_graphs.h"

namespace fairlead {
// Rows of one slice through the head: all that decode at once up to 256, and enough for a prompt's
// logprobs not to read the head's weights for every few rows.
int SliceRows(const SchedulerLimits& limits) {
  return std::min(limits.max_batched_tokens, std::clamp(limits.max_num_seqs, 64, 256));
}

namespace {

// Of one step: every token of it at most.
int MaxSamples(const SchedulerLimits& limits) {
  const int64_t most = int64_t{limits.max_num_seqs} * (1 + limits.max_drafts);
  return static_cast<int>(std::min<int64_t>(most, limits.max_batched_tokens));
}

absl::Status CheckOptions(const EngineOptions& options) {
  const std::pair<const char*, int> at_least_one[] = {
      {"max_batched_tokens", options.scheduler.max_batched_tokens},
      {"max_num_seqs", options.scheduler.max_num_seqs},
      {"max_model_len", options.max_model_len},
      {"block_tokens", options.block_tokens},
  };
  for (const auto& [name, value] : at_least_one) {
    if (value < 1)
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; the least is 1"));
  }
  if (options.max_queue < 0 || options.max_logprobs < 0 || options.scheduler.max_drafts < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_queue is ", options.max_queue, ", max_logprobs is ", options.max_logprobs,
                     ", max_drafts is ", options.scheduler.max_drafts, "; the least is 0"));
  }
  return absl::OkStatus();
}

// How many blocks the cache's bytes are, enough for one sequence of max_model_len.
absl::StatusOr<int> CountBlocks(size_t block_bytes, int layers, const EngineOptions& options) {
  const size_t bytes_per_block = block_bytes * layers;
  const size_t blocks = options.kv_cache_bytes / bytes_per_block;
  const size_t needed = (static_cast<size_t>(options.max_model_len) + options.block_tokens - 1) /
                        options.block_tokens;
  if (blocks < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat("the KV cache of ", options.kv_cache_bytes, " bytes holds ",
                     blocks * options.block_tokens, " tokens; one request of max_model_len ",
                     options.max_model_len, " needs ", needed * bytes_per_block, " bytes"));
  }
  // A slot number is an i32, and counts the blocks of all layers (BatchBuilder).
  const size_t most = static_cast<size_t>(INT32_MAX) / options.block_tokens / layers;
  return static_cast<int>(std::min(blocks, most));
}

absl::StatusOr<Buffer> Allocate(Device& device, const char* what, size_t bytes) {
  const size_t free = device.FreeMemory();
  absl::StatusOr<Buffer> buffer = device.Allocate(bytes);
  if (buffer.ok()) return buffer;
  return absl::Status(buffer.status().code(),
                      absl::StrCat(what, ": ", bytes, " bytes asked, ", free, " bytes free on ",
                                   device.info().name));
}

// All device memory that the step loop uses.
struct EngineMemory {
  int num_blocks = 0;
  // Block after block, of each the layers side by side: so what a sequence touches next is one run
  // of memory, and the pages that a system hands out when they are touched (2 MiB each) hold it
  // all.
  Buffer kv;
  size_t kv_block_bytes = 0;  // of all layers
  std::vector<PagedKv> kv_layers;
  Buffer scratch;
  std::unique_ptr<BatchBuilder> builder;
  std::unique_ptr<Sampler> sampler;
};

absl::StatusOr<EngineMemory> AllocateMemory(Device& device, const Model& model,
                                            const EngineOptions& options) {
  const ModelConfig& config = model.config();
  const KvShape shape = {.kv_heads = config.kv_heads,
                         .head_dim = config.head_dim,
                         .block_tokens = options.block_tokens};
  const size_t block_bytes = device.KvBlockBytes(shape);
  const absl::StatusOr<int> num_blocks = CountBlocks(block_bytes, config.layers, options);
  if (!num_blocks.ok()) return num_blocks.status();

  // Together, not one by one: a device may hand out memory that it has only when it is touched.
  const size_t together =
      block_bytes * *num_blocks * config.layers +
      model.ScratchBytes(options.scheduler.max_batched_tokens, SliceRows(options.scheduler));
  if (const size_t free = device.FreeMemory(); together > free) {
    return absl::ResourceExhaustedError(
        absl::StrCat("KV cache and scratch: ", together, " bytes asked, ", free, " bytes free"));
  }
  EngineMemory memory;
  memory.num_blocks = *num_blocks;
  memory.kv_block_bytes = block_bytes * config.layers;
  absl::StatusOr<Buffer> kv =
      Allocate(device, "KV cache", block_bytes * memory.num_blocks * config.layers);
  if (!kv.ok()) return kv.status();
  memory.kv = *std::move(kv);
  for (int layer = 0; layer < config.layers; ++layer) {
    memory.kv_layers.push_back(
        {.data = static_cast<std::byte*>(memory.kv.data()) + layer * block_bytes,
         .num_blocks = memory.num_blocks * config.layers - layer,
         .shape = shape});
  }
  const SchedulerLimits& limits = options.scheduler;
  const int max_rows = SliceRows(limits);
  absl::StatusOr<Buffer> scratch =
      Allocate(device, "scratch", model.ScratchBytes(limits.max_batched_tokens, max_rows));
  if (!scratch.ok()) return scratch.status();
  memory.scratch = *std::move(scratch);

  absl::StatusOr<BatchBuilder> builder = BatchBuilder::Create(device, limits, options.max_model_len,
                                                              options.block_tokens, config.layers);
  if (!builder.ok()) return builder.status();
  memory.builder = std::make_unique<BatchBuilder>(*std::move(builder));
  absl::StatusOr<std::unique_ptr<Sampler>> sampler =
      Sampler::Create(device, model,
                      {.max_rows = max_rows,
                       .max_samples = MaxSamples(limits),
                       .max_logprobs = std::min(options.max_logprobs, config.vocab)});
  if (!sampler.ok()) return sampler.status();
  memory.sampler = *std::move(sampler);
  return memory;
}

size_t PagesWindow(const EngineMemory& memory, const EngineOptions& options) {
  const size_t step_blocks = options.scheduler.max_batched_tokens / options.block_tokens + 1;
  return KvPagesWindow(memory.kv.bytes(), step_blocks * memory.kv_block_bytes);
}

class EngineImpl final : public Engine {
 public:
  EngineImpl(Device& device, const Model& model, const EngineOptions& options, EngineMemory memory)
      : model_(model),
        ops_(device.ops()),
        options_(options),
        // Weights that pass through the device are copied, which no graph holds.
        uses_graphs_(options.graphs && device.info().graphs && model.host_weight_bytes() == 0),
        plans_ahead_(
            options.async_scheduling && device.info().asynchronous &&
            options.scheduler.max_drafts == 0 &&
            // A plan of single tokens goes through the head at once.
            std::min(options.scheduler.max_num_seqs, options.scheduler.max_batched_tokens) <=
                SliceRows(options.scheduler)),
        stream_(device.NewStream()),
        memory_(std::move(memory)),
        scratch_(std::move(memory_.scratch)),
        inbox_(options.max_queue + options.scheduler.max_num_seqs),
        cache_(memory_.num_blocks, options.block_tokens, options.prefix_cache),
        kv_pages_(
            static_cast<std::byte*>(memory_.kv.data()), memory_.kv.bytes(),
            PagesWindow(memory_, options),
            [&device](std::byte* data, size_t bytes) { return device.Populate(data, bytes); }),
        scheduler_(options.scheduler, cache_, options.max_queue + options.scheduler.max_num_seqs),
        graphs_(std::min(options.scheduler.max_num_seqs, SliceRows(options.scheduler)),
                cache_.BlocksFor(options.max_model_len)) {
    const int max_held = options.max_queue + options.scheduler.max_num_seqs;
    mail_.submitted.reserve(max_held);
    leaving_.reserve(max_held);
    PublishStats();
    thread_ = std::thread([this] { Run(); });
  }

  ~EngineImpl() override { Drain(absl::InfinitePast()); }

  absl::StatusOr<uint64_t> Submit(EngineRequest request, std::shared_ptr<TokenSink> sink) override;
  void Cancel(uint64_t id) override { inbox_.Cancel(id); }
  void Drain(absl::Time deadline) override;
  EngineStats stats() const override { return published_.Load(inbox_.num_held()); }
  int max_model_len() const override { return options_.max_model_len; }
  int max_requests() const override { return options_.max_queue + options_.scheduler.max_num_seqs; }

 private:
  absl::Status CheckRequest(const EngineRequest& request) const;

  // The rest: engine thread only.
  void Run();
  void Step();
  // Enqueues a step that goes through the head at once.
  void BeginStep(const StepPlan& plan);
  // One that does not, from its beginning to its end.
  void RunStep(const StepPlan& plan, absl::Time start);
  // Waits for the step under way, delivers its tokens and commits it.
  void EndStep();
  void CommitStep(const StepPlan& plan, absl::Span<const Token> sampled);
  void ReadInbox();
  // Ends the sequences in leaving_.
  void CloseAll(FinishReason reason, const absl::Status& status);
  void CloseFinished();
  void PublishStats();
  bool DrainIsOver();

  // A step that was begun and has not ended.
  struct UnderWay {
    const StepPlan* plan;
    int64_t fence;
    absl::Time start;
    bool followed;  // the step before it without a pause
  };

  const Model& model_;
  const Ops& ops_;
  const EngineOptions options_;
  const bool uses_graphs_, plans_ahead_;
  const std::unique_ptr<Stream> stream_;
  EngineMemory memory_;
  Scratch scratch_;
  Inbox inbox_;
  KvCache cache_;
  KvPages kv_pages_;
  Scheduler scheduler_;
  StepGraphs graphs_;
  std::optional<UnderWay> under_way_;
  bool paused_ = true;  // since the last step

  // Made once, because a status with a message allocates.
  const absl::Status cancelled_ = absl::CancelledError("the request was cancelled");
  const absl::Status expired_ = absl::DeadlineExceededError("the request's deadline has passed");
  const absl::Status drained_ = absl::UnavailableError("the server is shutting down");

  Mail mail_;
  std::vector<std::unique_ptr<Sequence>> leaving_;
  int64_t steps_ = 0, ahead_steps_ = 0, nonfinite_logits_ = 0;
  AtomicStats published_;

  std::mutex join_mutex_;
  std::thread thread_;
};

absl::Status EngineImpl::CheckRequest(const EngineRequest& request) const {
  if (request.prompt.empty())
    return absl::InvalidArgumentError("the prompt is empty; it needs at least one token");
  if (request.max_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", request.max_tokens, "; the least is 0"));
  }
  const size_t tokens = request.prompt.size() + static_cast<size_t>(request.max_tokens);
  if (tokens > static_cast<size_t>(options_.max_model_len)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the prompt's ", request.prompt.size(), " tokens and max_tokens ", request.max_tokens,
        " are ", tokens, " together; the context holds ", options_.max_model_len));
  }
  // A tokenizer may know more ids than the model has rows for, so this is checked here, whatever
  // the source.
  const int vocab = model_.config().vocab;
  const auto outside = [vocab](Token token) { return token < 0 || token >= vocab; };
  const auto bad = std::find_if(request.prompt.begin(), request.prompt.end(), outside);
  if (bad != request.prompt.end()) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt holds token ", *bad,
                                                   "; the model's vocabulary is 0 to ", vocab - 1));
  }
  if (std::any_of(request.stop_tokens.begin(), request.stop_tokens.end(), outside) ||
      std::any_of(request.sampling.logit_bias.begin(), request.sampling.logit_bias.end(),
                  [&](const auto& bias) { return outside(bias.first); })) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a stop token or biased token is outside the model's vocabulary, 0 to ", vocab - 1));
  }
  const int max_logprobs = std::min(options_.max_logprobs, vocab);
  for (const auto& [name, value] : {std::pair("logprobs", request.logprobs),
                                    std::pair("prompt_logprobs", request.prompt_logprobs)}) {
    if (value > max_logprobs) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is ", value, "; the most is ", max_logprobs));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> EngineImpl::Submit(EngineRequest request,
                                            std::shared_ptr<TokenSink> sink) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  if (absl::Status status = inbox_.TakePlace(); !status.ok()) return status;
  return inbox_.Push(MakeSequence(std::move(request), std::move(sink), options_.clock(),
                                  options_.block_tokens, model_.config().vocab,
                                  options_.scheduler.max_drafts));
}

void EngineImpl::Drain(absl::Time deadline) {
  inbox_.Close(deadline);
  const std::lock_guard<std::mutex> lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void EngineImpl::Run() {
  SetThreadName("engine");
  AskForShortSlice();
  while (!DrainIsOver()) Step();
  if (under_way_) EndStep();
  ReadInbox();
  scheduler_.RemoveAll(leaving_);
  CloseAll(FinishReason::kCancelled, drained_);
}

bool EngineImpl::DrainIsOver() {
  return mail_.draining && (inbox_.num_held() == 0 || options_.clock() >= mail_.drain_deadline);
}

void EngineImpl::Step() {
  ReadInbox();
  if (under_way_ && !scheduler_.CanPlanAhead()) EndStep();
  const absl::Time start = options_.clock();
  const StepPlan& plan = scheduler_.Plan(start);
  if (plan.rows.empty()) {
    if (under_way_) return EndStep();
    paused_ = true;
    return inbox_.WaitForMail();
  }
  PublishStats();
  kv_pages_.Reached(cache_.num_touched_blocks() * memory_.kv_block_bytes);
  if (!memory_.sampler->TakesAtOnce(plan)) return RunStep(plan, start);
  BeginStep(plan);
  const UnderWay begun = {&plan, stream_->Fence(), start, !std::exchange(paused_, false)};
  if (under_way_) {
    ++ahead_steps_;
    EndStep();
  }
  under_way_ = begun;
  if (plans_ahead_ && scheduler_.CanAssume()) {
    scheduler_.Assume(memory_.sampler->places());
  } else {
    EndStep();
  }
}

void EngineImpl::BeginStep(const StepPlan& plan) {
  const std::optional<BatchShape> graph = uses_graphs_ ? graphs_.ShapeFor(plan) : std::nullopt;
  const BatchShape shape = graph.value_or(ShapeOf(plan));
  const Batch& batch = memory_.builder->Build(plan, shape, *stream_);
  Sampler& sampler = *memory_.sampler;
  sampler.Prepare(*stream_, plan, graph ? graph->seqs : 0);
  const auto enqueue = [&] {
    if (plans_ahead_) {
      ops_.SelectTokens(*stream_, {.token = batch.token,
                                   .source = memory_.builder->token_source(),
                                   .drawn = sampler.drawn(),
                                   .out = batch.token});
    }
    const Tensor hidden = model_.Forward(*stream_, batch, memory_.kv_layers, scratch_);
    sampler.ComputeLogits(*stream_, hidden, scratch_);
  };
  if (graph) {
    // Recording takes milliseconds, which those whose tokens are there need not wait for.
    if (under_way_ && graphs_.Records(*graph)) EndStep();
    graphs_.Run(*stream_, *graph, enqueue);
  } else {
    enqueue();
  }
  sampler.Draw(*stream_);
}

void EngineImpl::EndStep() {
  const UnderWay step = *under_way_;
  under_way_.reset();
  stream_->WaitFor(step.fence);
  if (step.followed && options_.observe_idle) {
    if (const auto seconds = stream_->IdleSecondsBefore(step.fence))
      options_.observe_idle(*seconds);
  }
  const absl::Span<const Token> sampled = memory_.sampler->Finish(
      *step.plan,
      [](Sequence& sequence, const TokenOutput& output) { sequence.sink->Push(output); });
  scheduler_.RecordTime(options_.clock() - step.start);
  CommitStep(*step.plan, sampled);
}

void EngineImpl::RunStep(const StepPlan& plan, absl::Time start) {
  FAIRLEAD_CHECK(!under_way_);  // a plan that was made ahead goes through the head at once
  const Batch& batch = memory_.builder->Build(plan, ShapeOf(plan), *stream_);
  const Tensor hidden = model_.Forward(*stream_, batch, memory_.kv_layers, scratch_);
  memory_.sampler->ScorePrompts(*stream_, hidden, plan, scratch_,
                                [](Sequence& sequence, const TokenOutput& output) {
                                  sequence.sink->PushPromptLogprob(output);
                                });
  const absl::Span<const Token> sampled = memory_.sampler->Sample(
      *stream_, hidden, plan, scratch_,
      [](Sequence& sequence, const TokenOutput& output) { sequence.sink->Push(output); });
  paused_ = true;
  scheduler_.RecordTime(options_.clock() - start);
  CommitStep(plan, sampled);
}

void EngineImpl::CommitStep(const StepPlan& plan, absl::Span<const Token> sampled) {
  ++steps_;
  scheduler_.Commit(sampled, leaving_);
  CloseFinished();
  for (const PlannedRow& row : plan.rows) {
    if (row.sequence != nullptr) row.sequence->sink->Flush();
  }
  leaving_.clear();
}

void EngineImpl::ReadInbox() {
  inbox_.Take(mail_);
  for (auto& sequence : mail_.submitted) scheduler_.Add(std::move(sequence));
  mail_.submitted.clear();
  for (const uint64_t id : mail_.cancelled) {
    if (auto sequence = scheduler_.Remove(id)) leaving_.push_back(std::move(sequence));
  }
  mail_.cancelled.clear();
  CloseAll(FinishReason::kCancelled, cancelled_);
  scheduler_.RemoveExpired(options_.clock(), leaving_);
  CloseAll(FinishReason::kDeadline, expired_);
}

void EngineImpl::CloseAll(FinishReason reason, const absl::Status& status) {
  for (auto& sequence : leaving_) {
    sequence->result.reason = reason;
    sequence->result.status = status;
  }
  CloseFinished();
  for (const auto& sequence : leaving_) sequence->sink->Flush();
  leaving_.clear();
}

// The sequences stay in leaving_.
void EngineImpl::CloseFinished() {
  if (leaving_.empty()) return;
  for (const auto& sequence : leaving_)
    nonfinite_logits_ += sequence->result.reason == FinishReason::kError;
  // Before Close, so that who has seen a request end sees its blocks and its place free.
  inbox_.Leave(static_cast<int>(leaving_.size()));
  PublishStats();
  for (const auto& sequence : leaving_) sequence->sink->Close(sequence->result);
}

void EngineImpl::PublishStats() {
  published_.Store({.running = scheduler_.num_running(),
                    .kv_blocks_total = cache_.num_blocks(),
                    .kv_blocks_used = cache_.num_used_blocks(),
                    .kv_blocks_cached = cache_.num_cached_blocks(),
                    .kv_blocks_free = cache_.num_free_blocks(),
                    .steps = steps_,
                    .graph_steps = graphs_.num_launched(),
                    .ahead_steps = ahead_steps_,
                    .prompt_tokens = scheduler_.num_prompt_tokens(),
                    .generated_tokens = scheduler_.num_generated_tokens(),
                    .prefix_query_tokens = scheduler_.prefix_query_tokens(),
                    .prefix_hit_tokens = scheduler_.prefix_hit_tokens(),
                    .preemptions = scheduler_.num_preemptions(),
                    .nonfinite_logits = nonfinite_logits_,
                    .drafts = scheduler_.num_drafts(),
                    .draft_tokens = scheduler_.num_draft_tokens(),
                    .accepted_draft_tokens = scheduler_.num_accepted_draft_tokens()});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(Device& device, const Model& model,
                                                       const EngineOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  absl::StatusOr<EngineMemory> memory = AllocateMemory(device, model, options);
  if (!memory.ok()) return memory.status();
  return std::make_unique<EngineImpl>(device, model, options, *std::move(memory));
}

}  // namespace fairlead
