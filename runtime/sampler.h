// SPDX-License-Identifier: Apache-2.0
// Hidden states become tokens: head, logit edits, draw, logprobs. Engine thread only. A row's
// result depends on its own request and position alone. Rows go through the head in slices, so that
// the logits of a long prompt's logprobs or of very many sequences need bounded memory; slices do
// not change bits, because every op is batch-invariant.
#pragma once

#include <array>
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

  // The same for a plan that goes through the head at once (TakesAtOnce), in parts, so that the
  // next plan's may begin before the last part of this one: at most two are between Prepare and
  // Finish. Waits for nothing, but Finish wants what the stream got until Draw to be done.
  bool TakesAtOnce(const StepPlan& plan) const;
  // Copies what the step needs. rows >= the plan's samples: so many go through the head, and those
  // past the samples take the hidden state of their own index.
  void Prepare(Stream& stream, const StepPlan& plan, int rows);
  // No copies: its ops may be captured.
  void ComputeLogits(Stream& stream, const Tensor& hidden, Scratch& scratch);
  void Draw(Stream& stream);
  // Of the plan drawn last: of each sample, in plan order, its place in drawn().
  absl::Span<const int> places() const { return steps_[last_].places; }
  // i32 [max_rows], on the device: what Draw drew, until the next Draw.
  Tensor drawn() const { return drawn_; }
  // As Sample, of the first plan that was drawn and is not finished. Rows that lost their sequence
  // deliver nothing.
  absl::Span<const Token> Finish(const StepPlan& plan, Deliver deliver);

 private:
  struct Row {
    int planned;  // index of the plan's row
    int hidden_row;
    int position;    // of the token that is drawn or scored
    int sample = 0;  // index into Step::sampled
    int draft = 0;   // so many drafts of the sequence come before this position
  };
  struct Logprobs {
    int num_top = 0;
    Mirror::Array<float> logprob;
    Mirror::Array<int32_t> rank;
    Mirror::Array<int32_t> top_token;
    Mirror::Array<float> top_logprob;
  };
  // Rows that go through the head together.
  struct Slice {
    size_t rows = 0;
    int wanting = 0, num_top = 0;  // the first so many want log-probabilities, so many at most
    Tensor row;                    // i32, what goes through the head
    SampleArgs args;
    Mirror::Array<int32_t> drawn;
    Logprobs logprobs;
  };
  // Of one plan.
  struct Step {
    std::vector<Row> rows;
    std::vector<int> places;
    std::vector<Token> sampled;
    Slice slice;  // the one under way
  };

  Sampler(const Device& device, const Model& model, const SamplerLimits& limits, Buffer logits,
          Mirror input, Mirror output);

  void ScoreSlice(Stream& stream, const Tensor& hidden, const StepPlan& plan, Scratch& scratch,
                  Deliver deliver);
  void CollectSamples(const StepPlan& plan, Step& step);
  // Copies what the first rows of `rows` need, as many as one slice takes.
  Slice PrepareSlice(Stream& stream, const StepPlan& plan, absl::Span<const Row> rows,
                     int least_head_rows);
  void DrawSlice(Stream& stream, Slice& slice);
  void DeliverSlice(const StepPlan& plan, absl::Span<const Row> rows, Step& step, Deliver deliver);
  // True if the row is its sequence's first of this plan, or the one before it was delivered and is
  // the draft in its place.
  bool Reached(const Sequence& sequence, const Row& row, const Step& step) const;
  // Fills edits_ and edit_start_ for as many rows as fit; returns their number.
  size_t CollectEdits(const StepPlan& plan, absl::Span<const Row> rows);
  SampleArgs PackSampleArgs(const StepPlan& plan, absl::Span<const Row> rows);
  LogitEdits PackEdits();
  Tensor Logits(int64_t rows) const;
  Logprobs EnqueueLogprobs(Stream& stream, const Tensor& logits, const Tensor& target, int num_top);
  TokenOutput OutputOf(const Logprobs& logprobs, int row, Token token, int num_top);

  const Ops& ops_;
  const Model& model_;
  const SamplerLimits limits_;
  const size_t max_edits_;
  Buffer logits_;  // f32 [max_rows, vocab]
  Mirror input_;
  Mirror output_;
  Tensor drawn_;
  std::vector<Row> scored_;  // of one slice
  std::array<Step, 2> steps_;
  int last_ = 0;                     // the step prepared last
  int unfinished_ = 0;               // steps between Prepare and Finish
  std::vector<LogitEdit> edits_;     // of one slice
  std::vector<int32_t> edit_start_;  // [rows + 1] of one slice
  std::vector<TopLogprob> top_;
  bool delivered_ = false;  // the last row's token
};

}  // namespace fairlead
