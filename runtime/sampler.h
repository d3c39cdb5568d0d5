// SPDX-License-Identifier: Apache-2.0
// Hidden states become tokens: head, logit edits, draw, logprobs. Engine thread only. A row's
// result depends on its own request and position alone. Rows go through the head in slices, so that
// the logits of a long prompt's logprobs or of very many sequences need bounded memory; slices do
// not change bits, because every op is batch-invariant.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "models/model.h"
#include "runtime/logit_edits.h"
#include "runtime/mirror.h"
#include "runtime/scheduler.h"

namespace fairlead {

struct SamplerLimits {
  int max_rows = 0;      // of one slice: what Model::ScratchBytes was asked for
  int max_samples = 0;   // of one plan
  int max_logprobs = 0;  // <= vocab
};

class Sampler {
 public:
  // Called in plan order of positions for one sequence; the output's `top` is valid during the
  // call.
  using Deliver = absl::FunctionRef<void(Sequence& sequence, const TokenOutput& output)>;

  // Borrows both for its life. Errors: the device's.
  static absl::StatusOr<std::unique_ptr<Sampler>> Create(Device& device, const Model& model,
                                                         const SamplerLimits& limits);

  // Logprobs of the plan's prompt tokens that were asked for and not delivered before (a preempted
  // sequence computes its prompt again). hidden: [tokens, hidden] in plan order. A sequence with a
  // NaN gets nonfinite_logits and no more deliveries.
  void ScorePrompts(Stream& stream, const Tensor& hidden, const StepPlan& plan, Scratch& scratch,
                    Deliver deliver);

  // num_samples() tokens for each row, in plan order; -1 where the logits are not finite. Delivers
  // a row's tokens up to the first that is not the draft in its place or -1, the former included:
  // what Scheduler::Commit accepts. Waits for the stream. Valid until the next call.
  absl::Span<const Token> Sample(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                                 Scratch& scratch, Deliver deliver);

 private:
  struct Row {
    Sequence* sequence;
    int hidden_row;
    int position;    // of the token that is drawn or scored
    int sample = 0;  // index into sampled_
    int draft = 0;   // so many drafts of the sequence come before this position
  };
  struct Logprobs {
    int num_top = 0;
    Mirror::Array<float> logprob;
    Mirror::Array<int32_t> rank;
    Mirror::Array<int32_t> top_token;
    Mirror::Array<float> top_logprob;
  };

  Sampler(const Device& device, const Model& model, const SamplerLimits& limits, Buffer logits,
          Mirror input, Mirror output);

  void ScoreSlice(Stream& stream, const Tensor& hidden, Scratch& scratch, Deliver deliver);
  void CollectSamples(const StepPlan& plan);
  // Draws for the first rows of `rows`, as many as one slice takes; returns their number.
  size_t SampleSlice(Stream& stream, const Tensor& hidden, absl::Span<const Row> rows,
                     Scratch& scratch, Deliver deliver);
  // True if the row is its sequence's first of this plan, or the one before it was delivered and is
  // the draft in its place.
  bool Reached(const Row& row) const;
  // Fills edits_ and edit_start_ for as many rows as fit; returns their number.
  size_t CollectEdits(absl::Span<const Row> rows);
  SampleArgs PackSampleArgs(absl::Span<const Row> rows);
  LogitEdits PackEdits();
  Tensor ComputeLogits(Stream& stream, const Tensor& hidden, const Tensor& row, Scratch& scratch);
  Logprobs EnqueueLogprobs(Stream& stream, const Tensor& logits, const Tensor& target, int num_top);
  TokenOutput OutputOf(const Logprobs& logprobs, int row, Token token, int num_top);

  const Ops& ops_;
  const Model& model_;
  const SamplerLimits limits_;
  const size_t max_edits_;
  Buffer logits_;  // f32 [max_rows, vocab]
  Mirror input_;
  Mirror output_;
  std::vector<Row> rows_;
  std::vector<LogitEdit> edits_;     // of one slice
  std::vector<int32_t> edit_start_;  // [rows + 1] of one slice
  std::vector<TopLogprob> top_;
  std::vector<Token> sampled_;
  bool delivered_ = false;  // the last row's token
};

}  // namespace fairlead
