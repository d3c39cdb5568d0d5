// SPDX-License-Identifier: Apache-2.0
#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"

namespace fairlead {
namespace {

// Edits of one slice. A row never has more than vocab of them, so one row always fits; what does
// not fit with it goes into the next slice.
size_t MaxEdits(const Model& model) {
  return std::max<size_t>(static_cast<size_t>(model.config().vocab), size_t{1} << 18);
}

Tensor FirstRows(Tensor tensor, int64_t rows) {
  tensor.dim[0] = rows;
  return tensor;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(Device& device, const Model& model,
                                                         const SamplerLimits& limits) {
  const int64_t rows = limits.max_rows;
  const int64_t vocab = model.config().vocab;
  absl::StatusOr<Buffer> logits = device.Allocate(RowBytes(DType::kF32, rows * vocab));
  if (!logits.ok()) return logits.status();
  // Per row: 6 scalars, the seed's halves, the row's index; then the edits.
  const size_t edits = MaxEdits(model);
  absl::StatusOr<Mirror> input = Mirror::Create(
      device, 7 * Mirror::BytesFor(rows) + Mirror::BytesFor(2 * rows) + Mirror::BytesFor(rows + 1) +
                  3 * Mirror::BytesFor(static_cast<int64_t>(edits)));
  if (!input.ok()) return input.status();
  absl::StatusOr<Mirror> output = Mirror::Create(
      device, 3 * Mirror::BytesFor(rows) + 2 * Mirror::BytesFor(rows * limits.max_logprobs));
  if (!output.ok()) return output.status();
  return std::unique_ptr<Sampler>(new Sampler(device, model, limits, *std::move(logits),
                                              *std::move(input), *std::move(output)));
}

Sampler::Sampler(const Device& device, const Model& model, const SamplerLimits& limits,
                 Buffer logits, Mirror input, Mirror output)
    : ops_(device.ops()),
      model_(model),
      limits_(limits),
      max_edits_(MaxEdits(model)),
      logits_(std::move(logits)),
      input_(std::move(input)),
      output_(std::move(output)),
      edits_(max_edits_) {
  drawn_ = output_.Add<int32_t>({limits.max_rows}).device;
  output_.Clear();
  scored_.reserve(limits.max_rows);
  for (Step& step : steps_) {
    step.rows.reserve(limits.max_samples);
    step.places.reserve(limits.max_samples);
    step.sampled.reserve(limits.max_samples);
  }
  edit_start_.reserve(limits.max_rows + 1);
  top_.reserve(limits.max_logprobs);
}

Tensor Sampler::Logits(int64_t rows) const {
  return Tensor(logits_.data(), DType::kF32, {rows, model_.config().vocab});
}

void Sampler::ScorePrompts(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                           Scratch& scratch, Deliver deliver) {
  scored_.clear();
  int hidden_row = 0;
  for (int r = 0; r < static_cast<int>(plan.rows.size()); ++r) {
    const PlannedRow& planned = plan.rows[r];
    const Sequence& sequence = *planned.sequence;
    for (int i = 0; i < planned.num_tokens; ++i, ++hidden_row) {
      const int position = planned.first_token + i + 1;
      if (!sequence.scores_prompt() || position < sequence.num_scored_tokens ||
          position >= sequence.num_prompt_tokens) {
        continue;
      }
      scored_.push_back({.planned = r, .hidden_row = hidden_row, .position = position});
      if (static_cast<int>(scored_.size()) == limits_.max_rows) {
        ScoreSlice(stream, hidden, plan, scratch, deliver);
      }
    }
  }
  if (!scored_.empty()) ScoreSlice(stream, hidden, plan, scratch, deliver);
}

void Sampler::ScoreSlice(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                         Scratch& scratch, Deliver deliver) {
  const int64_t n = static_cast<int64_t>(scored_.size());
  input_.Clear();
  output_.Clear();
  const auto row = input_.Add<int32_t>({n});
  const auto target = input_.Add<int32_t>({n});
  int num_top = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Sequence& sequence = *plan.rows[scored_[i].planned].sequence;
    row.host[i] = scored_[i].hidden_row;
    target.host[i] = sequence.tokens[scored_[i].position];
    num_top = std::max(num_top, sequence.request.prompt_logprobs);
  }
  input_.CopyToDevice(stream);
  const Tensor logits = Logits(n);
  model_.Logits(stream, hidden, row.device, logits, scratch);
  const Logprobs logprobs = EnqueueLogprobs(stream, logits, target.device, num_top);
  output_.CopyToHost(stream);
  stream.Wait();
  for (int i = 0; i < n; ++i) {
    Sequence& sequence = *plan.rows[scored_[i].planned].sequence;
    if (std::isnan(logprobs.logprob.host[i])) sequence.nonfinite_logits = true;
    if (sequence.nonfinite_logits) continue;
    deliver(sequence, OutputOf(logprobs, i, target.host[i], sequence.request.prompt_logprobs));
    sequence.num_scored_tokens = scored_[i].position + 1;
  }
  scored_.clear();
}

absl::Span<const Token> Sampler::Sample(Stream& stream, const Tensor& hidden, const StepPlan& plan,
                                        Scratch& scratch, Deliver deliver) {
  Step& step = steps_[last_];
  CollectSamples(plan, step);
  for (absl::Span<const Row> rest = step.rows; !rest.empty();) {
    step.slice = PrepareSlice(stream, plan, rest, 0);
    model_.Logits(stream, hidden, step.slice.row, Logits(step.slice.row.dim[0]), scratch);
    DrawSlice(stream, step.slice);
    stream.Wait();
    DeliverSlice(plan, rest.first(step.slice.rows), step, deliver);
    rest.remove_prefix(step.slice.rows);
  }
  // A plan without samples has copies in flight all the same.
  if (step.rows.empty()) stream.Wait();
  return step.sampled;
}

bool Sampler::TakesAtOnce(const StepPlan& plan) const {
  int rows = 0;
  size_t edits = 0;
  for (const PlannedRow& planned : plan.rows) {
    if (planned.sequence->has_prompt_to_score()) return false;
    rows += planned.num_samples();
    if (planned.sample && planned.sequence->edits != nullptr) {
      edits += (planned.sequence->edits->max_edits() + planned.num_drafts) * planned.num_samples();
    }
  }
  return rows <= limits_.max_rows && edits <= max_edits_;
}

void Sampler::Prepare(Stream& stream, const StepPlan& plan, int rows) {
  FAIRLEAD_CHECK(unfinished_ < 2);
  ++unfinished_;
  last_ = 1 - last_;
  input_.Flip();
  output_.Flip();
  Step& step = steps_[last_];
  CollectSamples(plan, step);
  step.slice = {};
  if (step.rows.empty()) return;
  step.slice = PrepareSlice(stream, plan, step.rows, rows);
  FAIRLEAD_CHECK(step.slice.rows == step.rows.size());
}

void Sampler::ComputeLogits(Stream& stream, const Tensor& hidden, Scratch& scratch) {
  const Slice& slice = steps_[last_].slice;
  if (slice.rows == 0) return;
  model_.Logits(stream, hidden, slice.row, Logits(slice.row.dim[0]), scratch);
}

void Sampler::Draw(Stream& stream) {
  Slice& slice = steps_[last_].slice;
  if (slice.rows > 0) DrawSlice(stream, slice);
}

absl::Span<const Token> Sampler::Finish(const StepPlan& plan, Deliver deliver) {
  FAIRLEAD_CHECK(unfinished_ > 0);
  Step& step = steps_[unfinished_ == 1 ? last_ : 1 - last_];
  --unfinished_;
  DeliverSlice(plan, step.rows, step, deliver);
  return step.sampled;
}

void Sampler::CollectSamples(const StepPlan& plan, Step& step) {
  step.rows.clear();
  int hidden_end = 0, sample = 0;
  for (int r = 0; r < static_cast<int>(plan.rows.size()); ++r) {
    const PlannedRow& planned = plan.rows[r];
    hidden_end += planned.num_tokens;
    if (!planned.sample) continue;
    const int tokens = static_cast<int>(planned.sequence->tokens.size());
    for (int draft = 0; draft <= planned.num_drafts; ++draft) {
      step.rows.push_back({.planned = r,
                           .hidden_row = hidden_end - 1 - planned.num_drafts + draft,
                           .position = tokens + draft,
                           .sample = sample++,
                           .draft = draft});
    }
  }
  step.sampled.assign(sample, -1);
  // Rows that want logprobs first, so that the others' are not computed.
  std::sort(step.rows.begin(), step.rows.end(), [&plan](const Row& a, const Row& b) {
    const bool a_wants = plan.rows[a.planned].sequence->request.logprobs >= 0;
    const bool b_wants = plan.rows[b.planned].sequence->request.logprobs >= 0;
    return a_wants != b_wants ? a_wants : a.sample < b.sample;
  });
  step.places.resize(step.rows.size());
  for (size_t i = 0; i < step.rows.size(); ++i) {
    step.places[step.rows[i].sample] = static_cast<int>(i);
  }
}

Sampler::Slice Sampler::PrepareSlice(Stream& stream, const StepPlan& plan,
                                     absl::Span<const Row> rows, int least_head_rows) {
  rows = rows.first(CollectEdits(plan, rows));
  const int64_t n = static_cast<int64_t>(rows.size());
  Slice slice;
  slice.rows = rows.size();
  input_.Clear();
  output_.Clear();
  const auto row = input_.Add<int32_t>({std::max<int64_t>(n, least_head_rows)});
  for (int64_t i = 0; i < n; ++i) {
    row.host[i] = rows[i].hidden_row;
    const int logprobs = plan.rows[rows[i].planned].sequence->request.logprobs;
    if (logprobs >= 0) ++slice.wanting;
    slice.num_top = std::max(slice.num_top, logprobs);
  }
  for (int64_t i = n; i < row.device.dim[0]; ++i) row.host[i] = static_cast<int32_t>(i);
  slice.row = row.device;
  slice.args = PackSampleArgs(plan, rows);
  slice.args.edits = PackEdits();
  input_.CopyToDevice(stream);
  return slice;
}

void Sampler::DrawSlice(Stream& stream, Slice& slice) {
  const int64_t n = static_cast<int64_t>(slice.rows);
  slice.drawn = output_.Add<int32_t>({n});
  slice.args.logits = Logits(n);
  slice.args.out = slice.drawn.device;
  ops_.Sample(stream, slice.args);
  if (slice.wanting > 0) {
    slice.logprobs = EnqueueLogprobs(stream, FirstRows(slice.args.logits, slice.wanting),
                                     FirstRows(slice.drawn.device, slice.wanting), slice.num_top);
  }
  output_.CopyToHost(stream);
}

void Sampler::DeliverSlice(const StepPlan& plan, absl::Span<const Row> rows, Step& step,
                           Deliver deliver) {
  for (int i = 0; i < static_cast<int>(rows.size()); ++i) {
    const Token token = step.slice.drawn.host[i];
    step.sampled[rows[i].sample] = token;
    Sequence* const sequence = plan.rows[rows[i].planned].sequence;
    if (sequence == nullptr) continue;
    delivered_ = Reached(*sequence, rows[i], step) && token >= 0 && !sequence->nonfinite_logits;
    if (!delivered_) continue;
    deliver(*sequence, i < step.slice.wanting
                           ? OutputOf(step.slice.logprobs, i, token, sequence->request.logprobs)
                           : TokenOutput{.token = token, .top = {}});
  }
}

bool Sampler::Reached(const Sequence& sequence, const Row& row, const Step& step) const {
  if (row.draft == 0) return true;
  return delivered_ && step.sampled[row.sample - 1] == sequence.drafts[row.draft - 1];
}

size_t Sampler::CollectEdits(const StepPlan& plan, absl::Span<const Row> rows) {
  size_t used = 0, taken = 0;
  edit_start_.assign(1, 0);
  for (; taken < rows.size() && taken < static_cast<size_t>(limits_.max_rows); ++taken) {
    Sequence& sequence = *plan.rows[rows[taken].planned].sequence;
    if (LogitEditTable* const table = sequence.edits.get(); table != nullptr) {
      // As if the drafts before this position were output already.
      const auto drafts = absl::MakeConstSpan(sequence.drafts).first(rows[taken].draft);
      for (const Token draft : drafts) table->Append(draft);
      const bool fits = used + table->max_edits() <= max_edits_;
      if (fits) {
        const int outputs = sequence.num_output_tokens() + rows[taken].draft;
        used += table->Write(outputs, absl::MakeSpan(edits_).subspan(used));
      }
      for (const Token draft : drafts) table->Remove(draft);
      if (!fits) break;
    }
    edit_start_.push_back(static_cast<int32_t>(used));
  }
  FAIRLEAD_CHECK(taken > 0);
  return taken;
}

SampleArgs Sampler::PackSampleArgs(const StepPlan& plan, absl::Span<const Row> rows) {
  const int64_t n = static_cast<int64_t>(rows.size());
  const auto temperature = input_.Add<float>({n});
  const auto top_k = input_.Add<int32_t>({n});
  const auto top_p = input_.Add<float>({n});
  const auto min_p = input_.Add<float>({n});
  const auto seed = input_.Add<int32_t>({n, 2});
  const auto position = input_.Add<int32_t>({n});
  for (int64_t i = 0; i < n; ++i) {
    const SamplingParams& sampling = plan.rows[rows[i].planned].sequence->request.sampling;
    temperature.host[i] = sampling.temperature;
    top_k.host[i] = sampling.top_k;
    top_p.host[i] = sampling.top_p;
    min_p.host[i] = sampling.min_p;
    seed.host[2 * i] = static_cast<int32_t>(sampling.seed);
    seed.host[2 * i + 1] = static_cast<int32_t>(sampling.seed >> 32);
    position.host[i] = rows[i].position;
  }
  return {.logits = {},
          .temperature = temperature.device,
          .top_k = top_k.device,
          .top_p = top_p.device,
          .min_p = min_p.device,
          .seed = seed.device,
          .position = position.device,
          .edits = {},
          .out = {}};
}

LogitEdits Sampler::PackEdits() {
  const int64_t n = edit_start_.back();
  if (n == 0) return {};
  const auto start = input_.Add<int32_t>({static_cast<int64_t>(edit_start_.size())});
  const auto token = input_.Add<int32_t>({n});
  const auto repetition = input_.Add<float>({n});
  const auto add = input_.Add<float>({n});
  std::copy(edit_start_.begin(), edit_start_.end(), start.host.begin());
  for (int64_t i = 0; i < n; ++i) {
    token.host[i] = edits_[i].token;
    repetition.host[i] = edits_[i].repetition;
    add.host[i] = edits_[i].add;
  }
  return {start.device, token.device, repetition.device, add.device};
}

Sampler::Logprobs Sampler::EnqueueLogprobs(Stream& stream, const Tensor& logits,
                                           const Tensor& target, int num_top) {
  const int64_t n = logits.dim[0];
  Logprobs result;
  result.num_top = num_top;
  result.logprob = output_.Add<float>({n});
  result.rank = output_.Add<int32_t>({n});
  if (num_top > 0) {
    result.top_token = output_.Add<int32_t>({n, num_top});
    result.top_logprob = output_.Add<float>({n, num_top});
  }
  ops_.Logprobs(stream, {.logits = logits,
                         .target = target,
                         .out_logprob = result.logprob.device,
                         .out_rank = result.rank.device,
                         .top_token = result.top_token.device,
                         .top_logprob = result.top_logprob.device});
  return result;
}

TokenOutput Sampler::OutputOf(const Logprobs& logprobs, int row, Token token, int num_top) {
  top_.clear();
  for (int i = row * logprobs.num_top; i < row * logprobs.num_top + num_top; ++i) {
    top_.push_back({logprobs.top_token.host[i], logprobs.top_logprob.host[i]});
  }
  return {.token = token,
          .logprob = logprobs.logprob.host[row],
          .rank = logprobs.rank.host[row],
          .top = top_};
}

}  // namespace fairlead
