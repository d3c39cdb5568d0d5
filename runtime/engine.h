// SPDX-License-Identifier: Apache-2.0
// Owns the KV memory, the scheduler and the one thread that touches them; borrows the device and
// the model.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "models/model.h"
#include "runtime/request.h"
#include "runtime/scheduler.h"

namespace fairlead {

struct EngineOptions {
  SchedulerLimits scheduler;
  int max_queue = 512;        // waiting requests; one more is RESOURCE_EXHAUSTED
  size_t kv_cache_bytes = 0;  // for all layers together
  int max_model_len = 0;      // prompt + output of a request
  int max_logprobs = 20;
  int block_tokens = 16;
  bool prefix_cache = true;
  // On devices that can; the tokens are the same.
  bool graphs = true;            // decode steps run as graphs (step_graphs.h)
  bool async_scheduling = true;  // a step is planned and begun while the one before runs
  // Of each step that followed another at once, where the device knows: how long it had nothing to
  // do in between. Called by the engine's thread.
  std::function<void(double seconds)> observe_idle;
  std::function<absl::Time()> clock = absl::Now;
};

// Rows that go through the head together, at most: Model::ScratchBytes is asked for so many.
int SliceRows(const SchedulerLimits& limits);

// A snapshot for metrics; counters never fall.
struct EngineStats {
  int running = 0, waiting = 0;
  int kv_blocks_total = 0, kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_free = 0;
  int64_t steps = 0;
  int64_t graph_steps = 0;    // that were launched as a graph
  int64_t ahead_steps = 0;    // begun while the one before was under way
  int64_t prompt_tokens = 0;  // of the requests that have started
  int64_t generated_tokens = 0;
  int64_t prefix_query_tokens = 0, prefix_hit_tokens = 0;
  int64_t preemptions = 0, nonfinite_logits = 0;
  int64_t drafts = 0;  // runs of drafted tokens that were verified
  int64_t draft_tokens = 0, accepted_draft_tokens = 0;
};

class Engine {
 public:
  // Allocates everything the step loop needs. Errors: RESOURCE_EXHAUSTED with the bytes asked and
  // free; kInvalidArgument when the cache cannot hold one sequence of max_model_len (both numbers).
  static absl::StatusOr<std::unique_ptr<Engine>> Create(Device& device, const Model& model,
                                                        const EngineOptions& options);
  virtual ~Engine() = default;  // drains with an expired deadline

  // Thread-safe. Refused: kInvalidArgument when prompt + max_tokens exceeds max_model_len or
  // logprobs exceed max_logprobs (both numbers), kResourceExhausted when the queue is full,
  // kUnavailable when draining.
  virtual absl::StatusOr<uint64_t> Submit(EngineRequest request,
                                          std::shared_ptr<TokenSink> sink) = 0;
  // Thread-safe, idempotent: the sequence leaves before the next step and its sink is closed with
  // kCancelled.
  virtual void Cancel(uint64_t id) = 0;
  // Thread-safe, once: refuses new requests, finishes the running and waiting ones until
  // `deadline`, cancels the rest with kUnavailable, joins the thread.
  virtual void Drain(absl::Time deadline) = 0;
  // Thread-safe, lock-free.
  virtual EngineStats stats() const = 0;
  virtual int max_model_len() const = 0;
  // Running and waiting ones together.
  virtual int max_requests() const = 0;
};

}  // namespace fairlead
